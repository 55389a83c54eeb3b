// Finds a Python, and the executables the operator already has.
import { spawnSync } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';
import { atLeast, fail, isExecutable, root } from './common.mjs';

const PYTHON_NEEDED = [3, 11];

export const tools = join(root, '.tools');
export const venv = join(tools, 'venv');
export const venvBin = join(venv, process.platform === 'win32' ? 'Scripts' : 'bin');

/** An executable the operator already has: environment variable first, then PATH (never our venv). */
export function own(variable, name) {
  const named = process.env[variable];
  if (named) {
    if (!isExecutable(named)) fail(`${variable} names ${named}, which is not an executable file; correct or unset it`);
    return named;
  }
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    if (!folder || resolve(folder) === venvBin) continue;
    const path = join(folder, name);
    if (isExecutable(path)) return path;
  }
  return undefined;
}

/**
 * An operator's own `stigmem`, if the Python beside it has the migrations (a wheel ships none).
 * Without them the one on PATH is passed over; one that was named is an error.
 */
export function ownStigmem() {
  const path = own('CORDON_STIGMEM_BIN', 'stigmem');
  if (!path) return undefined;
  const python = join(dirname(realpathSync(path)), 'python');
  const probe =
    'import importlib.util as u, pathlib, sys; s = u.find_spec("stigmem_node"); ' +
    'sys.exit(0 if s and (pathlib.Path(s.origin).parents[2] / "migrations").is_dir() else 1)';
  if (isExecutable(python) && spawnSync(python, ['-c', probe]).status === 0) return path;
  if (process.env.CORDON_STIGMEM_BIN) {
    fail(`CORDON_STIGMEM_BIN names ${path}, whose Python has no Stigmem migrations; install the node from its source archive or unset it`);
  }
  return undefined;
}

/** The first Python that is new enough and has venv. */
export function findPython() {
  const named = process.env.CORDON_PYTHON;
  const names = named ? [named] : ['python3.13', 'python3.12', 'python3.11', 'python3'];
  const probe = 'import sys, venv, ensurepip; print(sys.version_info[0], sys.version_info[1])';
  let seen = '';
  for (const name of names) {
    const found = spawnSync(name, ['-c', probe], { encoding: 'utf8' });
    if (found.error) continue;
    if (found.status !== 0) {
      seen ||= `${name} does not run or has no venv module`;
      continue;
    }
    const version = found.stdout.trim().split(' ').map(Number);
    if (atLeast(version, PYTHON_NEEDED)) return { name, version: version.join('.') };
    seen ||= `${name} is version ${version.join('.')}`;
  }
  const why = seen || (named ? `${named} (CORDON_PYTHON) was not found` : 'none was found');
  return fail(
    `Python ${PYTHON_NEEDED.join('.')} or newer with venv is needed (${why}): install python3 and python3-venv, or set CORDON_PYTHON`,
  );
}
