import { Client, Connection } from '@temporalio/client';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { decideUpdate, statusQuery } from '../../src/contract/messages.ts';
import { workflowType } from '../../src/contract/names.ts';
import type { Status } from '../../src/contract/schemas.ts';
import { EvidenceEntry } from '../../src/evidence/entry.ts';
import { incidentFolderName } from '../../src/evidence/names.ts';
import { verifyFolder } from '../../src/evidence/verify.ts';
import { startNodeProxy, type NodeProxy } from '../../src/lab/node-proxy.ts';
import { managedProcess, waitUntil, type ManagedProcess } from '../../src/lab/processes.ts';
import { run } from '../../src/lab/python.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { hostileScene, type Scene } from '../helpers/hostile-scene.ts';

const id = 'evidence';
const logLine = 'cordon worker is ready';
let scene: Scene;
let server: TemporalServer;
let proxy: NodeProxy;
let connection: Connection;
let client: Client;
let worker: ManagedProcess;
/** The evidence folder, on a disk of its own that only the worker's mount namespace sees. */
let disk: string;

beforeAll(async () => {
  scene = await hostileScene('faults-evidence', 5);
  server = await startTemporal({ dir: join(scene.dir, 'temporal') });
  proxy = await startNodeProxy({ target: scene.ours.url });
  connection = await Connection.connect({ address: server.address });
  client = new Client({ connection });
  worker = workerWithDisk();
  await worker.start();
  disk = `/proc/${worker.pid}/root${scene.deps.evidenceDir}`;
});
afterAll(async () => {
  await worker?.stop();
  await connection?.close();
  await server?.stop();
  await proxy?.stop();
  await scene?.stop();
});

/** The built worker, with 16 MB for its evidence. */
function workerWithDisk(): ManagedProcess {
  const { ours, deps, dir } = scene;
  mkdirSync(deps.evidenceDir, { recursive: true });
  const logFile = join(dir, 'worker.log');
  return managedProcess({
    name: 'cordon worker',
    command: 'unshare',
    args: [
      '-Urm',
      'sh',
      '-ec',
      'mount -t tmpfs -o size=16m tmpfs "$1"; exec "$2" "$3" worker',
      'sh',
      deps.evidenceDir,
      process.execPath,
      join(repoRoot, 'bin', 'cordon.js'),
    ],
    cwd: dir,
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: dir,
      TEMPORAL_ADDRESS: server.address,
      STIGMEM_URL: proxy.url,
      STIGMEM_ADMIN_KEY: ours.adminKey,
      CORDON_EVIDENCE_DIR: deps.evidenceDir,
      CORDON_PEER_ALLOW: 'loopback',
      CORDON_WRITES_PER_HOUR: '1000000',
    },
    logFile,
    ready: async () => readFileSync(logFile, 'utf8').includes(logLine),
  });
}

const ballast = () => join(disk, '.ballast');

/** Writes until nothing more fits. */
function fill(): void {
  const chunk = Buffer.alloc(65_536, 1);
  for (const size of [65_536, 4_096]) {
    try {
      for (;;) writeFileSync(ballast(), chunk.subarray(0, size), { flag: 'a' });
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
    }
  }
}
const empty = (): void => rmSync(ballast());
const mountAgain = (how: 'ro' | 'rw') =>
  run(
    'nsenter',
    ['-t', String(worker.pid), '-U', '-m', '--preserve-credentials', 'mount', '-o', `remount,${how}`, scene.deps.evidenceDir],
    {
      env: { PATH: process.env['PATH'] ?? '' },
    },
  );

const handle = () => client.workflow.getHandle<typeof PeerCompromise>(id);
const status = (): Promise<Status> => client.withDeadline(Date.now() + 30_000, () => handle().query(statusQuery));

function until(what: string, fits: (now: Status) => boolean): Promise<Status> {
  const look = async (): Promise<Status | undefined> => {
    const now = await status();
    return fits(now) ? now : undefined;
  };
  return waitUntil(what, look, { timeoutMs: 180_000, everyMs: 250 });
}

const stepWaits = (now: Status, step: string) =>
  now.waitingFor.flatMap((one) => (one.kind === 'step' && one.step === step ? [one] : []))[0];
async function parks(step: string, why: RegExp) {
  const fits = (now: Status) => why.test(stepWaits(now, step)?.why ?? '');
  const now = await until(`${step} to park with ${String(why)}`, fits);
  return { now, ...stepWaits(now, step) };
}
async function gate(name: string): Promise<string> {
  const of = ({ waitingFor }: Status) => waitingFor.flatMap((one) => (one.kind === 'gate' && one.gate === name ? [one.digest] : []))[0];
  return of(await until(`gate ${name}`, (now) => of(now) !== undefined)) ?? '';
}
const approve = async (name: string) =>
  handle().executeUpdate(decideUpdate, { args: [{ gate: name, decision: 'approve', digest: await gate(name), by: 'bob' }] });

const retractions = async () => {
  const rows = await scene.ours.sql(
    'SELECT entity, relation, scope, count(*) AS n FROM facts WHERE confidence = 0 AND received_from IS NULL GROUP BY entity, relation, scope',
  );
  return rows.map(({ n }) => Number(n));
};
const policyEvents = async () => (await scene.ours.sql("SELECT id FROM federation_audit WHERE event_type = 'peer_policy_updated'")).length;
const writesSeen = () => proxy.log.filter(({ method, path }) => method !== 'GET' && !/recall|lint/.test(path)).length;

