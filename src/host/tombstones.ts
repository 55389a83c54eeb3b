import { z } from 'zod';
import { sha256Id } from '../contract/canonical.ts';
import type { HostDatabase, Session } from './database.ts';
import { auditSource, once, recorded, standing, type Effect, type Made } from './effect.ts';

/** A tombstone as the node keeps it, but for its signature. */
export const HostTombstone = z.object({
  id: z.string(),
  entity_uri: z.string(),
  scope: z.string(),
  reason: z.string().nullable(),
  signed_by: z.string(),
  created_at: z.string(),
  legal_hold: z.int(),
  tenant_id: z.string(),
  received_from: z.string().nullable(),
  origin_node_id: z.string().nullable(),
});
export type HostTombstone = z.infer<typeof HostTombstone>;

/** Ids of the tombstones that were lifted, by this incident or by one before it that still stands. */
export const TombstonesLifted = z.object({ ids: z.array(z.string()) });
export type TombstonesLifted = z.infer<typeof TombstonesLifted>;
/** Ids that hide again; `held`: another incident lifts them too. */
export const TombstonesBack = z.object({ ids: z.array(z.string()), held: z.array(z.string()) });
export type TombstonesBack = z.infer<typeof TombstonesBack>;

/** Whose tombstones: by who signed them, and by who brought them. */
export interface Signer {
  readonly signs: (entity: string) => boolean;
  readonly nodeIds: readonly string[];
}

const columns = Object.keys(HostTombstone.shape)
  .map((name) => `t.${name}`)
  .join(', ');
/** Came by federation: what was signed here is nobody else's. Of one that the peer sent itself the row does not say who did. */
const foreign = `SELECT ${columns} FROM tombstones t WHERE (t.received_from IS NOT NULL OR t.origin_node_id IS NOT NULL
    OR EXISTS (SELECT 1 FROM fact_audit_log a WHERE a.fact_id = t.id AND a.event_type = 'tombstone_federation_ingested'))`;
const active = 'NOT EXISTS (SELECT 1 FROM tombstone_revocations r WHERE r.tombstone_id = t.id AND r.signed_by = t.signed_by)';
const lifts = { operation: 'liftTombstones', undo: 'hideAgain' } as const;

/** What the peer hides of ours, delivered by it or through others. Hides only where the node has its tombstones plugin. */
export async function readTombstones(database: HostDatabase, signer: Signer): Promise<HostTombstone[]> {
  return database.read((session) => tombstonesOf(session, signer));
}

/**
 * Lifts those of them that are wanted, as the node takes a revocation: by the same signer. It is unsigned, which no other node believes, and
 * kept as come from the peer, so that ours is not asked for it. The node notices within a minute.
 */
export async function liftTombstones(
  database: HostDatabase,
  effect: Effect,
  signer: Signer,
  wanted: ReadonlySet<string>,
): Promise<Made<TombstonesLifted>> {
  const [from] = signer.nodeIds;
  if (from === undefined) throw new RangeError('expected a node_id of the peer, came none');
  return once(database, effect, TombstonesLifted, async (session) => {
    await session.lock('tombstone_revocations');
    const found = (await tombstonesOf(session, signer)).filter(({ id }) => wanted.has(id));
    const before = await standing(session, lifts, TombstonesLifted);
    const now = new Date().toISOString();
    for (const { id, signed_by: by } of found) {
      await session.run(
        'INSERT INTO tombstone_revocations (id, tombstone_id, reason, signed_by, signature, created_at, received_from) VALUES (?, ?, ?, ?, ?, ?, ?)',
        `tombrevoke_cordon_${sha256Id(`${effect.key} ${id}`).slice('sha256:'.length)}`,
        id,
        effect.incident,
        by,
        auditSource,
        now,
        from,
      );
    }
    return { ids: [...new Set([...found.map(({ id }) => id), ...before.flatMap(({ ids }) => ids.filter((id) => wanted.has(id)))])] };
  });
}

/** Takes those back that the effect `of` lifted and no other incident does. */
export async function hideAgain(database: HostDatabase, effect: Effect & { readonly of: string }): Promise<Made<TombstonesBack>> {
  const { ids } = (await recorded(database, effect.of, TombstonesLifted)) ?? { ids: [] };
  return once(database, effect, TombstonesBack, async (session) => {
    await session.lock('tombstone_revocations');
    const others = await standing(session, { ...lifts, except: effect.of }, TombstonesLifted);
    const holds = new Set(others.flatMap((other) => other.ids));
    const done: TombstonesBack = { ids: [], held: [] };
    for (const id of ids) {
      if (holds.has(id)) done.held.push(id);
      else if ((await session.run('DELETE FROM tombstone_revocations WHERE tombstone_id = ? AND signature = ?', id, auditSource)) > 0)
        done.ids.push(id);
    }
    return done;
  });
}

async function tombstonesOf(session: Session, { signs, nodeIds }: Signer): Promise<HostTombstone[]> {
  const found = await session.rows(HostTombstone, `${foreign} AND ${active} ORDER BY t.id`);
  const isTheirs = (id: string | null): boolean => id !== null && nodeIds.includes(id);
  return found.filter((one) => signs(one.signed_by) || isTheirs(one.received_from) || isTheirs(one.origin_node_id));
}
