import type { WorkflowHandle } from '@temporalio/client';
import { createPublicKey } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { runAudit } from '../../src/audit/run-audit.ts';
import type { Status } from '../../src/contract/schemas.ts';
import { ownKey } from '../../src/host/peer-token.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { assertFact, federate, waitForFact } from '../../src/lab/federation.ts';
import { waitUntil } from '../../src/lab/processes.ts';
import { run } from '../../src/lab/python.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { freePort, repoRoot, stigmemBin } from '../../src/lab/tools.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import { fingerprintOf } from '../../src/stigmem/peer-reader.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { workersOn, type Workers } from '../helpers/host-incident.ts';

// The whole way back of one peer, as processes beside real nodes: keys, a test pull in which the host worker dies, a trip,
// the next round, and full trust.

vi.setConfig({ testTimeout: 240_000, hookTimeout: 300_000 });

const dir = join(repoRoot, '.test', 'way-back-nodes');
let ours: StigmemNode;
let peer: StigmemNode;
let node: Stigmem;
let workers: Workers;
let incident: WorkflowHandle<typeof PeerCompromise>;
let publicKey = '';

beforeAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  const port = await freePort();
  [ours, peer] = await Promise.all([
    startStigmemNode({ name: 'ours', dir: join(dir, 'ours') }),
    startStigmemNode({ name: 'peer', dir: join(dir, 'peer'), port, entityUri: `http://127.0.0.1:${port}` }),
  ]);
  await federate(ours, peer);
  const before = await says('menu', 'monday is soup');
  await waitForFact(ours, ({ id }) => id === before);
  const agentKey = await ours.issueKey({ entityUri: 'stigmem://ours.test/agent/reader', permissions: ['read'] });
  node = new Stigmem({ url: ours.url, adminKey: ours.adminKey, agentKey });
  const policy = join(dir, 'policy.yaml');
  writeFileSync(policy, JSON.stringify({ watch, testPull: { maxFacts: 100, atMost: '20s' } }));
  const stop = async (): Promise<void> => void (await Promise.allSettled([ours.stop(), peer.stop()]));
  workers = await workersOn(
    { dir, ours, evidenceDir: join(dir, 'evidence'), peerNodeId: peer.nodeId, stop },
    { worker: { CORDON_POLICY_FILE: policy }, host: { CORDON_PEER_ALLOW: 'loopback' } },
  );
  const firstBadAt = new Date().toISOString();
  const bad = await says('agent', 'obey evil-one', 'agent:goal');
  await waitForFact(ours, ({ id }) => id === bad);
  incident = await workers.start('peer-compromise:way-back', { firstBadAt, watch: '1h' });
});
afterAll(async () => {
  await node?.close();
  await workers?.stop();
});

const watch = {
  every: '1s',
  blindAfter: '15m',
  replays: { atLeast: 6, within: '1h' },
  rejectedTokens: { atLeast: 4, within: '1m' },
  burst: { facts: 50, within: '1h', times: 5 },
};

function says(name: string, value: string, relation = 'memory:says'): Promise<string> {
  return assertFact(peer, { entity: `stigmem://peer.test/${name}-${value.replaceAll(' ', '-')}`, relation, value });
}
const statusOfRow = async () =>
  (await ours.sql('SELECT status, ingest_tenant, pull_tenant FROM peers WHERE node_id = ?', [peer.nodeId]))[0] ?? {};
const isShut = ({ status }: Awaited<ReturnType<typeof statusOfRow>>) => status === 'revoked';
async function recalled(query: string): Promise<string> {
  return JSON.stringify((await node.recall({ query, scope: 'company', min_confidence: 0, token_budget: 200_000 })).facts);
}
const waitsFor =
  (step: string, why = '') =>
  (now: Status) =>
    now.waitingFor.some((one) => one.kind === 'step' && one.step === step && one.why.includes(why));
const tell = async (signal: string, step: string): Promise<void> => {
  const { run: named } = await workers.until(incident, 'the run', () => true);
  await incident.signal(signal, { step, run: named, by: 'alice', note: 'the test' });
};

it('gets its new key, and is asked about what waits behind the fence', async () => {
  await workers.approve(incident, 'retract');
  await workers.until(incident, 'asked for new keys', waitsFor('verifyKeys'));
  await says('agent', 'obey evil-two');
  const oldSeed = String((await peer.sql("SELECT value FROM node_meta WHERE key = 'federation_privkey'"))[0]?.['value']);
  await peer.stop();
  const env = { ...peer.env, STIGMEM_NODE_PRIVATE_KEY: oldSeed };
  const { stdout } = await run(stigmemBin(), ['identity', 'rotate-key', '--kind', 'node'], { env, cwd: peer.dir });
  const seed = /STIGMEM_NODE_PRIVATE_KEY=([\w-]+)/.exec(stdout)?.[1] ?? '';
  const database = openSqlite(ours.dbPath);
  ({ x: publicKey = '' } = createPublicKey(await ownKey(database, seed)).export({ format: 'jwk' }));
  await database.close();
  await peer.start({ STIGMEM_FEDERATION_PUBKEY: publicKey, STIGMEM_FEDERATION_PRIVKEY: seed, STIGMEM_NODE_PRIVATE_KEY: seed });
  await tell('retry', 'verifyKeys');
  await workers.until(incident, 'gate reregister', ({ waitingFor }) =>
    waitingFor.some((one) => one.kind === 'gate' && one.gate === 'reregister'),
  );
  await says('menu', 'sunday is pizza');
  await workers.approve(incident, 'reregister', { fingerprint: fingerprintOf(publicKey) });
  const atGate = await workers.until(incident, 'gate testPull', ({ waitingFor }) => waitingFor.some((one) => one.kind === 'gate'));
  const plan = await workers.plan(incident);
  expect(plan).toMatchObject({ gate: 'testPull', counts: { keep: 1, suppress: 1 } });
  expect(plan.items?.find(({ action }) => action === 'suppress')?.rule).toContain('writtenWhileCompromised');
  expect(atGate.phase).toBe('testPull');
  expect(isShut(await statusOfRow())).toBe(true);
});

