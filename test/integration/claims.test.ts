import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { NativeConnection, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { claimActivities } from '../../activities/claim.ts';
import type { Deps } from '../../activities/deps.ts';
import { fateOf } from '../../activities/host/fate.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import { waitUntil } from '../../src/lab/processes.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { fakeActivities, fakeWorld } from '../helpers/fake-activities.ts';
import { runActivity } from '../helpers/hostile-scene.ts';
import { closeAs, converterPath, devServer, gateOpen, status, until, workflowBundle, type Incident } from '../helpers/workflow-env.ts';

let env: Awaited<ReturnType<typeof devServer>>;
let connection: NativeConnection;
let worker: Worker;
let running: Promise<void>;
let deps: Deps;

beforeAll(async () => {
  env = await devServer('claims');
  connection = await NativeConnection.connect({ address: env.address });
  // Claims speak to Temporal only.
  deps = {
    temporal: env.client,
    node: new Stigmem({ url: 'http://127.0.0.1:1', adminKey: 'k' }),
    nodeUrl: '',
    evidenceDir: '',
    policyFile: undefined,
    contactsFile: undefined,
    webhookUrl: undefined,
    peerAllow: [],
    concurrency: 1,
    writesPerHour: 1,
    writeHeadroom: 0,
    hostTaskQueue: 'stigmem-host',
  };
  worker = await Worker.create({
    connection,
    taskQueue: 'claims',
    workflowBundle: await workflowBundle(),
    dataConverter: { payloadConverterPath: converterPath },
    activities: { ...fakeActivities(fakeWorld()), ...claimActivities(deps) },
  });
  running = worker.run();
});
afterAll(async () => {
  worker?.shutdown();
  await running;
  await connection?.close();
  await env?.stop();
});

function start(workflowId: string): Promise<Incident> {
  return env.client.workflow.start<typeof PeerCompromise>('PeerCompromise', {
    taskQueue: 'claims',
    workflowId,
    args: [{ peer: 'node:peer', alerts: [{ name: `alert of ${workflowId}` }], reportedBy: 'alice', reason: 'seen twice' }],
  });
}

/** Waits until of all these exactly one is open at the retract gate and the others have ended as duplicates. */
async function sortOut(incidents: readonly Incident[]): Promise<Incident> {
  const phases = async () => Promise.all(incidents.map(async (incident) => ({ incident, now: await status(incident) })));
  const settled = await waitUntil('one holder', async () => {
    const all = await phases();
    const ended = all.filter(({ now }) => now.outcome !== null && now.state === 'closed');
    return ended.length === incidents.length - 1 && all;
  });
  const [holder, ...more] = settled.filter(({ now }) => now.outcome === null);
  expect(more).toEqual([]);
  if (!holder) throw new Error('nobody holds the peer');
  for (const { incident } of settled)
    if (incident !== holder.incident) expect(await incident.result()).toMatchObject({ outcome: 'duplicate' });
  await gateOpen(holder.incident, 'retract');
  return holder.incident;
}

/** Claims that are held now. */
async function claims(): Promise<number> {
  let count = 0;
  for await (const _claim of env.client.workflow.list({ query: `WorkflowType = 'PeerClaim' AND ExecutionStatus = 'Running'` })) count += 1;
  return count;
}

test('of five incidents for one peer that start at once exactly one goes on, and has the alerts of all', async () => {
  const incidents = await Promise.all(['a1', 'a2', 'a3', 'a4', 'a5'].map(start));
  const holder = await sortOut(incidents);
  const now = await until(holder, ({ notes }) => notes.length === 4, 'four joined');
  expect(now.alerts.count).toBe(5);
  for (const { by, text } of now.notes) {
    expect(by).toBe('alice');
    expect(text).toMatch(/^a\d was started for the same peer and joined with 1 alerts: seen twice$/);
  }
  // Under its node_id and under its URL.
  await waitUntil('two claims', async () => (await claims()) === 2);
  await closeAs(holder, 'expelled');
  await waitUntil('the claims released at close', async () => (await claims()) === 0);
});

test('the claims of a dead holder are taken over; of two at once exactly one wins', async () => {
  const dead = await start('b1');
  await gateOpen(dead, 'retract');
  await dead.terminate('its operator gave up');
  const heir = await sortOut(await Promise.all(['b2', 'b3'].map(start)));
  expect((await until(heir, ({ notes }) => notes.length === 1, 'the other joined')).alerts.count).toBe(2);
  await closeAs(heir, 'expelled');
});

test('a new incident under the id of a dead one takes its claims over', async () => {
  const dead = await start('b4');
  await gateOpen(dead, 'retract');
  await dead.terminate('its operator gave up');
  const again = await start('b4');
  await gateOpen(again, 'retract');
  await closeAs(again, 'dismissed');
  await waitUntil('the claims released', async () => (await claims()) === 0);
});

test("a claim outlives its holder's continue-as-new, and is released by the run after it", async () => {
  const holder = await start('c1');
  const { run } = await gateOpen(holder, 'retract').then(() => status(holder));
  for (let sent = 0; sent < 2_000; sent += 100) await Promise.all(Array.from({ length: 100 }, () => holder.signal('sudo', {})));
  await until(holder, (now) => now.run !== run, 'the next run', 60_000);
  expect(await (await start('c2')).result()).toMatchObject({ outcome: 'duplicate' });
  expect((await until(holder, ({ notes }) => notes.length === 1, 'joined')).alerts.count).toBe(2);
  await closeAs(holder, 'expelled');
  await waitUntil('the claims released', async () => (await claims()) === 0);
  const next = await start('c3');
  await gateOpen(next, 'retract');
  await closeAs(next, 'expelled');
}, 120_000);

test('alerts that are handed over once more, because nobody was told that they were, are counted once', async () => {
  const holder = await start('d1');
  await gateOpen(holder, 'retract');
  const ref = { incident: 'd2', firstRun: 'first-d2', mode: 'live', phase: 'identify', round: 1, at: '2026-11-23T01:00:00.000Z' } as const;
  const { handOverAlerts } = claimActivities(deps);
  const given = { ref, to: 'd1', alerts: [{ name: 'one' }, { name: 'one' }], reportedBy: 'alice', reason: 'seen twice' };
  for (let time = 0; time < 3; time += 1) expect(await runActivity(handOverAlerts, given)).toEqual({ handedOver: 2 });
  // Taken after all that came before it.
  await holder.signal('note', { by: 'bob', text: 'the last' });
  const now = await until(holder, ({ notes }) => notes.some(({ by }) => by === 'bob'), 'the last note');
  expect(now.alerts.count).toBe(3);
  expect(now.notes.map(({ by }) => by)).toEqual(['alice', 'bob']);
  await closeAs(holder, 'expelled');
});

test('an incident that was ended is told from one that goes on, has closed, or is forgotten; under the same id and after continue-as-new too', async () => {
  const evidenceDir = join(repoRoot, '.test', 'claims-evidence');
  rmSync(evidenceDir, { recursive: true, force: true });
  const fate = (of: Incident, firstRun: string) => fateOf({ evidenceDir }, env.client, { incident: of.workflowId, firstRun });
  const firstOf = async (of: Incident) => (await of.describe()).raw.workflowExecutionInfo?.firstRunId ?? '';
  const one = await start('e1');
  const firstRun = await firstOf(one);
  const { run } = await gateOpen(one, 'retract').then(() => status(one));
  for (let sent = 0; sent < 2_000; sent += 100) await Promise.all(Array.from({ length: 100 }, () => one.signal('sudo', {})));
  await until(one, (now) => now.run !== run, 'the next run', 60_000);
  expect(await fate(one, firstRun)).toBe('open');
  await env.client.workflow.getHandle('e1').terminate('its operator gave up');
  expect(await fate(one, firstRun)).toBe('dead');
  const next = await start('e1');
  const nextRun = await firstOf(next);
  // Its last run is found from the first, whoever has the id now.
  expect([await fate(next, firstRun), await fate(next, nextRun)]).toEqual(['dead', 'open']);
  await gateOpen(next, 'retract');
  await closeAs(next, 'dismissed');
  expect(await fate(next, nextRun)).toBe('closed');
  expect(await fate(next, '00000000-0000-4000-8000-000000000000')).toBe('unknown');
  // What was sealed when it closed counts for more than what the server says of its runs.
  const at = '2026-11-23T01:00:00.000Z';
  const store = await EvidenceStore.open(evidenceDir, 'e1', at);
  await store.seal({ key: `${firstRun}:closed:1:final status`, kind: 'status', name: 'final status', phase: 'closed', round: 1, at }, {});
  expect(await fate(next, firstRun)).toBe('closed');
}, 120_000);
