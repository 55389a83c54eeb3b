import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freePort, repoRoot } from '../../src/lab/tools.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import { ByHand } from '../helpers/by-hand.ts';
import { composeProject } from '../helpers/compose.ts';
import { buildImage } from '../helpers/dockerfile.ts';

// The node of profile `stigmem`: its Dockerfile carried out, its two services run as the compose file says.

const dir = join(repoRoot, '.test', 'stigmem-image');
const key = join(dir, 'secrets', 'stigmem_admin_key');
let hand: ByHand;
beforeAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  execFileSync('sh', [join(repoRoot, 'deploy', 'secrets.sh'), join(dir, 'secrets')]);
  hand = new ByHand({
    project: composeProject({ STIGMEM_URL: 'http://stigmem:8765' }),
    dir,
    ports: new Map([['8765', await freePort()]]),
    images: { 'cordon-stigmem': buildImage(join(repoRoot, 'deploy', 'stigmem', 'Dockerfile'), repoRoot, join(dir, 'image')) },
  });
}, 900_000);
afterAll(async () => {
  await hand?.down();
});

test('the node starts with its migrations, and the key job gives it the key once', { timeout: 300_000 }, async () => {
  await hand.up(['stigmem', 'stigmem-key']);
  expect(hand.run('stigmem-key')).toMatchObject({ code: 0, output: expect.stringContaining('the admin key is good') });
  const adminKey = execFileSync('cat', [key], { encoding: 'utf8' });
  const client = new Stigmem({ url: `http://127.0.0.1:${hand.port(8765)}`, adminKey });
  expect(await client.peers()).toEqual([]);
  await client.close();

  rmSync(key, { force: true });
  writeFileSync(key, 'another-key-of-more-than-16-characters');
  const refused = hand.run('stigmem-key');
  expect(refused).toMatchObject({ code: 1, output: expect.stringContaining('the node has other keys') });
  expect(refused.output).not.toContain('another-key');
});
