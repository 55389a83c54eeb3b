import { afterAll, beforeAll, expect, test } from 'vitest';
import { defaultPolicy } from '../../src/contract/policy.ts';
import { project } from '../../src/audit/project.ts';
import { readHistory } from '../../src/audit/read.ts';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { fuzzed, type Fuzzed } from '../helpers/fuzz-messages.ts';
import { approveBySignal, approveByUpdate } from '../helpers/honest.ts';
import { rawSignal, rawUpdate } from '../helpers/raw-messages.ts';
import { closeAs, devServer, gateOpen, status, until, withIncident, type Incident } from '../helpers/workflow-env.ts';

/** `npm run hurt` sends them all; HURT_SEED=… sends the same ones again. */
const count = process.env['HURT'] === 'full' ? 10_000 : 1_000;
const seed = Number(process.env['HURT_SEED'] ?? Date.now() % 2 ** 31);
/** The server takes at most ten updates at once. */
const lanes = 8;

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('hurt-fuzz');
});
afterAll(async () => {
  await env?.stop();
});

const retract = { ...defaultPolicy.gates.retract, need: 2, approvers: ['bob', 'carol'] };
const policy = { ...defaultPolicy, gates: { ...defaultPolicy.gates, retract } };

async function send(incident: Incident, message: Fuzzed, live: { run: string; digest: string }): Promise<void> {
  const payloads = message.payloads(live);
  if (message.via === 'signal') return rawSignal(env, incident, message.name, payloads);
  const answer = await rawUpdate(env, incident, message.name, payloads);
  expect(
    answer,
    `${message.name} ${JSON.stringify(
      payloads.map(({ data }) =>
        Buffer.from(data ?? [])
          .toString('utf8')
          .slice(0, 300),
      ),
    )}`,
  ).toMatchObject({
    accepted: false,
    refusedBecause:
      message.expect === 'malformed' ? 'malformed' : expect.stringMatching(/^(unknown_gate|not_open|stale_digest|not_allowed)$/),
  });
}

test(
  `${count} fuzzed messages (HURT_SEED=${seed}): none counts, each is on record and in the audit, and honest people decide`,
  { timeout: 1_500_000 },
  async () => {
    const world = fakeWorld({ policy });
    await withIncident(
      env,
      world,
      async (incident) => {
        const messages = fuzzed(count, seed);
        const of = (...kinds: Fuzzed['expect'][]) => messages.filter((message) => kinds.includes(message.expect)).length;
        let { digest } = await gateOpen(incident, 'retract');
        let { run } = await status(incident);
        let next = 0;
        const lane = async (): Promise<void> => {
          for (let message = messages[next++]; message; message = messages[next++]) {
            await send(incident, message, { run, digest });
            // Near misses are near only to what is open now.
            if (next % 500 === 0) ({ digest, run } = { ...(await gateOpen(incident, 'retract')), run: (await status(incident)).run });
          }
        };
        await Promise.all(Array.from({ length: lanes }, lane));

        const after = await until(incident, ({ refused }) => refused.count >= of('malformed', 'refused'), 'all refusals', 120_000);
        expect(after).toMatchObject({ phase: 'retract', state: 'waiting', outcome: null });
        expect(after.refused.count).toBe(of('malformed', 'refused'));
        expect(after.alerts.count).toBe(of('alert'));
        expect(after.waitingFor).toMatchObject([{ kind: 'gate', gate: 'retract', opening: 1, have: 0, need: 2 }]);
        expect([...world.undone]).toEqual([]);

        // Honest people: one by update, one by signal.
        expect(await approveByUpdate(incident, 'bob', digest)).toMatchObject({ accepted: true, have: 1 });
        await approveBySignal(incident, 'carol');
        const inTheEnd = await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
        expect([...world.undone.keys()]).toEqual(['fact-a', 'fact-b']);
        expect(await closeAs(incident, 'expelled')).toMatchObject({ outcome: 'expelled' });

        const audit = project(await readHistory({ kind: 'workflow', id: incident.workflowId, client: env.client }));
        expect(audit.problems).toEqual([]);
        expect(audit.messages.filter(({ malformed }) => malformed !== null)).toHaveLength(of('malformed'));
        expect(audit.messages.filter(({ refused }) => refused)).toHaveLength(inTheEnd.refused.count);
        expect(audit.messages.filter(({ name, malformed }) => name === 'note' && malformed === null)).toHaveLength(of('note'));
      },
      { id: `fuzz-${seed}`, built: true },
    );
  },
);