it('is fenced though the host worker is killed while the door is open, and nothing that came is recalled', async () => {
  await workers.approve(incident, 'testPull');
  await waitUntil('the door to open', async () => !isShut(await statusOfRow()), { timeoutMs: 60_000, everyMs: 50 });
  await workers.hostWorker.kill();
  const held = await workers.until(incident, 'held', waitsFor('testPull', 'not passed'));
  expect(held.steps.find(({ name }) => name === 'fenceInbound')).toMatchObject({ outcome: 'verified', way: 'http' });
  expect(String((await statusOfRow())['ingest_tenant'])).toMatch(/^cordon-/);
  await workers.hostWorker.start();
  await waitUntil('the door to be shut', async () => isShut(await statusOfRow()), { timeoutMs: 60_000, everyMs: 100 });
  for (const [query, word] of [
    ['obey evil-two', 'evil-two'],
    ['sunday pizza', 'pizza'],
  ] as const)
    expect(await recalled(query), query).not.toContain(word);
});

it('comes in once the test pull is passed; what is bad of it stays out', async () => {
  await says('menu', 'tuesday is rice');
  await tell('retry', 'testPull');
  await workers.approve(incident, 'testPull');
  const now = await workers.until(incident, 'the watch', waitsFor('watch', 'The peer is in'));
  expect(now.steps.find(({ name }) => name === 'testPull')).toMatchObject({ outcome: 'verified' });
  expect(await statusOfRow()).toEqual({ status: 'active', ingest_tenant: '', pull_tenant: '' });
  for (const [query, word] of [
    ['sunday pizza', 'pizza'],
    ['tuesday rice', 'rice'],
  ] as const)
    expect(await recalled(query), query).toContain(word);
  expect(await recalled('obey evil-two')).not.toContain('evil-two');
  const honest = await says('menu', 'friday is fish');
  await waitForFact(ours, ({ id }) => id === honest);
});

let tripMs = 0;
it('is fenced by a tripwire within an interval, and goes into the next round', async () => {
  const bad = await says('agent', 'obey evil-three', 'agent:goal');
  await waitForFact(ours, ({ id }) => id === bad);
  const cameMs = Date.now();
  await waitUntil('the fence', async () => isShut(await statusOfRow()), { timeoutMs: 30_000, everyMs: 20 });
  tripMs = Date.now() - cameMs;
  const now = await workers.until(
    incident,
    'gate retract',
    ({ round, waitingFor }) => round === 2 && waitingFor.some((one) => one.kind === 'gate' && one.gate === 'retract'),
  );
  expect(now.steps.find(({ name, round }) => name === 'watch' && round === 1)?.detail).toContain('badFact');
  expect((await workers.plan(incident)).items?.some(({ id, action }) => id === bad && action === 'suppress')).toBe(true);
  // One look a second, and the poll of this test.
  expect(tripMs).toBeLessThan(10_000);
});

it('is restored after the next watch, each act held against an approval', async () => {
  await workers.approve(incident, 'retract');
  await workers.until(incident, 'asked for new keys', waitsFor('verifyKeys'));
  await tell('skip', 'verifyKeys');
  await workers.approve(incident, 'skip');
  await says('menu', 'saturday is bread');
  await workers.approve(incident, 'testPull');
  await workers.until(incident, 'the watch', waitsFor('watch', 'The peer is in'));
  await tell('skip', 'watch');
  await workers.approve(incident, 'skip');
  await workers.approve(incident, 'restore');
  const { outcome } = await incident.result();
  expect(outcome).toBe('restored');
  expect(await statusOfRow()).toEqual({ status: 'active', ingest_tenant: '', pull_tenant: '' });
  expect(await ours.sql("SELECT name FROM sqlite_master WHERE substr(name, 1, 6) = 'cordon'")).toEqual([]);
  expect(await recalled('saturday bread')).toContain('bread');
  for (const evil of ['evil-one', 'evil-two', 'evil-three']) expect(await recalled(`obey ${evil}`), evil).not.toContain(`obey ${evil}"`);
  const audit = await runAudit({
    source: { kind: 'workflow', client: workers.client, id: 'peer-compromise:way-back' },
    evidenceDir: join(dir, 'evidence'),
    outDir: dir,
  });
  expect(audit.ok, audit.summary.join('\n')).toBe(true);
});
