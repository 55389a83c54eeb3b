import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { run } from '../../src/lab/python.ts';
import { stigmemPython } from '../../src/lab/tools.ts';
import { hostileScene } from '../helpers/hostile-scene.ts';

/** What every run begins with: our node's folder after the attack, and what the peer shows of itself. */
export interface Template {
  /** Our node's folder: database, admin key. */
  readonly ours: string;
  readonly peerNodeId: string;
  readonly peerEntityUri: string;
  readonly downstreamNodeId: string;
  readonly stop: () => Promise<void>;
}

/** How the peer's own endpoints answer, without the peer: they are asked only for these two. */
const documents = ['/.well-known/stigmem', '/.well-known/stigmem-manifest.json'] as const;
export const peerEntityUri = 'stigmem://peer.test';
export const ourEntityUri = 'stigmem://ours.test';
const downstreamNodeId = 'stigmem:node:downstream';

/** Two real nodes, federated; the peer turns, its facts arrive; then both stop and our node's folder is kept. */
export async function makeTemplate(dir: string): Promise<Template> {
  const scene = await hostileScene(`${dir}/scene`, 2, {
    vouchedFor: [ourEntityUri],
    only: ['neverGranted', 'instruction', 'shadow', 'burst'],
  });
  const { ours, hostile, peer } = scene;
  // A token of the peer that our node can take back: our own entity is its subject.
  const peerKey = await ours.issueKey({ entityUri: peerEntityUri, permissions: ['read', 'write', 'federate'] });
  const token = { issuer: peerEntityUri, subject: ourEntityUri, verb: 'read', object: `${ourEntityUri}/x`, ttl_seconds: 604_800 };
  const issued = await ours.request('POST', '/v1/federation/capability-tokens', token, peerKey);
  if (issued.status !== 201) throw new Error(`no token for the scene: ${JSON.stringify(issued)}`);
  await hostile.replayToken(7);
  const shown = new Map(
    await Promise.all(documents.map(async (path) => [path, await (await fetch(`${hostile.url}${path}`)).text()] as const)),
  );
  await scene.stop();
  // This node writes token events without a tenant, and its audit routes show none of those. One that shows them is
  // needed here, else nothing is ever revoked.
  await ours.exec(`
    UPDATE fact_audit_log SET tenant_id = 'default' WHERE event_type LIKE 'capability_%';
    CREATE TRIGGER capability_events_have_a_tenant AFTER INSERT ON fact_audit_log WHEN new.event_type LIKE 'capability_%'
    BEGIN UPDATE fact_audit_log SET tenant_id = 'default' WHERE id = new.id; END;
  `);
  // Somebody downstream who may have pulled: a row is enough, nobody answers there.
  await ours.exec(`
    INSERT INTO peers (id, node_id, node_url, federation_pubkey, allowed_scopes, status, established_at, declaration_sig, signed_at, created_at, trust_tier, entity_uri, relay_trusted)
    SELECT 'd0000000-0000-4000-8000-000000000001', '${downstreamNodeId}', 'http://127.0.0.1:9', federation_pubkey, allowed_scopes, status, established_at, declaration_sig, signed_at, created_at, trust_tier, 'stigmem://downstream.test', 0 FROM peers LIMIT 1;
  `);
  const kept = join(scene.dir, 'template');
  rmSync(kept, { recursive: true, force: true });
  mkdirSync(kept, { recursive: true });
  for (const file of ['stigmem.db', 'admin-key']) cpSync(join(ours.dir, file), join(kept, file));
  const server = createServer((request, response) => {
    const text = shown.get(request.url as (typeof documents)[number]);
    response.writeHead(text === undefined ? 404 : 200, { 'content-type': 'application/json' }).end(text ?? '{}');
  });
  await new Promise<void>((listening) => server.listen(Number(new URL(peer.url).port), '127.0.0.1', listening));
  return {
    ours: kept,
    peerNodeId: peer.nodeId,
    peerEntityUri,
    downstreamNodeId,
    stop: async () => {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** Contacts of everybody who is told. */
export function writeContacts(file: string, template: Template): void {
  const contacts = {
    ours: { name: 'Our desk', contact: 'desk@ours.test' },
    peers: { [template.peerNodeId]: { name: 'Peer desk', contact: 'desk@peer.test' } },
    downstream: { [template.downstreamNodeId]: { name: 'Downstream desk', contact: 'desk@downstream.test' } },
    agents: { [ourEntityUri]: { name: 'Agents desk', contact: 'agents@ours.test' } },
  };
  writeFileSync(file, JSON.stringify(contacts));
}

const backup = `
import sqlite3, sys
source, target = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True), sqlite3.connect(sys.argv[2], timeout=30)
source.backup(target)
target.close()
`;

/** Copies a database into another, also while a node has it open: SQLite's own backup, one transaction. */
export async function copyDatabase(from: string, to: string): Promise<void> {
  await run(stigmemPython(), ['-c', backup, from, to], { env: { PATH: process.env['PATH'] ?? '' } });
}

const dump = `
import json, sqlite3, sys
conn = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=30)
conn.row_factory = sqlite3.Row
plain = lambda v: v.hex() if isinstance(v, bytes) else v
print(json.dumps({name: [{k: plain(r[k]) for k in r.keys()} for r in conn.execute(sql)] for name, sql in json.load(sys.stdin).items()}))
`;

export type Tables = Readonly<Record<string, readonly Readonly<Record<string, string | number | null>>[]>>;

/** Rows of several queries, from one look at the database. */
export async function readTables(db: string, queries: Readonly<Record<string, string>>): Promise<Tables> {
  const { stdout } = await run(stigmemPython(), ['-c', dump, db], {
    env: { PATH: process.env['PATH'] ?? '' },
    input: JSON.stringify(queries),
  });
  return JSON.parse(stdout) as Tables;
}
