// `npm run hurt`: messages that hurt, in full: 10,000 fuzzed ones (HURT_SEED=… sends the same again), floods of 10,000 and
// 25,000, and forty incidents reset twice. Takes a quarter of an hour; `npm test` has the same in small.
import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(fileURLToPath(new URL('..', import.meta.url)));
const steps = [
  [process.execPath, ['scripts/setup.mjs', '--quiet']],
  [join(root, 'node_modules', '.bin', 'vitest'), ['run', '--project', 'workflow', '--no-file-parallelism', 'test/workflow/hurt']],
];
for (const [command, args] of steps) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, HURT: 'full' } });
  if (status !== 0) process.exit(status ?? 1);
}
