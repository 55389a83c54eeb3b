import { Client, Connection } from '@temporalio/client';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { planQuery, statusQuery } from '../../src/contract/messages.ts';
import { workflowType } from '../../src/contract/names.ts';
import type { Status } from '../../src/contract/schemas.ts';
import { verifyFolder } from '../../src/evidence/verify.ts';
import { incidentFolderName } from '../../src/evidence/names.ts';
import { managedProcess, waitUntil, type ManagedProcess } from '../../src/lab/processes.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { hostileScene, type Scene } from '../helpers/hostile-scene.ts';

const id = 'restart';
/** So many that the worker can be killed while it undoes them. */
const burstFacts = 150;
let scene: Scene;
let server: TemporalServer;
let connection: Connection;
let client: Client;
let worker: ManagedProcess;

beforeAll(async () => {
  scene = await hostileScene('restart', burstFacts);
  server = await startTemporal({ dir: join(scene.dir, 'temporal') });
  connection = await Connection.connect({ address: server.address });
  client = new Client({ connection });
  worker = builtWorker();
  await worker.start();
});
afterAll(async () => {
  await worker?.stop();
  await connection?.close();
  await server?.stop();
  await scene?.stop();
});

/** `cordon worker` as it is shipped, in a process that can be killed. */
function builtWorker(): ManagedProcess {
  const { ours, deps, dir } = scene;
  const logFile = join(dir, 'worker.log');
  const readies = (): number => {
    try {
      return readFileSync(logFile, 'utf8').split('cordon worker is ready').length - 1;
    } catch {
      return 0;
    }
  };
  const child = managedProcess({
    name: 'cordon worker',
    command: process.execPath,
    args: [join(repoRoot, 'bin', 'cordon.js'), 'worker'],
    cwd: dir,
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: dir,
      TEMPORAL_ADDRESS: server.address,
      STIGMEM_URL: ours.url,
      STIGMEM_ADMIN_KEY: ours.adminKey,
      CORDON_EVIDENCE_DIR: deps.evidenceDir,
      CORDON_PEER_ALLOW: 'loopback',
      CORDON_CONCURRENCY: '1',
      CORDON_WRITES_PER_HOUR: '1000000',
    },
    logFile,
    ready: async () => readies() > before,
  });
  let before = 0;
  return {
    ...child,
    get running() {
      return child.running;
    },
    get pid() {
      return child.pid;
    },
    start: () => {
      before = readies();
      return child.start();
    },
  };
}

const handle = () => client.workflow.getHandle<typeof PeerCompromise>(id);

function until(what: string, fits: (status: Status) => boolean): Promise<Status> {
  const look = async (): Promise<Status | undefined> => {
    const now = await client.withDeadline(Date.now() + 5_000, () => handle().query(statusQuery));
    return fits(now) ? now : undefined;
  };
  return waitUntil(what, look, { timeoutMs: 90_000, everyMs: 250 });
}

async function gate(name: string) {
  const of = ({ waitingFor }: Status) =>
    waitingFor.flatMap((waiting) => (waiting.kind === 'gate' && waiting.gate === name ? [waiting] : []))[0];
  const open = of(await until(`gate ${name}`, (now) => of(now) !== undefined));
  if (!open) throw new Error('unreachable');
  return open;
}

/** Both die; the server comes back on its file. */
async function killWorkerAndServer(): Promise<void> {
  await Promise.all([worker.kill(), server.kill()]);
  await server.start();
  await waitUntil('the client to reach the server again', async () => (await handle().describe()).status.name === 'RUNNING');
}

const triple = (of: Readonly<Record<'entity' | 'relation' | 'scope', unknown>>): string =>
  JSON.stringify([of.entity, of.relation, of.scope]);

/** How often our node took back what stands on each triple. */
async function retractions(): Promise<Map<string, number>> {
  const rows = await scene.ours.sql(
    'SELECT entity, relation, scope, COUNT(*) AS n FROM facts WHERE confidence = 0 AND received_from IS NULL GROUP BY entity, relation, scope',
  );
  return new Map(rows.map(({ entity, relation, scope, n }) => [triple({ entity, relation, scope }), Number(n)]));
}

const sum = (counts: ReadonlyMap<string, number>): number => [...counts.values()].reduce((total, count) => total + count, 0);

test('killed at each gate and in the middle of the retractions, with the server killed beside it: same outcome, each effect once, no decision lost', async () => {
  await client.workflow.start(workflowType, {
    taskQueue: 'stigmem-runbooks',
    workflowId: id,
    args: [{ peer: scene.peer.nodeId, alerts: [{ name: 'peer_replay_burst' }] }],
  });

  const first = await gate('retract');
  const fencedBefore = await scene.ours.sql('SELECT id, ingest_tenant, pull_tenant FROM peers ORDER BY id');
  const { items = [] } = await handle().query(planQuery, { gate: 'retract' });
  // One retraction takes back all that stands on its triple.
  const toRetract = new Set(items.filter(({ action }) => action === 'retract').map(triple));
  expect(toRetract.size).toBeGreaterThanOrEqual(burstFacts);
  expect(sum(await retractions())).toBe(0);

  // At the retract gate. The approval comes while nobody is there to take it.
  await killWorkerAndServer();
  await handle().signal('approve', { gate: 'retract', digest: first.digest, by: 'bob' });
  await worker.start();

  // In the middle of the retractions.
  await waitUntil('the first retractions', async () => sum(await retractions()) >= 3, { timeoutMs: 60_000, everyMs: 1 });
  await worker.kill();
  expect(sum(await retractions())).toBeLessThan(toRetract.size);
  await worker.start();
  const { run } = await until('rotate', ({ phase }) => phase === 'rotate');

  // At the close gate.
  await handle().signal('close', { outcome: 'expelled', run, by: 'alice', reason: 'it turned' });
  const { digest } = await gate('close');
  await killWorkerAndServer();
  await handle().signal('approve', { gate: 'close', digest, by: 'bob' });
  await worker.start();
  const result = await waitUntil('the result', () => handle().result(), { timeoutMs: 60_000 });
  expect(result.outcome).toBe('expelled');

  expect(await retractions()).toEqual(new Map([...toRetract].map((each) => [each, 1])));
  expect(await scene.ours.sql('SELECT id, ingest_tenant, pull_tenant FROM peers ORDER BY id')).toEqual(fencedBefore);
  // One write for each side of the fence.
  expect(await scene.ours.sql("SELECT id FROM federation_audit WHERE event_type = 'peer_policy_updated'")).toHaveLength(2);

  const now = await until('closed', ({ state }) => state === 'closed');
  expect(now.refused).toEqual({ count: 0, last: [] });
  const { ok, firstProblem } = await verifyFolder(join(scene.deps.evidenceDir, incidentFolderName(id)));
  expect(firstProblem ?? null).toBeNull();
  expect(ok).toBe(true);
});
