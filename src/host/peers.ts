import { z } from 'zod';
import { placeholders, type HostDatabase, type Session } from './database.ts';
import { letArrive } from './door.ts';
import { effectsOf, once, recorded, standing, type Effect, type Made } from './effect.ts';

const Text = z.string().nullable();

/** A registration as the node has it, with what GET /v1/federation/peers does not show. */
const PeerRow = z.object({
  id: z.string(),
  node_id: z.string(),
  node_url: z.string(),
  federation_pubkey: z.string(),
  allowed_scopes: z.string(),
  status: z.string(),
  established_at: Text,
  signed_at: Text,
  created_at: Text,
  pull_tenant: Text,
  ingest_tenant: Text,
  allowed_tenants: Text,
  trust_tier: z.string(),
  entity_uri: Text,
  relay_trusted: z.int(),
});
const TenantRow = z.object({ peer_id: z.string(), origin_tenant: z.string(), local_tenant: z.string() });
const CursorRow = z.object({ peer_id: z.string(), direction: z.string(), cursor: Text, updated_at: z.string() });

export interface HostPeer extends z.infer<typeof PeerRow> {
  /** Tenants of the peer that come in under another name: it goes past `ingest_tenant`. */
  readonly tenantMap: Readonly<Record<string, string>>;
  /** Where pulling stands, each way, and since when: the recent pull status. */
  readonly cursors: readonly { readonly direction: string; readonly cursor: string | null; readonly updatedAt: string }[];
}

/** Every registration: which of them are this peer's, others decide. */
export async function readPeers(database: HostDatabase): Promise<HostPeer[]> {
  return database.read(async (session) => {
    const peers = await session.rows(PeerRow, `SELECT ${columns(PeerRow)} FROM peers ORDER BY id`);
    const tenants = await session.rows(TenantRow, `SELECT ${columns(TenantRow)} FROM peer_tenant_map ORDER BY peer_id, origin_tenant`);
    const cursors = await session.rows(CursorRow, `SELECT ${columns(CursorRow)} FROM replication_cursors ORDER BY peer_id, direction`);
    return peers.map((peer) => ({
      ...peer,
      tenantMap: Object.fromEntries(
        tenants.flatMap((row) => (row.peer_id === peer.id ? [[row.origin_tenant, row.local_tenant] as const] : [])),
      ),
      cursors: cursors.flatMap(({ peer_id: of, updated_at: updatedAt, direction, cursor }) =>
        of === peer.id ? [{ direction, cursor, updatedAt }] : [],
      ),
    }));
  });
}

/** Each row with the status it had before any incident closed it. */
export const PeersRevoked = z.object({ peers: z.array(z.object({ id: z.string(), nodeId: z.string(), was: z.string() })) });
export type PeersRevoked = z.infer<typeof PeersRevoked>;
/** How each stands now; `held`: another incident keeps it shut. */
export const PeersReinstated = z.object({ peers: z.array(z.object({ id: z.string(), status: z.string(), held: z.boolean() })) });
export type PeersReinstated = z.infer<typeof PeersReinstated>;

const Status = z.object({ id: z.string(), node_id: z.string(), status: z.string() });
const shut = { operation: 'revokePeers', undo: 'reinstatePeers' } as const;

/**
 * Shuts the door: the peer is asked no more, its calls get 401, and no other peer waits for it. What another incident has
 * shut already is recorded as it was before that one.
 */
export async function revokePeers(database: HostDatabase, effect: Effect, ids: readonly string[]): Promise<Made<PeersRevoked>> {
  return once(database, effect, PeersRevoked, async (session) => {
    await session.lock('peers');
    const before = await standing(session, shut, PeersRevoked);
    const original = new Map(before.flatMap(({ peers }) => peers.map(({ id, was }) => [id, was] as const)));
    const peers: PeersRevoked['peers'] = [];
    for (const { id, node_id: nodeId, status } of await statuses(session, ids)) {
      peers.push({ id, nodeId, was: status === 'revoked' ? (original.get(id) ?? status) : status });
      if (status !== 'revoked') await session.run("UPDATE peers SET status = 'revoked' WHERE id = ?", id);
    }
    return { peers };
  });
}

