import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { managedProcess } from './processes.ts';
import { freePort, postgresBin } from './tools.ts';

/** A real PostgreSQL server on loopback, in a folder of its own. */
export interface PostgresServer {
  /** What STIGMEM_PG_DSN and the host worker take. */
  dsn(database: string): string;
  create(database: string): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

const user = 'cordon';

/** PostgreSQL runs for nobody who is root: in a namespace of its own it is not. */
function unprivileged(command: string, args: readonly string[]): { command: string; args: string[] } {
  if (process.getuid?.() !== 0) return { command, args: [...args] };
  return { command: 'unshare', args: ['--user', '--map-user=65534', '--map-group=65534', '--', command, ...args] };
}

/** Makes the database folder when there is none, and starts the server. Throws with the log's tail. */
export async function startPostgres(dir: string): Promise<PostgresServer> {
  const port = await freePort();
  const data = join(dir, 'data');
  const env = { PATH: process.env['PATH'] ?? '', LC_ALL: 'C.UTF-8' };
  mkdirSync(dir, { recursive: true });
  if (!existsSync(join(data, 'PG_VERSION'))) {
    rmSync(data, { recursive: true, force: true });
    const initdb = unprivileged(postgresBin('initdb'), ['-D', data, '-U', user, '--auth=trust', '--no-sync', '--encoding=UTF8']);
    execFileSync(initdb.command, initdb.args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  }
  const settings = [`port=${port}`, 'listen_addresses=127.0.0.1', 'unix_socket_directories=', 'fsync=off', 'max_connections=50'];
  const dsn = (database: string): string => `postgresql://${user}@127.0.0.1:${port}/${database}`;
  const asked = async (sql: string): Promise<void> => {
    const client = new pg.Client({ connectionString: dsn('postgres') });
    await client.connect();
    try {
      await client.query(sql);
    } finally {
      await client.end();
    }
  };
  const child = managedProcess({
    name: 'postgres',
    ...unprivileged(postgresBin('postgres'), ['-D', data, ...settings.flatMap((setting) => ['-c', setting])]),
    cwd: dir,
    env,
    logFile: join(dir, 'postgres.log'),
    ready: async () => {
      await asked('SELECT 1');
      return true;
    },
  });
  await child.start();
  return {
    dsn,
    create: (database) => asked(`CREATE DATABASE ${pg.escapeIdentifier(database)}`),
    start: () => child.start(),
    // SIGTERM waits for every client to go away.
    stop: () => child.stop(2_000),
    kill: () => child.kill(),
  };
}
