// npm packages, from the lock file.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fail, readStamp, root, run, sha256, step, writeStamp } from './common.mjs';

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
  const clean = spawnSync(command, [...first, 'ci', ...flags], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (clean.error) fail(`npm could not start: ${clean.error.message}; install npm, which comes with Node`);
  if (clean.status !== 0) {
    const output = `${clean.stdout}${clean.stderr}`;
    if (!output.includes('EUSAGE') || !lockFits()) {
      console.error(output.trim().split('\n').slice(0, 25).join('\n'));
      fail('npm ci failed; run it again once the cause above is gone');
    }
    // A lock file made against a registry that lacks some foreign platforms' binaries has no entries
    // for them, and `npm ci` refuses it. An install that saves nothing takes the locked versions.
    run('npm install', command, [...first, 'install', '--no-save', ...flags]);
  }
  writeStamp(stamp, key);
}

/** True when the lock file was made from this package.json: only then may `npm ci` be passed over. */
function lockFits() {
  const read = (name) => JSON.parse(readFileSync(join(root, name), 'utf8'));
  const wanted = read('package.json');
  const locked = read('package-lock.json').packages?.[''] ?? {};
  const listed = (group) =>
    JSON.stringify(
      Object.entries(group ?? {})
        .map(String)
        .sort(),
    );
  return ['dependencies', 'devDependencies', 'optionalDependencies'].every((kind) => listed(wanted[kind]) === listed(locked[kind]));
}