/**
 * Opens it again as it was, for what the effect `of` revoked, still is, and no other incident keeps shut.
 * @param only - of these nodes alone: the other rows stay as they are for good
 */
export async function reinstatePeers(
  database: HostDatabase,
  effect: Effect & { readonly of: string },
  only?: readonly string[],
): Promise<Made<PeersReinstated>> {
  const revoked = (await recorded(database, effect.of, PeersRevoked)) ?? { peers: [] };
  const peers = revoked.peers.filter(({ nodeId }) => only?.includes(nodeId) ?? true);
  return once(database, effect, PeersReinstated, async (session) => {
    await session.lock('peers');
    const others = await standing(session, { ...shut, except: effect.of }, PeersRevoked);
    const held = new Set(others.flatMap((other) => other.peers.map(({ id }) => id)));
    for (const { id, was } of peers) {
      if (!held.has(id)) await session.run("UPDATE peers SET status = ? WHERE id = ? AND status = 'revoked'", was, id);
    }
    const now = await statuses(
      session,
      peers.map(({ id }) => id),
    );
    return { peers: now.map(({ id, status }) => ({ id, status, held: held.has(id) })) };
  });
}

/** `at`: since when, by the clock of the node's machine. */
export const PeerLetIn = PeersReinstated.extend({ at: z.string() });
export type PeerLetIn = z.infer<typeof PeerLetIn>;

/**
 * Lets rows that an incident shut deliver again as they did before, for a watch: what shut them stands, so that they are
 * shut again and given back as ever. Holds of its doors take nothing back any more that comes; cards of what they held
 * stay out of recall.
 * @param isOwn - is this effect one of the same incident?
 */
export async function letPeerIn(
  database: HostDatabase,
  effect: Effect,
  ids: readonly string[],
  isOwn: (effect: string) => boolean,
): Promise<Made<PeerLetIn>> {
  return once(database, effect, PeerLetIn, async (session) => {
    const at = new Date().toISOString();
    await session.lock('peers');
    const own = await standing(session, { ...shut, except: (key) => !isOwn(key) }, PeersRevoked);
    const others = await standing(session, { ...shut, except: isOwn }, PeersRevoked);
    const was = new Map(own.toReversed().flatMap(({ peers }) => peers.map((row) => [row.id, row.was] as const)));
    const held = new Set(others.flatMap(({ peers }) => peers.map(({ id }) => id)));
    await letArrive(session, database.kind, ids);
    for (const id of ids)
      if (!held.has(id)) await session.run("UPDATE peers SET status = ? WHERE id = ? AND status = 'revoked'", was.get(id) ?? 'revoked', id);
    const now = await statuses(session, ids);
    return { at, peers: now.map(({ id, status }) => ({ id, status, held: held.has(id) })) };
  });
}

/**
 * Since when all these rows are shut, by the changes that stand and were not undone: the time of the last row, since what
 * came before it may have come through that one. Null when one is open, or somebody else shut it. ISO 8601.
 */
export async function shutSince(database: HostDatabase, ids: readonly string[]): Promise<string | null> {
  const now = await database.read((session) => statuses(session, ids));
  const since = new Map<string, string>();
  for (const { stands, at, record } of await effectsOf(database, shut)) {
    if (stands) for (const { id } of PeersRevoked.parse(record).peers) if (!since.has(id)) since.set(id, at);
  }
  let last: string | null = null;
  for (const { id, status } of now) {
    const at = since.get(id);
    if (status !== 'revoked' || at === undefined) return null;
    if (last === null || at > last) last = at;
  }
  return last;
}

async function statuses(session: Session, ids: readonly string[]): Promise<z.infer<typeof Status>[]> {
  if (ids.length === 0) return [];
  return session.rows(Status, `SELECT id, node_id, status FROM peers WHERE id IN (${placeholders(ids)}) ORDER BY id`, ...ids);
}

function columns(shape: z.ZodObject): string {
  return Object.keys(shape.shape).join(', ');
}
