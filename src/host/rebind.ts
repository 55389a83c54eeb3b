import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { HostRefusedError, placeholders, type HostDatabase, type Session } from './database.ts';
import { once, recorded, type Effect, type Made } from './effect.ts';
import { assertManifest, chainOf, nodeJson, publicKeyOf, SignedManifest } from './manifest.ts';

const StoredManifest = z.object({
  id: z.string(),
  manifest_json: z.string(),
  signature: z.string(),
  key_id: z.string(),
  issued_at: z.string(),
  expires_at: z.string(),
  log_entry_json: z.string().nullable(),
  created_at: z.string(),
  updated_at: z.string(),
});
const Row = z.object({
  id: z.string(),
  node_id: z.string(),
  federation_pubkey: z.string(),
  entity_uri: z.string().nullable(),
  status: z.string(),
});
const Key = Row.pick({ federation_pubkey: true });

/** Which row got which key, with all that has to be known to give the old one back. */
export const Rebound = z.object({
  peerId: z.string(),
  entityUri: z.string(),
  publicKey: z.string(),
  keyId: z.string(),
  /** Does the new key follow from the old one by signatures of the old one? */
  chain: z.enum(['same key', 'chain', 'none']),
  before: z.object({ publicKey: z.string(), manifest: StoredManifest.nullable() }),
});
export type Rebound = z.infer<typeof Rebound>;
/** `back`: the old key stands again; otherwise somebody has changed it since, and it was left. */
export const Unbound = z.object({ back: z.boolean(), publicKey: z.string().nullable() });
export type Unbound = z.infer<typeof Unbound>;

export interface Binding {
  readonly nodeId: string;
  /** Base64url, as in the peer's well-known document. */
  readonly publicKey: string;
  readonly manifest: SignedManifest;
  readonly trustMode: string;
}

/**
 * Gives a known peer its new key: the key its calls are checked with and the manifest its facts are checked with, which
 * only together let anything in. The row has to be `revoked`, and stays so: a fact that the node pulled with half of it
 * would be skipped for good. Throws {@link HostRefusedError} for a manifest that the node itself would not take, but for
 * one without a chain from the old key, which people may have approved.
 */
export async function rebindPeer(database: HostDatabase, effect: Effect, binding: Binding): Promise<Made<Rebound>> {
  const { publicKey, manifest, nodeId, trustMode } = binding;
  publicKeyOf(publicKey);
  return once(database, effect, Rebound, async (session) => {
    await session.lock('peers');
    const row = await rowOf(session, nodeId);
    const entityUri = row.entity_uri ?? '';
    if (row.status !== 'revoked')
      throw new HostRefusedError(`peers.status: expected revoked before a new key is bound, came ${row.status}`);
    if (entityUri === '') throw new HostRefusedError('peers.entity_uri: expected the entity the node has bound to this peer, came none');
    assertManifest(manifest, { entityUri, nodeId, publicKey, trustMode });
    const before = await storedOf(session, entityUri);
    const old = before && SignedManifest.parse(JSON.parse(before.manifest_json));
    const chain = old === null ? 'none' : chainOf(manifest, { keyId: old.key_id, publicKey: old.public_key });
    await session.run('UPDATE peers SET federation_pubkey = ? WHERE id = ?', publicKey, row.id);
    await store(session, entityUri, manifest, before !== null);
    const { id: peerId, federation_pubkey: oldKey } = row;
    return { peerId, entityUri, publicKey, keyId: manifest.key_id, chain, before: { publicKey: oldKey, manifest: before } };
  });
}

/** Gives the old key and its manifest back, where what the effect `of` bound still stands. */
export async function unbindPeer(database: HostDatabase, effect: Effect & { readonly of: string }): Promise<Made<Unbound>> {
  const bound = await recorded(database, effect.of, Rebound);
  return once(database, effect, Unbound, async (session) => {
    if (bound === undefined) return { back: false, publicKey: null };
    await session.lock('peers');
    const { peerId, entityUri, publicKey, keyId, before } = bound;
    const now = await storedOf(session, entityUri);
    const [row] = await session.rows(Key, 'SELECT federation_pubkey FROM peers WHERE id = ?', peerId);
    if (row?.federation_pubkey !== publicKey || now?.key_id !== keyId) return { back: false, publicKey: row?.federation_pubkey ?? null };
    await session.run('UPDATE peers SET federation_pubkey = ? WHERE id = ?', before.publicKey, peerId);
    await session.run('DELETE FROM federation_manifests WHERE entity_uri = ?', entityUri);
    if (before.manifest !== null) await putBack(session, entityUri, before.manifest);
    return { back: true, publicKey: before.publicKey };
  });
}

/** What the node checks this peer with now. */
export async function readBinding(
  database: HostDatabase,
  nodeId: string,
): Promise<{ publicKey: string; manifest: SignedManifest | null; status: string }> {
  return database.read(async (session) => {
    const row = await rowOf(session, nodeId);
    const stored = await storedOf(session, row.entity_uri ?? '');
    const manifest = stored && SignedManifest.parse(JSON.parse(stored.manifest_json));
    return { publicKey: row.federation_pubkey, manifest, status: row.status };
  });
}

async function rowOf(session: Session, nodeId: string): Promise<z.infer<typeof Row>> {
  const [row] = await session.rows(Row, 'SELECT id, node_id, federation_pubkey, entity_uri, status FROM peers WHERE node_id = ?', nodeId);
  if (row === undefined) throw new HostRefusedError(`peers.node_id: expected a registration of ${nodeId.slice(0, 200)}, came none`);
  return row;
}

const columns = Object.keys(StoredManifest.shape).join(', ');

async function storedOf(session: Session, entityUri: string): Promise<z.infer<typeof StoredManifest> | null> {
  const rows = await session.rows(StoredManifest, `SELECT ${columns} FROM federation_manifests WHERE entity_uri = ?`, entityUri);
  return rows[0] ?? null;
}

/** identity/trust_store.py, store_peer_manifest. */
async function store(session: Session, entityUri: string, manifest: SignedManifest, exists: boolean): Promise<void> {
  const now = new Date().toISOString().replace('Z', '+00:00');
  const { signature, key_id: keyId, issued_at: issued, expires_at: expires } = manifest;
  const values = [nodeJson(manifest), signature, keyId, issued, expires, now] as const;
  if (exists)
    await session.run(
      `UPDATE federation_manifests SET manifest_json = ?, signature = ?, key_id = ?, issued_at = ?, expires_at = ?, log_entry_json = NULL, updated_at = ?
       WHERE entity_uri = ?`,
      ...values,
      entityUri,
    );
  else
    await session.run(
      `INSERT INTO federation_manifests (manifest_json, signature, key_id, issued_at, expires_at, updated_at, created_at, id, entity_uri)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      ...values,
      now,
      randomUUID(),
      entityUri,
    );
}

async function putBack(session: Session, entityUri: string, before: z.infer<typeof StoredManifest>): Promise<void> {
  const values = Object.values(before);
  await session.run(
    `INSERT INTO federation_manifests (${Object.keys(before).join(', ')}, entity_uri) VALUES (${placeholders(values)}, ?)`,
    ...values,
    entityUri,
  );
}
