// `npm run bench`: builds the product and the benchmarks, and runs them. Flags go on to test/bench/main.ts:
// --only fence,approval,facts,many,memory,host,large,worker,days · --facts N (of `many` and `large`) · --parked N (of `memory`) · --quick · --out FILE ·
// --docs (the figures go into docs/explanation/performance.md)
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { root, run } from './setup/common.mjs';

run('set-up', process.execPath, [join(root, 'scripts', 'setup.mjs'), '--quiet']);
run('building the benchmarks', process.execPath, [
  join(root, 'node_modules', 'typescript', 'bin', 'tsc'),
  '-p',
  join('test', 'bench', 'tsconfig.json'),
]);
const main = join(root, '.test', 'bench-build', 'test', 'bench', 'main.js');
process.exitCode = spawnSync(process.execPath, [main, ...process.argv.slice(2)], { cwd: root, stdio: 'inherit' }).status ?? 1;
