import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { federate } from '../../src/lab/federation.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { cordon } from '../helpers/cli.ts';

vi.setConfig({ testTimeout: 60_000 });
const dir = mkdtempSync(join(tmpdir(), 'cordon-cli-node-'));
let temporal: TemporalServer;
let ours: StigmemNode;
let peer: StigmemNode;
let env: Record<string, string>;

beforeAll(async () => {
  [temporal, ours, peer] = await Promise.all([
    startTemporal({ dir: join(dir, 'temporal') }),
    startStigmemNode({ name: 'ours', dir: join(dir, 'ours') }),
    startStigmemNode({ name: 'peer', dir: join(dir, 'peer') }),
  ]);
  await federate(ours, peer);
  const keyFile = join(dir, 'key');
  writeFileSync(keyFile, `${ours.adminKey}\n`);
  env = { TEMPORAL_ADDRESS: temporal.address, STIGMEM_URL: ours.url, STIGMEM_ADMIN_KEY_FILE: keyFile, CORDON_EVIDENCE_DIR: dir };
}, 120_000);

afterAll(async () => {
  await Promise.allSettled([temporal?.stop(), ours?.stop(), peer?.stop()]);
});

it("start takes the peer's URL and finds its node_id in our node's list", async () => {
  const byUrl = await cordon(['start', `${peer.url}/`, '--alert', 'burst', '--json'], env);
  expect(byUrl.json()).toMatchObject({ incident: `peer-compromise:${peer.nodeId}`, joined: false, warnings: [] });
  const byId = await cordon(['start', peer.nodeId, '--alert', 'burst', '--json'], env);
  expect(byId.json()).toMatchObject({ incident: `peer-compromise:${peer.nodeId}`, joined: true });
});

it('start goes on under the typed name when the list has no such peer', async () => {
  const run = await cordon(['start', 'http://127.0.0.1:9', '--json'], env);
  expect(run.json()).toMatchObject({ exitCode: 0, incident: 'peer-compromise:http://127.0.0.1:9' });
  expect(run.out).toContain("our node's peer list has no such");
});

it('doctor reads the node, its clock and what the key may, without showing the key', async () => {
  const run = await cordon(['doctor'], env);
  expect(run.out).toMatch(/ok {4}Stigmem node: .* clock is -?[0-9.]+ s from ours/);
  expect(run.out).toMatch(/ok {4}admin key: reads 1 peers and the audit/);
  const wrong = { ...env, STIGMEM_ADMIN_KEY_FILE: '', STIGMEM_ADMIN_KEY: 'sk-not-the-key' };
  const refused = await cordon(['doctor'], wrong);
  expect(refused.out).toMatch(/FAIL {2}admin key: .*40[13]/);
  expect(refused.out + run.out).not.toContain('sk-not-the-key');
  expect(run.out).not.toContain(ours.adminKey);
});
