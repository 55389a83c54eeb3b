import { Client, Connection, type WorkflowHandle } from '@temporalio/client';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { planQuery, statusQuery } from '../../src/contract/messages.ts';
import { workflowType } from '../../src/contract/names.ts';
import type { PlanAnswer, Status } from '../../src/contract/schemas.ts';
import { managedProcess, waitUntil, type ManagedProcess } from '../../src/lab/processes.ts';
import { startTemporal } from '../../src/lab/temporal-server.ts';
import { freePort, repoRoot, stigmemBin } from '../../src/lab/tools.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import type { StigmemNode } from '../../src/lab/stigmem-node.ts';
import { hostileScene, type Scene, type SceneOptions } from './hostile-scene.ts';

/** A worker and a host worker as they are run, beside a node whose peer has turned. */
export interface HostIncident extends Workers {
  readonly scene: Scene;
}

/** A node of ours and a peer of it, with a folder for what is written. */
interface Stage {
  readonly dir: string;
  readonly evidenceDir: string;
  readonly ours: StigmemNode;
  readonly peerNodeId: string;
  stop(): Promise<void>;
}

/** The processes, and how an incident is started and led. */
export interface Workers {
  readonly worker: ManagedProcess;
  readonly hostWorker: ManagedProcess;
  readonly client: Client;
  start(id: string, payload?: object): Promise<WorkflowHandle<typeof PeerCompromise>>;
  until(incident: WorkflowHandle<typeof PeerCompromise>, what: string, fits: (now: Status) => boolean): Promise<Status>;
  plan(incident: WorkflowHandle<typeof PeerCompromise>): Promise<PlanAnswer>;
  /** Approves the opening that waits, or the next one; `more` goes into the decision. */
  approve(incident: WorkflowHandle<typeof PeerCompromise>, gate: string, more?: object): Promise<Status>;
  close(incident: WorkflowHandle<typeof PeerCompromise>, outcome: 'expelled' | 'dismissed'): Promise<Status>;
  /** What the host worker's health check answers. */
  health(): Promise<number>;
  logs(): string;
  stop(): Promise<void>;
}

type Env = Readonly<Record<string, string>>;

export async function hostIncident(
  name: string,
  { burstFacts = 20, env = {}, ...options }: SceneOptions & { burstFacts?: number; env?: Env } = {},
): Promise<HostIncident> {
  const scene = await hostileScene(name, burstFacts, options);
  const { dir, ours, peer, deps, stop } = scene;
  return { scene, ...(await workersOn({ dir, ours, evidenceDir: deps.evidenceDir, peerNodeId: peer.nodeId, stop }, { host: env })) };
}

/** Starts both workers, and a Temporal server for them. */
export async function workersOn(stage: Stage, env: { readonly host?: Env; readonly worker?: Env } = {}): Promise<Workers> {
  const server = await startTemporal({ dir: join(stage.dir, 'temporal'), inMemory: true });
  const connection = await Connection.connect({ address: server.address });
  const client = new Client({ connection });
  const common = {
    PATH: process.env['PATH'] ?? '',
    HOME: stage.dir,
    TEMPORAL_ADDRESS: server.address,
    CORDON_EVIDENCE_DIR: stage.evidenceDir,
  };
  const cordon = (command: string, more: Readonly<Record<string, string>>): ManagedProcess => {
    const logFile = join(stage.dir, `${command}.log`);
    // A process that is started again writes on in the same file.
    let lines = 0;
    return managedProcess({
      name: `cordon ${command}`,
      command: process.execPath,
      args: [join(repoRoot, 'bin', 'cordon.js'), command],
      cwd: stage.dir,
      env: { ...common, ...more },
      logFile,
      ready: async () => {
        const ready = readFileSync(logFile, 'utf8')
          .split('\n')
          .filter((line) => line.includes('worker is ready')).length;
        if (ready <= lines) return false;
        lines = ready;
        return true;
      },
    });
  };
  const worker = cordon('worker', {
    STIGMEM_URL: stage.ours.url,
    STIGMEM_ADMIN_KEY: stage.ours.adminKey,
    CORDON_AGENT_KEY: await stage.ours.issueKey({ entityUri: 'stigmem://ours.test/agent/asking', permissions: ['read'] }),
    CORDON_PEER_ALLOW: 'loopback',
    CORDON_WRITES_PER_HOUR: '1000000',
    ...env.worker,
  });
  const health = `127.0.0.1:${await freePort()}`;
  const hostWorker = cordon('host-worker', {
    CORDON_HEALTH_LISTEN: health,
    ...stage.ours.env,
    CORDON_STIGMEM_BIN: stigmemBin(),
    CORDON_SNAPSHOT_DIR: join(stage.dir, 'snapshots'),
    ...env.host,
  });
  await Promise.all([worker.start(), hostWorker.start()]);

  const statusOf = (incident: WorkflowHandle<typeof PeerCompromise>): Promise<Status> =>
    client.withDeadline(Date.now() + 5_000, () => incident.query(statusQuery));
  const until: Workers['until'] = async (incident, what, fits) => {
    let last: Status | undefined;
    try {
      return await waitUntil(
        what,
        async () => {
          last = await statusOf(incident);
          return fits(last) ? last : undefined;
        },
        { timeoutMs: 120_000, everyMs: 100 },
      );
    } catch (error) {
      throw new Error(`${what}: ${JSON.stringify(last, null, 1)}`, { cause: error });
    }
  };
  const digestOf = ({ waitingFor }: Status, gate: string): string | undefined =>
    waitingFor.flatMap((one) => (one.kind === 'gate' && one.gate === gate ? [one.digest] : []))[0];
  const approve: Workers['approve'] = async (incident, gate, more = {}) => {
    const now = await until(incident, `gate ${gate}`, (status) => digestOf(status, gate) !== undefined);
    await incident.signal('approve', { gate, digest: digestOf(now, gate), by: 'bob', ...more });
    return now;
  };
  return {
    client,
    health: async () => (await fetch(`http://${health}/healthz`)).status,
    worker,
    hostWorker,
    until,
    approve,
    start: (id, payload = {}) =>
      client.workflow.start<typeof PeerCompromise>(workflowType, {
        taskQueue: 'stigmem-runbooks',
        workflowId: id,
        args: [{ peer: stage.peerNodeId, ...payload }],
      }),
    plan: (incident) => client.withDeadline(Date.now() + 5_000, () => incident.query(planQuery, {})),
    close: async (incident, outcome) => {
      const { run } = await statusOf(incident);
      await incident.signal('close', { outcome, run, by: 'alice', reason: 'the test' });
      await approve(incident, outcome === 'expelled' ? 'close' : 'restore');
      await incident.result();
      return statusOf(incident);
    },
    logs: () => [worker, hostWorker].map(({ logFile }) => readFileSync(logFile, 'utf8')).join('\n'),
    async stop() {
      await Promise.all([worker.stop(), hostWorker.stop()]);
      await connection.close();
      await server.stop();
      await stage.stop();
    },
  };
}
