// Shared by the parts of the set-up. Node builtins only: nothing is installed yet when this runs.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..');
export const constraints = join(root, 'scripts', 'requirements.txt');

/** How many steps were really done in this run. */
export const progress = { done: 0 };

/** One step that is really done (printed even with --quiet). */
export function step(text) {
  progress.done += 1;
  console.log(`set-up: ${text}`);
}

export function fail(text) {
  console.error(`set-up: ${text}`);
  process.exit(1);
}

/** Runs a command to its end; on failure prints the tail of its output and stops. */
export function run(what, command, args, options = {}) {
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  });
  if (result.error) fail(`${what} could not start: ${result.error.message}`);
  if (result.status !== 0) {
    const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim().split('\n').slice(-25).join('\n');
    if (output) console.error(output);
    fail(`${what} failed (exit ${result.status ?? result.signal}); run it again once the cause above is gone`);
  }
  return result.stdout ?? '';
}

export const atLeast = (have, need) => have[0] > need[0] || (have[0] === need[0] && have[1] >= need[1]);

export function sha256(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part).update('\0');
  return hash.digest('hex');
}

export function readStamp(file) {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}

/** Written to a neighbour and renamed, so that a half-written stamp never exists. */
export function writeStamp(file, value) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.new`, `${value}\n`);
  renameSync(`${file}.new`, file);
}

export function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
