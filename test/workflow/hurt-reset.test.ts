import { randomInt } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { defaultPolicy } from '../../src/contract/policy.ts';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { lastTask, nextTask, reset } from '../helpers/reset.ts';
import {
  approve,
  closeAs,
  decide,
  devServer,
  gateOpen as gateOpenSoon,
  status,
  until,
  withIncident,
  type Incident,
} from '../helpers/workflow-env.ts';

/** Incidents, a few at a time; each is reset twice. */
const incidents = process.env['HURT'] === 'full' ? 40 : 4;
const atOnce = 2;
/** Each task replays all that came before. */
const slowMs = 90_000;

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('hurt-reset');
});
afterAll(async () => {
  await env?.stop();
});

const retract = { ...defaultPolicy.gates.retract, need: 2 };
const policy = { ...defaultPolicy, gates: { ...defaultPolicy.gates, retract } };

/** Updates beside signals, all at the same time: some fit, some ask which run this is, some are junk. */
async function storm(incident: Incident, digest: string, run: string): Promise<void> {
  const vote = { gate: 'retract', digest, by: 'bob' };
  const other = { ...vote, digest: `sha256:${'1'.repeat(64)}`, by: 'mallory' };
  const messages: (() => Promise<unknown>)[] = [
    () => decide(incident, { ...vote, decision: 'approve' }),
    () => decide(incident, { ...other, decision: 'approve' }),
    () => decide(incident, { ...other, decision: 'reject', by: 'eve' }),
    () => incident.signal('approve', other),
    () => incident.signal('reject', other),
    () => incident.signal('amend', { ...other, keep: [{ factId: 'fact-a', justification: 'x' }] }),
    () => incident.signal('retry', { step: 'undoFacts', run: 'ffffffff-none', by: 'mallory' }),
    () => incident.signal('close', { outcome: 'dismissed', run: 'ffffffff-none', by: 'mallory', reason: 'x' }),
    () => incident.signal('close', { outcome: 'expelled', run, by: 'alice', reason: 'x' }),
    () => incident.signal('sudo', {}),
    () => incident.signal('note', { by: 'alice', text: 'x' }),
  ];
  await Promise.all(messages.toSorted(() => randomInt(3) - 1).map((send) => send()));
}

async function gateOpen(incident: Incident, gate: string) {
  const isOpen = (now: Awaited<ReturnType<typeof status>>) => now.waitingFor.some((one) => one.kind === 'gate' && one.gate === gate);
  await until(incident, isOpen, `gate ${gate}`, slowMs);
  return gateOpenSoon(incident, gate);
}

/** No code failed in this history: a task that ended the run while a signal waited is tried again by the server, without a failure. */
async function failedTasks(incident: Incident): Promise<string[]> {
  const { events } = await incident.fetchHistory();
  return (events ?? []).flatMap(({ workflowTaskFailedEventAttributes: failed }) =>
    failed?.failure && !failed.newRunId ? [failed.failure.message ?? ''] : [],
  );
}

test(
  `${incidents} incidents are reset with updates and signals that come again side by side, and replayed from the start at each task`,
  { timeout: 1_200_000 },
  async () => {
    const one = async (index: number): Promise<void> => {
      const world = fakeWorld({ policy });
      await withIncident(
        env,
        world,
        async (incident) => {
          const { digest } = await gateOpen(incident, 'retract');
          const point = index % 2 === 0 ? await lastTask(incident) : await nextTask(incident);
          await storm(incident, digest, (await status(incident)).run);
          await gateOpen(incident, 'close');
          const copy = await reset(env, incident, point);
          // All of it comes again, and new messages with it.
          const { digest: asked } = await gateOpen(copy, 'retract');
          await storm(copy, asked, (await status(copy)).run);
          await gateOpen(copy, 'close');
          expect(await failedTasks(copy)).toEqual([]);
          const second = await reset(env, copy, await lastTask(copy));
          expect(world.undone.size).toBe(0);
          expect(await approve(second, 'retract', 'carol')).toMatchObject({ accepted: true, have: 1 });
          expect(await approve(second, 'retract', 'dave')).toMatchObject({ accepted: true, have: 2 });
          await until(second, ({ phase }) => phase === 'rotate', 'rotate', slowMs);
          expect([...world.undone.values()]).toEqual([1, 1]);
          const open = (await status(second)).waitingFor.some((waiting) => waiting.kind === 'gate' && waiting.gate === 'close');
          if (open) {
            expect(await approve(second, 'close')).toMatchObject({ accepted: true });
            expect(await second.result()).toMatchObject({ outcome: 'expelled' });
          } else expect(await closeAs(second, 'expelled')).toMatchObject({ outcome: 'expelled' });
          expect(await failedTasks(second)).toEqual([]);
        },
        { id: `reset-${index}`, maxCachedWorkflows: 0 },
      );
    };
    for (let from = 0; from < incidents; from += atOnce) {
      await Promise.all(Array.from({ length: Math.min(atOnce, incidents - from) }, (_, at) => one(from + at)));
    }
  },
);
