import { Client, Connection } from '@temporalio/client';
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { managedProcess, waitUntil, type ManagedProcess } from '../../src/lab/processes.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { openDoor, openReceiver, type Door, type Receiver } from './doors.ts';
import { copyDatabase, writeContacts, type Template } from './scene.ts';

/** One death of a worker, and the birth of the next. Milliseconds since 1970. */
export interface Restart {
  readonly killedAt: number;
  readonly readyAt: number;
  readonly deadPid: number;
  /** Of the new worker. */
  readonly pid: number;
  readonly by: 'SIGKILL' | 'SIGTERM';
}

/** A moment the worker noted: see kill-hook.mjs. */
export interface Moment {
  readonly at: number;
  readonly pid: number;
  readonly point: string;
  readonly fatal: boolean;
  readonly id?: string;
  readonly attempt?: number;
  readonly run?: string;
}

/** A worker of the built code that is started again whenever it is gone. */
export interface Crew {
  readonly restarts: Restart[];
  readonly pid: number | undefined;
  /** SIGKILL, and up again; `down` runs while nobody is there. */
  kill(down?: () => Promise<unknown>): Promise<Restart>;
  /** SIGTERM, and up again. */
  term(down?: () => Promise<unknown>): Promise<Restart>;
  /** Resolves when it is up; a death by its own hand is noticed within milliseconds. */
  settled(): Promise<void>;
  /** For good. */
  stop(): Promise<void>;
}

/** One set of processes that runs incidents one after the other. */
export interface Lane {
  readonly dir: string;
  readonly node: StigmemNode;
  readonly server: TemporalServer;
  readonly client: Client;
  readonly door: Door;
  readonly receiver: Receiver;
  readonly crew: Crew;
  /** All there are. */
  readonly crews: readonly Crew[];
  readonly evidenceDir: string;
  readonly templateDb: string;
  readonly template: Template;
  /** A second worker on the same queue. */
  second(): Promise<Crew>;
  /** The next run begins: the node as it was after the attack, nothing delivered, its points armed. */
  reset(of: { readonly id: string; readonly points?: readonly string[]; readonly policy?: object }): Promise<void>;
  /** What the workers noted since. */
  moments(): Moment[];
  stop(): Promise<void>;
}

const readyWord = 'cordon worker is ready';

/** Starts all of it from the template. Ready when the node, the server and one worker are. */
export async function openLane(dir: string, template: Template): Promise<Lane> {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(join(dir, 'journals'), { recursive: true });
  cpSync(template.ours, join(dir, 'ours'), { recursive: true });
  const [node, server, door, receiver] = await Promise.all([
    // Everything has arrived: the node has nothing to pull any more.
    startStigmemNode({ name: 'ours', dir: join(dir, 'ours'), quarantineGarden: true, pullIntervalS: 86_400 }),
    startTemporal({ dir: join(dir, 'temporal') }),
    openDoor(),
    openReceiver(),
  ]);
  door.target = node.url;
  const templateDb = join(dir, 'template.db');
  await copyDatabase(node.dbPath, templateDb);
  const agentKey = await node.issueKey({ entityUri: 'stigmem://ours.test/agent/reader', permissions: ['read'] });
  await copyDatabase(node.dbPath, templateDb);
  const connection = await Connection.connect({ address: server.address });
  const client = new Client({ connection });
  const [contacts, policy, arm, evidenceDir] = ['contacts.json', 'policy.json', 'arm.json', 'evidence'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
    string,
  ];
  writeContacts(contacts, template);
  const env = {
    PATH: process.env['PATH'] ?? '',
    HOME: dir,
    TEMPORAL_ADDRESS: server.address,
    STIGMEM_URL: door.url,
    STIGMEM_ADMIN_KEY: node.adminKey,
    CORDON_AGENT_KEY: agentKey,
    CORDON_EVIDENCE_DIR: evidenceDir,
    CORDON_PEER_ALLOW: 'loopback',
    CORDON_WRITES_PER_HOUR: '1000000',
    CORDON_CONTACTS_FILE: contacts,
    CORDON_POLICY_FILE: policy,
    CORDON_WEBHOOK_URL: receiver.url,
    CRASH_ARM: arm,
  };
  let runs = 0;
  let journal = '';
  const reset: Lane['reset'] = async (of) => {
    runs += 1;
    journal = join(dir, 'journals', `${runs}.jsonl`);
    writeFileSync(journal, '');
    const points = (of.points ?? []).map((point, n) => ({ point, fuse: join(dir, 'journals', `${runs}-${n}.fuse`) }));
    for (const { fuse } of points) writeFileSync(fuse, '');
    writeFileSync(policy, JSON.stringify(of.policy ?? {}));
    rmSync(join(dir, 'kept'), { recursive: true, force: true });
    if (existsSync(evidenceDir)) renameSync(evidenceDir, join(dir, 'kept'));
    receiver.deliveries.length = 0;
    door.keeper = {};
    // A node that died in the last run may be on its way up.
    await node.start();
    await copyDatabase(templateDb, node.dbPath);
    // Whole or not at all: a worker may read it at any time.
    writeFileSync(`${arm}.new`, JSON.stringify({ run: of.id, points, journal }));
    renameSync(`${arm}.new`, arm);
  };
  await reset({ id: 'none' });
  const crew = crewOf(worker('worker', dir, env));
  const crews = [crew];
  await crew.settled();
  return {
    dir,
    node,
    server,
    client,
    door,
    receiver,
    crew,
    crews,
    evidenceDir,
    templateDb,
    template,
    async second() {
      const second = crewOf(worker('second', dir, env));
      crews.push(second);
      await second.settled();
      return second;
    },
    reset,
    moments: () => lines(journal).map((line) => JSON.parse(line) as Moment),
    async stop() {
      await Promise.allSettled(crews.map((each) => each.stop()));
      await connection.close();
      await Promise.allSettled([node.stop(), server.stop(), door.stop(), receiver.stop()]);
    },
  };
}

