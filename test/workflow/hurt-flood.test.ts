import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { project } from '../../src/audit/project.ts';
import { readHistory } from '../../src/audit/read.ts';
import { send } from '../../src/cli/incident.ts';
import { defaultPolicy } from '../../src/contract/policy.ts';
import type { Status } from '../../src/contract/schemas.ts';
import { loadTemporalSettings } from '../../src/temporal.ts';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { approveBySignal, approveByUpdate } from '../helpers/honest.ts';
import { flood, junk, knownSignals, payloadOf, unknownSignals } from '../helpers/raw-messages.ts';
import { closeAs, devServer, gateOpen, until, withIncident, type Incident } from '../helpers/workflow-env.ts';

/** `npm run hurt`: the whole flood, against a server as it comes. Else a small one, against a server with small limits. */
const isFull = process.env['HURT'] === 'full';
const sizes = isFull ? [10_000, 25_000] : [2_500];
const limits = isFull ? [] : ['history.maximumSignalsPerExecution=600', 'limit.historyCount.suggestContinueAsNew=400'];
const timeout = 1_200_000;

type Server = Awaited<ReturnType<typeof devServer>>;
let env: Server;
let fast: Server;
beforeAll(async () => {
  env = await devServer('hurt-flood', limits);
  fast = await devServer('hurt-flood-memory', limits, true);
});
afterAll(async () => {
  await env?.stop();
  await fast?.stop();
});

const retract = { ...defaultPolicy.gates.retract, need: 2 };
const policy = { ...defaultPolicy, gates: { ...defaultPolicy.gates, retract } };
const stale = { gate: 'retract', digest: `sha256:${'0'.repeat(64)}`, by: 'mallory', run: 'ffffffff-none' };
/** All of it is junk: none fits, or what fits is about nothing that is open. */
const messages = [
  ...[...knownSignals, ...unknownSignals].flatMap((name) => Object.values(junk).map((payloads) => ({ name, payloads }))),
  ...Array.from({ length: 10 }, () => [
    { name: 'approve', payloads: [payloadOf({ gate: stale.gate, digest: stale.digest, by: stale.by })] },
    { name: 'close', payloads: [payloadOf({ outcome: 'dismissed', run: stale.run, by: stale.by, reason: 'x' })] },
    { name: 'retry', payloads: [payloadOf({ step: 'fenceInbound', run: stale.run, by: stale.by })] },
  ]).flat(),
];

/** Everything that the server took is refused on record, and the audit finds each. */
async function checkRecord({ client }: Server, incident: Incident, sent: number): Promise<void> {
  // What names another run is on record a second later: an activity is asked first which run this is.
  const isOnRecord = ({ phase, refused }: Status) => phase === 'rotate' && refused.count >= sent;
  const { refused } = await until(incident, isOnRecord, `rotate, and ${sent} on record`);
  expect(await closeAs(incident, 'expelled')).toMatchObject({ outcome: 'expelled' });
  const audit = project(await readHistory({ kind: 'workflow', id: incident.workflowId, client }));
  expect(audit.problems).toEqual([]);
  expect(audit.messages.filter((message) => message.refused)).toHaveLength(refused.count);
}

/** Bob decides by update well into the flood, Carol by signal after it. Gives when each counted, and when the flood was over. */
async function decideInFlood(server: Server, incident: Incident, count: number) {
  const { digest } = await gateOpen(incident, 'retract');
  const began = Date.now();
  let overAtMs = Number.POSITIVE_INFINITY;
  const flooding = flood(server.address, incident, count, messages).finally(() => (overAtMs = Date.now() - began));
  // Asked of the server alone: a query has to wait for the worker.
  while (((await incident.describe()).historyLength ?? 0) < Math.min(count / 10, 3_000))
    await new Promise((resolve) => setTimeout(resolve, 50));
  expect(await approveByUpdate(incident, 'bob', digest)).toMatchObject({ accepted: true, have: 1 });
  const updateAtMs = Date.now() - began;
  const { sent, refused } = await flooding;
  expect(sent + refused).toBe(count);
  const signalAfterMs = await approveBySignal(incident, 'carol');
  console.log(JSON.stringify({ count, sent, refusedByServer: refused, overAtMs, updateAtMs, signalAfterMs }));
  expect(signalAfterMs).toBeLessThan(5_000);
  await checkRecord(server, incident, sent);
  return { updateAtMs, overAtMs };
}

describe.each(sizes)('%i junk signals', (count) => {
  /**
   * Whoever sends a signal gets the server's lock on the run before the server's own work does, and handing the incident
   * to the worker is such work. One that writes each signal to a disk has none to spare while ten or more at a time come:
   * 10,000 of them, which it takes to the last, miss this there. See docs/explanation/durability.md. A small flood is over
   * before such a server on a busy machine gets to it: there the update has as long as the signal.
   */
  test.each([
    ['in memory', () => fast, 0],
    ['on disk', () => env, isFull ? 0 : 5_000],
  ])(
    'a server %s: an honest decision by update counts while they come, one by signal within 5 s after',
    { timeout },
    async (where, server, moreMs) => {
      await withIncident(
        server(),
        fakeWorld({ policy }),
        async (incident) => {
          const { updateAtMs, overAtMs } = await decideInFlood(server(), incident, count);
          expect(updateAtMs).toBeLessThan(overAtMs + moreMs);
        },
        { id: `flood-${count}-${where.replace(' ', '-')}`, built: true },
      );
    },
  );
});

test('signals by the thousand that came while no worker was there do not stop the one that comes', { timeout }, async () => {
  const count = isFull ? 9_900 : 590;
  let sent = 0;
  await withIncident(
    env,
    fakeWorld({ policy }),
    async (incident) => {
      await until(incident, ({ refused }) => refused.count >= sent, 'all on record', 60_000);
      expect(await approveByUpdate(incident, 'bob', (await gateOpen(incident, 'retract')).digest)).toMatchObject({ accepted: true });
      await approveBySignal(incident, 'carol');
      await checkRecord(env, incident, sent);
    },
    {
      id: 'flood-before',
      built: true,
      before: async (incident) => {
        ({ sent } = await flood(env.address, incident, count, messages));
        expect(sent).toBe(count);
        const further = await flood(env.address, incident, 200, messages);
        expect(further.refused).toBeGreaterThan(0);
        sent += further.sent;
        // Who comes now is told why, and not in the server's words alone.
        const { client } = env;
        const session = { client, settings: loadTemporalSettings({ TEMPORAL_ADDRESS: env.address }), close: async () => undefined };
        await expect(send(session, incident.workflowId, 'note', { text: 'x', by: 'bob' })).rejects.toThrow('takes no more signals');
      },
    },
  );
});
