import { Client, Connection } from '@temporalio/client';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { federate } from '../../src/lab/federation.ts';
import { managedProcess, type ManagedProcess } from '../../src/lab/processes.ts';
import { run } from '../../src/lab/python.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { repoRoot, stigmemBin, stigmemPython } from '../../src/lab/tools.ts';

/** A peer of our node, as an incident is started for it. */
export interface BenchPeer {
  readonly peerId: string;
  readonly nodeId: string;
  readonly url: string;
}

/** Facts that a peer delivered; `perEntity` of them share an entity, none a triple. */
export interface Delivered {
  readonly peer: BenchPeer;
  readonly label: string;
  readonly facts: number;
  readonly perEntity: number;
}

/** A real node of ours with peers, a Temporal server on a file, and nothing else on the machine's mind. */
export interface BenchLab {
  readonly dir: string;
  readonly ours: StigmemNode;
  readonly agentKey: string;
  readonly temporal: TemporalServer;
  readonly client: Client;
  /** The first is a real node that answers; the others are names only, at a port where nobody listens. */
  readonly peers: readonly BenchPeer[];
  /** Stops our node, lets its own ingest take the facts in, starts it again. */
  deliver(groups: readonly Delivered[]): Promise<void>;
  /** `cordon worker`, as it is shipped, in a process of its own. */
  worker(options?: WorkerOptions): ManagedProcess;
  /** `cordon host-worker`, as it is shipped, with the node's own environment. */
  hostWorker(): ManagedProcess;
  stop(): Promise<void>;
}

export interface WorkerOptions {
  readonly name?: string;
  /** Where the worker finds the node. @default the node itself */
  readonly nodeUrl?: string;
  /** Flags for `node`, `--cpu-prof` for one. */
  readonly nodeFlags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

const seed = join(repoRoot, 'test', 'bench', 'seed_facts.py');

/** Starts all of it in `.test/bench/<name>`, fresh, with `count` peers beside the real one. */
export async function benchLab(name: string, count: number): Promise<BenchLab> {
  const dir = join(repoRoot, '.test', 'bench', name);
  rmSync(dir, { recursive: true, force: true });
  const [ours, peerNode, temporal] = await Promise.all([
    // Pulls are noise here: what the peers delivered is put in by hand.
    startStigmemNode({ name: 'ours', dir: join(dir, 'ours'), quarantineGarden: true, pullIntervalS: 3_600 }),
    startStigmemNode({ name: 'peer', dir: join(dir, 'peer'), pullIntervalS: 3_600 }),
    startTemporal({ dir: join(dir, 'temporal') }),
  ]);
  const { peerIdOnA } = await federate(ours, peerNode);
  const agentKey = await ours.issueKey({ entityUri: 'stigmem://ours.test/agent/reader', permissions: ['read', 'write'] });
  const real: BenchPeer = { peerId: peerIdOnA, nodeId: peerNode.nodeId, url: peerNode.url };
  const named = Array.from({ length: count }, (_, index): BenchPeer => {
    const id = `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`;
    return { peerId: id, nodeId: `stigmem:node:${id}`, url: `http://127.0.0.1:1/peer-${index}` };
  });
  const rows = named.map(({ peerId, nodeId, url }) => ({ id: peerId, node_id: nodeId, node_url: url }));
  const put = async (input: object): Promise<void> => {
    await ours.stop();
    await run(stigmemPython(), ['-B', seed], { env: ours.env, cwd: ours.dir, input: JSON.stringify(input) });
    await ours.start();
  };
  if (count > 0) await put({ groups: [], peers: { like: peerIdOnA, rows } });
  const connection = await Connection.connect({ address: temporal.address });
  const workers: ManagedProcess[] = [];
  return {
    dir,
    ours,
    agentKey,
    temporal,
    client: new Client({ connection }),
    peers: [real, ...named],
    deliver: (groups) =>
      put({
        groups: groups.map(({ peer, label, facts, perEntity }) => ({
          sender: peer.nodeId,
          entity_uri: `stigmem://${label}.test`,
          label,
          facts,
          per_entity: perEntity,
        })),
      }),
    worker: (options = {}) => {
      const made = builtWorker({ dir, ours, agentKey, temporal }, options);
      workers.push(made);
      return made;
    },
    hostWorker: () => {
      const made = builtProcess('host-worker', 'host-worker', {
        dir,
        env: { ...ours.env, ...baseEnv(dir, temporal), CORDON_STIGMEM_BIN: stigmemBin(), CORDON_SNAPSHOT_DIR: join(dir, 'snapshots') },
      });
      workers.push(made);
      return made;
    },
    async stop() {
      await Promise.allSettled(workers.map((worker) => worker.stop(15_000)));
      await connection.close();
      await Promise.allSettled([ours.stop(), peerNode.stop(), temporal.stop()]);
    },
  };
}

function builtWorker(lab: Pick<BenchLab, 'dir' | 'ours' | 'agentKey' | 'temporal'>, options: WorkerOptions): ManagedProcess {
  const { name = 'worker', nodeUrl = lab.ours.url, nodeFlags = [], env = {} } = options;
  return builtProcess(name, 'worker', {
    dir: lab.dir,
    nodeFlags,
    env: {
      ...baseEnv(lab.dir, lab.temporal),
      STIGMEM_URL: nodeUrl,
      STIGMEM_ADMIN_KEY: lab.ours.adminKey,
      CORDON_AGENT_KEY: lab.agentKey,
      CORDON_PEER_ALLOW: 'loopback',
      CORDON_WRITES_PER_HOUR: '1000000',
      ...env,
    },
  });
}

function baseEnv(dir: string, temporal: TemporalServer): Record<string, string> {
  return {
    PATH: process.env['PATH'] ?? '',
    HOME: dir,
    TEMPORAL_ADDRESS: temporal.address,
    CORDON_EVIDENCE_DIR: join(dir, 'evidence'),
  };
}

function builtProcess(
  name: string,
  command: 'worker' | 'host-worker',
  { dir, env, nodeFlags = [] }: { dir: string; env: Readonly<Record<string, string>>; nodeFlags?: readonly string[] },
): ManagedProcess {
  const logFile = join(dir, `${name}.log`);
  rmSync(logFile, { force: true });
  return managedProcess({
    name: `cordon ${name}`,
    command: process.execPath,
    args: [...nodeFlags, join(repoRoot, 'bin', 'cordon.js'), command],
    cwd: dir,
    env,
    logFile,
    ready: async () => readFileSync(logFile, 'utf8').includes('worker is ready'),
  });
}