interface Worker {
  readonly child: ManagedProcess;
  readonly logFile: string;
}

/** `cordon worker` as it is built, with the hook preloaded. */
function worker(name: string, dir: string, env: Readonly<Record<string, string>>): Worker {
  const logFile = join(dir, `${name}.log`);
  let before = 0;
  const child = managedProcess({
    name: `cordon ${name}`,
    command: process.execPath,
    args: ['--import', join(repoRoot, 'test', 'crash', 'kill-hook.mjs'), join(repoRoot, 'bin', 'cordon.js'), 'worker'],
    cwd: dir,
    env,
    logFile,
    ready: async () => readies(logFile).length > before,
  });
  return {
    logFile,
    child: {
      ...child,
      get running() {
        return child.running;
      },
      get pid() {
        return child.pid;
      },
      start: () => {
        before = readies(logFile).length;
        return child.start();
      },
    },
  };
}

/** The times at which the worker said that it was ready. */
function readies(logFile: string): number[] {
  return lines(logFile)
    .filter((line) => line.includes(readyWord))
    .map((line) => Date.parse((JSON.parse(line) as { time: string }).time));
}

function lines(file: string): string[] {
  return existsSync(file)
    ? readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
    : [];
}

function crewOf({ child, logFile }: Worker): Crew {
  const restarts: Restart[] = [];
  let wanted = true;
  let handling: Promise<Restart> | undefined;
  let lastPid = 0;
  const up = async (killedAt: number, by: Restart['by'], down?: () => Promise<unknown>): Promise<Restart> => {
    await down?.();
    await child.start();
    const restart = { killedAt, readyAt: readies(logFile).at(-1) ?? Date.now(), deadPid: lastPid, pid: child.pid ?? 0, by };
    lastPid = restart.pid;
    restarts.push(restart);
    return restart;
  };
  const handle = (work: () => Promise<Restart>): Promise<Restart> => {
    handling ??= work().finally(() => (handling = undefined));
    return handling;
  };
  const watch = async (): Promise<void> => {
    await child.start();
    lastPid = child.pid ?? 0;
    while (wanted) {
      await child.exited();
      // Whoever ends it on purpose brings it up again; if nobody did, it died by its own hand.
      if (wanted) await (handling ?? handle(() => up(Date.now(), 'SIGKILL')));
    }
  };
  const watching = watch();
  watching.catch(() => undefined);
  return {
    restarts,
    get pid() {
      return child.pid;
    },
    kill: (down) =>
      handle(async () => {
        const killedAt = Date.now();
        await child.kill();
        return up(killedAt, 'SIGKILL', down);
      }),
    term: (down) =>
      handle(async () => {
        const killedAt = Date.now();
        await child.stop(20_000);
        return up(killedAt, 'SIGTERM', down);
      }),
    settled: () =>
      Promise.race([
        watching,
        waitUntil('the worker to be up', async () => child.running && handling === undefined && lastPid === child.pid),
      ]).then(() => undefined),
    async stop() {
      wanted = false;
      await handling?.catch(() => undefined);
      await child.stop();
    },
  };
}
