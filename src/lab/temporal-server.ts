import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { httpAnswers, managedProcess, tcpAnswers } from './processes.ts';
import { freePort, temporalBin } from './tools.ts';
import { run } from './python.ts';

/** Registered when the server starts, all of type Keyword. */
export const SEARCH_ATTRIBUTES = ['CordonPeer', 'CordonPhase', 'CordonMode', 'CordonWaitingFor', 'CordonOutcome'] as const;

/** A worker that stops is given what was being handed to it: deploy/temporal-dynamic-config.yaml says why. */
const drainPolls = 'frontend.enableCancelWorkerPollsOnShutdown=true';

/** Options of {@link startTemporal}. */
export interface TemporalOptions {
  /** Holds `temporal.db` and `temporal.log`; made when missing. An existing file is taken up again. */
  readonly dir: string;
  readonly port?: number;
  readonly uiPort?: number;
  /** More `--dynamic-config-value` entries, `KEY=JSON`. */
  readonly dynamicConfig?: readonly string[];
  /** Keeps nothing on disk: what it is told is gone when it stops. */
  readonly inMemory?: boolean;
}

/** A Temporal dev server with its Web UI, on loopback and on a file database. */
export interface TemporalServer {
  /** `127.0.0.1:<port>`, as a client connection takes it. */
  readonly address: string;
  readonly port: number;
  /** Web UI, without a slash at the end. */
  readonly uiUrl: string;
  readonly dbPath: string;
  readonly pid: number | undefined;
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Again on the same file and ports. */
  start(): Promise<void>;
}

/** Starts the server and waits until its namespace and its Web UI answer. Throws with the log's tail. */
export async function startTemporal(options: TemporalOptions): Promise<TemporalServer> {
  const port = options.port ?? (await freePort());
  const uiPort = options.uiPort ?? (await freePort());
  const bin = temporalBin();
  const address = `127.0.0.1:${port}`;
  const uiUrl = `http://127.0.0.1:${uiPort}`;
  mkdirSync(options.dir, { recursive: true });
  const dbPath = join(options.dir, 'temporal.db');
  const env = { PATH: process.env['PATH'] ?? '', HOME: options.dir };
  const serving = async (): Promise<boolean> => {
    if (!(await tcpAnswers(port)) || !(await httpAnswers(uiUrl))) return false;
    const described = await run(bin, ['operator', 'search-attribute', 'list', '--address', address, '-o', 'json'], {
      env,
    });
    return SEARCH_ATTRIBUTES.every((name) => described.stdout.includes(name));
  };
  const child = managedProcess({
    name: 'temporal server',
    command: bin,
    args: [
      'server',
      'start-dev',
      '--ip=127.0.0.1',
      `--port=${port}`,
      '--ui-ip=127.0.0.1',
      `--ui-port=${uiPort}`,
      '--ui-disable-news-fetch',
      ...(options.inMemory ? [] : [`--db-filename=${dbPath}`]),
      '--log-level=warn',
      ...SEARCH_ATTRIBUTES.flatMap((name) => ['--search-attribute', `${name}=Keyword`]),
      ...[drainPolls, ...(options.dynamicConfig ?? [])].flatMap((entry) => ['--dynamic-config-value', entry]),
    ],
    cwd: options.dir,
    env,
    logFile: join(options.dir, 'temporal.log'),
    ready: serving,
  });
  await child.start();
  return {
    address,
    port,
    uiUrl,
    dbPath,
    get pid() {
      return child.pid;
    },
    stop: () => child.stop(),
    kill: () => child.kill(),
    start: () => child.start(),
  };
}
