import { Client, Connection } from '@temporalio/client';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { statusQuery } from '../../src/contract/messages.ts';
import { workflowType } from '../../src/contract/names.ts';
import type { Status } from '../../src/contract/schemas.ts';
import { startNodeProxy } from '../../src/lab/node-proxy.ts';
import { managedProcess, waitUntil, type ManagedProcess } from '../../src/lab/processes.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { freePort, repoRoot } from '../../src/lab/tools.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { hostileScene, type Scene } from './hostile-scene.ts';
import { scrape, startReceiver, type Receiver, type Scrape } from './receivers.ts';

/** What was seen from outside of one incident on real parts, from its start to its close. */
export interface Observed {
  readonly incident: string;
  readonly firstRun: string;
  readonly scene: Scene;
  readonly server: TemporalServer;
  readonly worker: ManagedProcess;
  readonly collector: Receiver;
  readonly webhook: Receiver;
  /** What must not be seen: all of it was used. */
  readonly canaries: readonly string[];
  readonly healthUrl: string;
  /** While gate `retract` waited, and after the incident had closed. */
  readonly atGate: Scrape;
  readonly atEnd: Scrape;
  /** The worker's lines, as they are. */
  rawLines(): string[];
  stop(): Promise<void>;
}

const incident = 'observed';
const webhookPath = '/hook/T0CANARY0WEBHOOK';

export async function observeIncident(): Promise<Observed> {
  const scene = await hostileScene('observe', 20);
  const [server, collector, webhook] = await Promise.all([
    startTemporal({ dir: join(scene.dir, 'temporal') }),
    startReceiver(),
    startReceiver(),
  ]);
  const agentKey = await scene.ours.issueKey({ entityUri: 'stigmem://ours.test/agent/canary', permissions: ['read'] });
  const proxy = await startNodeProxy({ target: scene.ours.url });
  const connection = await Connection.connect({ address: server.address });
  const client = new Client({ connection });
  const [metricsPort, healthPort] = [await freePort(), await freePort()];
  const metricsUrl = `http://127.0.0.1:${metricsPort}/metrics`;
  const keyFile = join(scene.dir, 'agent-key');
  writeFileSync(keyFile, `${agentKey}\n`);
  const logFile = join(scene.dir, 'worker.log');
  const rawLines = () => readFileSync(logFile, 'utf8').trimEnd().split('\n');
  const worker = managedProcess({
    name: 'cordon worker',
    command: process.execPath,
    args: [join(repoRoot, 'bin', 'cordon.js'), 'worker'],
    cwd: scene.dir,
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: scene.dir,
      TEMPORAL_ADDRESS: server.address,
      STIGMEM_URL: proxy.url,
      STIGMEM_ADMIN_KEY: scene.ours.adminKey,
      CORDON_AGENT_KEY_FILE: keyFile,
      CORDON_EVIDENCE_DIR: scene.deps.evidenceDir,
      CORDON_PEER_ALLOW: 'loopback',
      CORDON_WRITES_PER_HOUR: '1000000',
      CORDON_WEBHOOK_URL: `${webhook.url}${webhookPath}`,
      CORDON_LOG_LEVEL: 'debug',
      CORDON_METRICS_LISTEN: `127.0.0.1:${metricsPort}`,
      CORDON_HEALTH_LISTEN: `localhost:${healthPort}`,
      CORDON_OTLP_URL: collector.url,
    },
    logFile,
    ready: async () => rawLines().some((line) => line.includes('cordon worker is ready')),
  });
  await worker.start();

  // One answer of the node fails, so that one activity is tried again.
  let failed = false;
  proxy.onRequest = ({ method, path }) => {
    if (failed || method !== 'PATCH' || !path.startsWith('/v1/federation/peers/')) return undefined;
    failed = true;
    return { kind: 'answer', status: 503, body: 'busy' };
  };
  const handle = client.workflow.getHandle<typeof PeerCompromise>(incident);
  const until = (what: string, fits: (status: Status) => boolean): Promise<Status> => {
    const look = async (): Promise<Status | undefined> => {
      const now = await client.withDeadline(Date.now() + 5_000, () => handle.query(statusQuery));
      return fits(now) ? now : undefined;
    };
    return waitUntil(what, look, { timeoutMs: 240_000, everyMs: 250 });
  };
  const digestAt = async (gate: string): Promise<string> => {
    const of = ({ waitingFor }: Status) => waitingFor.flatMap((w) => (w.kind === 'gate' && w.gate === gate ? [w.digest] : []))[0];
    return of(await until(`gate ${gate}`, (now) => of(now) !== undefined)) ?? '';
  };
  const scrapeWhen = (what: string, fits: (now: Scrape) => boolean): Promise<Scrape> => {
    const look = async (): Promise<Scrape | undefined> => {
      const now = await scrape(metricsUrl);
      return fits(now) ? now : undefined;
    };
    return waitUntil(what, look, { timeoutMs: 60_000, everyMs: 500 });
  };

  const { firstExecutionRunId: firstRun } = await client.workflow.start(workflowType, {
    taskQueue: 'stigmem-runbooks',
    workflowId: incident,
    args: [{ peer: scene.peer.nodeId, alerts: [{ name: 'peer_replay_burst' }] }],
  });
  // A workflow the worker does not have: its tasks fail, and that has to be seen.
  const unknown = await client.workflow.start('NoSuchWorkflow', { taskQueue: 'stigmem-runbooks', workflowId: 'unknown', args: [] });
  const digest = await digestAt('retract');
  for (let i = 0; i < 3; i += 1) await handle.signal('approve', { gate: 'retract' });
  await handle.signal('approve', { gate: 'retract', digest: `sha256:${'0'.repeat(64)}`, by: 'mallory' });
  const atGate = await scrapeWhen('the gauges to show the gate', (now) => {
    const isSeen = now.sum('cordon_gates_waiting', { gate: 'retract' }) === 1 && now.sum('cordon_messages_refused_total') === 4;
    return isSeen && now.sum('cordon_gate_oldest_wait_seconds', { gate: 'retract' }) > 0;
  });
  await handle.signal('approve', { gate: 'retract', digest, by: 'bob' });
  const { run } = await until('rotate', ({ phase }) => phase === 'rotate');
  await handle.signal('close', { outcome: 'expelled', run, by: 'alice', reason: 'it turned' });
  await handle.signal('approve', { gate: 'close', digest: await digestAt('close'), by: 'bob' });
  await handle.result();
  const atEnd = await scrapeWhen('the gauges to forget the closed incident', (now) => now.sum('cordon_incidents') === 0);
  await unknown.terminate();
  return {
    incident,
    firstRun,
    scene,
    server,
    worker,
    collector,
    webhook,
    canaries: [scene.ours.adminKey, agentKey, webhookPath],
    healthUrl: `http://127.0.0.1:${healthPort}/healthz`,
    atGate,
    atEnd,
    rawLines,
    async stop() {
      await worker.stop();
      await connection.close();
      await server.stop();
      await Promise.all([proxy.stop(), collector.stop(), webhook.stop()]);
      await scene.stop();
    },
  };
}
