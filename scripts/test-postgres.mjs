// `npm run test:postgres`: docker-compose.yml run by hand on a real Temporal server with PostgreSQL, whole incident
// included. Apart from `npm test`, because it needs Go (it builds the server once, about 5 minutes) and PostgreSQL.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './setup/common.mjs';

// The newest that this line of Go builds; the images of docker-compose.yml may be newer.
const version = 'v1.31.1';
const home = join(root, '.tools', 'temporal-server');
const bin = join(home, version);

const need = (name, why) => {
  if (spawnSync('sh', ['-c', `command -v ${name}`]).status === 0) return;
  console.error(`test:postgres: no \`${name}\` on PATH: ${why}`);
  process.exit(1);
};
need('initdb', 'install PostgreSQL 13 or newer, its server programs too');
need('postgres', 'install PostgreSQL 13 or newer, its server programs too');
need('unshare', 'install util-linux');

run(process.execPath, ['scripts/setup.mjs', '--quiet']);
if (!existsSync(bin)) {
  need('go', 'install Go 1.26 or newer, it builds the Temporal server');
  console.log(`test:postgres: building the Temporal server ${version} (once, some minutes)`);
  const building = `${bin}.new`;
  mkdirSync(building, { recursive: true });
  for (const part of ['cmd/tools/sql', 'cmd/server']) {
    run('go', ['install', `go.temporal.io/server/${part}@${version}`], { GOBIN: building, GOPATH: join(home, 'go') });
  }
  renameSync(building, bin);
}
run(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', '--project', 'postgres']);

function run(command, args, env = {}) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  });
  if (error) console.error(`test:postgres: ${command} could not start: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}
