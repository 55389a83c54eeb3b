import { execFileSync } from 'node:child_process';
import { createPublicKey, verify } from 'node:crypto';
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import { canonicalJson } from '../../src/contract/canonical.ts';
import { HostFileError } from '../../src/host/database.ts';
import { takeSnapshot, type SnapshotSettings } from '../../src/host/snapshot.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { repoRoot, stigmemBin } from '../../src/lab/tools.ts';

const dir = join(repoRoot, '.test', 'host-snapshot');
const Manifest = z.looseObject({ signature: z.string(), signer_pubkey: z.string() });

let node: StigmemNode;
beforeAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  node = await startStigmemNode({ name: 'ours', dir: join(dir, 'ours') });
}, 120_000);
afterAll(async () => node?.stop());

it('is taken once beside the running node, signed by it, for nobody else to read; one that can not be made is said', async () => {
  const database = openSqlite(node.dbPath);
  const settings: SnapshotSettings = { stigmem: stigmemBin(), env: node.env, dir: join(dir, 'copies') };
  try {
    const first = await takeSnapshot(database, settings, { key: 'run-1:identify:1:snapshot', nodeId: node.nodeId });
    expect(first.digest).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(statSync(settings.dir).mode & 0o077).toBe(0);
    const listed = execFileSync('tar', ['tzf', first.file], { encoding: 'utf8' });
    expect(listed).toContain('artifacts/stigmem.db');
    const manifest = Manifest.parse(JSON.parse(execFileSync('tar', ['xzOf', first.file, 'manifest.json'], { encoding: 'utf8' })));
    const { signature, ...signed } = manifest;
    const known = await node.request('GET', '/.well-known/stigmem');
    expect(known.body).toMatchObject({ federation_pubkey: manifest.signer_pubkey });
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: manifest.signer_pubkey }, format: 'jwk' });
    const isSigned = (body: object) => verify(null, Buffer.from(canonicalJson(body)), key, Buffer.from(signature, 'base64url'));
    expect([isSigned(signed), isSigned({ ...signed, node_id: 'stigmem:node:other' })]).toEqual([true, false]);
    // What changes afterwards is not in it, however often it is asked for.
    await node.request('POST', '/v1/facts', {
      entity: 'stigmem://ours.test/x',
      relation: 'memory:late',
      value: { type: 'string', v: 'later' },
      source: 'stigmem://ours.test',
      confidence: 1,
      scope: 'company',
    });
    expect(await takeSnapshot(database, settings, { key: 'run-1:identify:1:snapshot', nodeId: node.nodeId })).toEqual(first);
    expect((await takeSnapshot(database, settings, { key: 'run-2:identify:1:snapshot', nodeId: node.nodeId })).digest).not.toBe(
      first.digest,
    );
    // The node goes on, and so does our connection.
    expect((await node.request('GET', '/v1/facts?limit=1')).status).toBe(200);
    const other = { key: 'other', nodeId: node.nodeId };
    // There the command makes an empty node, and a copy of that.
    const empty = takeSnapshot(database, { ...settings, env: { ...node.env, STIGMEM_DB_PATH: join(dir, 'nowhere.db') } }, other);
    await expect(empty).rejects.toThrow(/a copy of another node/);
    const failing = takeSnapshot(database, { ...settings, stigmem: join(dir, 'no-such-command') }, other);
    await expect(failing).rejects.toThrow(HostFileError);
    expect(readdirSync(settings.dir)).toHaveLength(2);
  } finally {
    await database.close();
  }
});
