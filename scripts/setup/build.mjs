// TypeScript into dist/, then the bundle of the workflow code.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { readStamp, root, run, step, writeStamp } from './common.mjs';

/** Hash over path, size and content of everything the build reads. */
function sourcesKey() {
  const hash = createHash('sha256');
  const visit = (path) => {
    for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const child = join(path, entry.name);
      if (entry.isDirectory()) visit(child);
      else if (entry.name.endsWith('.ts')) hash.update(child.slice(root.length)).update('\0').update(readFileSync(child));
    }
  };
  for (const folder of ['workflows', 'activities', 'src']) if (existsSync(join(root, folder))) visit(join(root, folder));
  for (const file of ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json']) hash.update(readFileSync(join(root, file)));
  return hash.digest('hex');
}

export function build() {
  const stamp = join(root, 'dist', '.cordon-stamp');
  const key = sourcesKey();
  if (readStamp(stamp) === key) return;
  step('building into dist/');
  rmSync(stamp, { force: true });
  run('tsc', process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json']);
  const bundler = join(root, 'dist', 'src', 'build-bundle.js');
  if (existsSync(bundler)) run('bundling the workflow code', process.execPath, [bundler]);
  writeStamp(stamp, key);
}
