// `npm run record-histories [release]`: plays the scenarios of test/replay/scenarios.ts on a Temporal dev server and keeps
// the histories that are not there yet under the release's name (package.json's version where none is given). After
// `npm run demo`, its histories too. Nothing that is there is touched; then everything is replayed.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(fileURLToPath(new URL('..', import.meta.url)));
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const release = process.argv[2] ?? version;
if (!/^\d+\.\d+\.\d+[\w.]*$/.test(release)) {
  console.error(`expected a release like 0.2.0, got ${release}`);
  process.exit(2);
}
run(process.execPath, ['scripts/setup.mjs', '--quiet']);
run(join(root, 'node_modules', '.bin', 'vitest'), ['run', '--project', 'replay', 'test/replay/replay.test.ts']);

function run(command, args) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, RECORD_HISTORIES: release } });
  if (status !== 0) process.exit(status ?? 1);
}