const folder = () => join(disk, incidentFolderName(id));
/** Something is being sealed there still, a notice or the run's history: a line that is being written is none yet. */
const verified = () =>
  waitUntil('the folder to verify', async () => {
    const now = await verifyFolder(folder());
    if (!now.ok) throw new Error(JSON.stringify(now.firstProblem));
    return now;
  });
const full = /no space left; free space or grow the disk/;
const readOnly = /not writable by this process/;

test('a disk that is full before anything is changed: nothing is changed, status says why, and it goes on by itself', async () => {
  // The node is being read for the first time: what was read can't be sealed.
  proxy.onRequest = ({ path }) => {
    if (!path.startsWith('/v1/federation/audit')) return undefined;
    proxy.onRequest = undefined;
    fill();
    return undefined;
  };
  await client.workflow.start(workflowType, { taskQueue: 'stigmem-runbooks', workflowId: id, args: [{ peer: scene.peer.nodeId }] });
  const { why, how } = await parks('fenceInbound', full);
  expect(why).toContain(scene.deps.evidenceDir);
  expect(how).toMatch(/Nothing is changed without evidence\. Make room .* tries again by itself .* cordon retry\|done\|skip/);
  for (const step of ['captureLocal', 'fenceOutbound', 'revokeTokens']) await parks(step, full);
  expect(await policyEvents()).toBe(0);
  expect(writesSeen()).toBe(0);
  empty();
  await gate('retract');
  expect(await policyEvents()).toBe(2);
  await verified();
});

test('a folder that became read-only: the plan is not acted on; `retry` goes on once it is writable', async () => {
  await mountAgain('ro');
  const before = writesSeen();
  await approve('retract');
  const { now, why } = await parks('assess', readOnly);
  expect(why).toContain(scene.deps.evidenceDir);
  expect(writesSeen()).toBe(before);
  expect(await retractions()).toEqual([]);
  await mountAgain('rw');

  // And full again in the middle of the retractions: each is made once all the same.
  proxy.onRequest = ({ method, path }) => {
    if (method !== 'POST' || path !== '/v1/facts') return undefined;
    proxy.onRequest = undefined;
    fill();
    return undefined;
  };
  await handle().signal('retry', { step: 'assess', run: now.run, by: 'carol', note: '' });
  await waitUntil('the retractions', async () => (await retractions()).length > 0 && stillFull(), { timeoutMs: 120_000 });
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  empty();
  const done = await until('rotate', ({ phase }) => phase === 'rotate');
  expect(done.steps.find(({ name }) => name === 'undoFacts')).toMatchObject({ outcome: 'verified' });
  const counts = await retractions();
  expect(counts.length).toBeGreaterThan(3);
  expect(new Set(counts)).toEqual(new Set([1]));
});

const stillFull = (): boolean => statSync(ballast(), { throwIfNoEntry: false }) !== undefined;

test('an object and an index that were cut short: named, kept, never overwritten; the incident says it and goes on', async () => {
  const index = join(folder(), 'index.jsonl');
  const lines = readFileSync(index, 'utf8').trimEnd().split('\n');
  const originals = lines.map((line) => EvidenceEntry.parse(JSON.parse(line))).find(({ kind }) => kind === 'originalFences');
  const object = join(folder(), 'objects', originals?.sha256.slice(0, 2) ?? '', originals?.sha256 ?? '');
  const copy = join(scene.dir, 'object.copy');
  copyFileSync(object, copy);
  truncateSync(object, 40);
  // The last entry that the workflow was told of, and what came after it, from the middle on.
  const { evidence } = await status();
  const told = lines.findIndex((line) => line.includes(evidence.head.replace('sha256:', '')));
  expect(told).toBeGreaterThan(0);
  const kept = `${lines.slice(0, told).join('\n')}\n`;
  truncateSync(index, Buffer.byteLength(kept) + Math.floor((lines[told] ?? '').length / 2));
  const cut = readFileSync(index);
  expect((await verifyFolder(folder())).firstProblem?.what).toMatch(/.+/);

  // The originals are needed to lift the fences: without them it parks, and guesses nothing.
  const { run: runId } = await status();
  await handle().signal('close', { outcome: 'dismissed', run: runId, by: 'alice', reason: 'a false alarm' });
  await approve('restore');
  const { why, now } = await parks('liftFences', /does not match its name/);
  expect(why).toContain(originals?.sha256);
  expect(why).toContain('restore the true one from a copy');
  expect(await policyEvents()).toBe(2);
  expect(statSync(object).size).toBe(40);
  copyFileSync(copy, object);
  await handle().signal('retry', { step: 'liftFences', run: now.run, by: 'carol', note: '' });

  const result = await handle().result();
  expect(result.outcome).toBe('dismissed');
  expect(await policyEvents()).toBe(3);
  // What was left of the line lies beside, sealed, and the loss is said.
  expect(readdirSync(folder())).toContain('index.torn-1');
  expect(cut.toString('utf8').endsWith(readFileSync(join(folder(), 'index.torn-1'), 'utf8'))).toBe(true);
  const closed = await status();
  expect(closed.warnings.join()).toMatch(/Evidence was lost: the entry sha256:[0-9a-f]{64} .* is not in .*index\.jsonl any more/);
  expect(result.residual).toContainEqual(expect.objectContaining({ what: 'evidence that was lost' }));
  const { warnings } = await verified();
  expect(warnings.join()).toContain('index.torn-1: a write was cut short');
  expect(readFileSync(join(scene.dir, 'worker.log'), 'utf8')).not.toContain(scene.ours.adminKey);
});
