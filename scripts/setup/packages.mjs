// npm packages, from the lock file.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { readStamp, root, run, sha256, step, writeStamp } from './common.mjs';

export function installPackages() {
  const stamp = join(root, 'node_modules', '.cordon-stamp');
  const key = sha256(readFileSync(join(root, 'package-lock.json')), process.versions.modules, process.arch);
  if (readStamp(stamp) === key) return;
  // npm writes this file last, from the lock file: packages put there by hand with `npm ci` are good.
  const done = join(root, 'node_modules', '.package-lock.json');
  const lock = join(root, 'package-lock.json');
  if (existsSync(done) && !existsSync(stamp) && statSync(done).mtimeMs >= statSync(lock).mtimeMs) {
    writeStamp(stamp, key);
    return;
  }
  step('installing npm packages');
  const npm = process.env.npm_execpath;
  const [command, first] = npm?.endsWith('.js') ? [process.execPath, [npm]] : ['npm', []];
  const flags = ['--no-audit', '--no-fund', '--loglevel=error'];
  run('npm ci', command, [...first, 'ci', ...flags]);
  writeStamp(stamp, key);
}
