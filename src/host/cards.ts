import { z } from 'zod';
import { sha256Id } from '../contract/canonical.ts';
import { placeholders, type HostDatabase, type Session } from './database.ts';
import { once, type Effect, type Made } from './effect.ts';

/** Facts in one change; each entity of them costs a few statements. */
export const cardsAtOnce = 200;
/** As many facts as the node puts into one (card_materializer.py, _SUMMARY_MAX_FACTS). */
const factsOnCard = 20;

export const CardsCovered = z.object({ cards: z.int() });
export type CardsCovered = z.infer<typeof CardsCovered>;

const Place = z.object({ entity: z.string(), scope: z.string(), tenant_id: z.string() });
type Place = z.infer<typeof Place>;
const CardLine = z.object({ id: z.string(), relation: z.string(), value_v: z.string(), confidence: z.number() });

/**
 * Writes the memory card of each entity of these facts anew, from what has not expired on it, and as one with
 * contradictions, which recall leaves out. The node makes its own from raw rows, whatever expired; it does so again after
 * the next write on the entity, or when somebody asks for it with `refresh`. At most {@link cardsAtOnce}.
 */
export async function coverCards(database: HostDatabase, effect: Effect, ids: readonly string[]): Promise<Made<CardsCovered>> {
  if (ids.length > cardsAtOnce) throw new RangeError(`expected at most ${cardsAtOnce} facts in one change, came ${ids.length}`);
  return once(database, effect, CardsCovered, async (session) => {
    const places = await placesOf(session, ids);
    for (const place of places) await cover(session, place);
    return { cards: places.length };
  });
}

/** The node makes these cards anew when they are asked for. */
export async function letCardsExpire(session: Session, ids: readonly string[]): Promise<void> {
  for (const { entity, scope, tenant_id: tenant } of await placesOf(session, ids))
    await session.run('UPDATE memory_cards SET is_stale = 1 WHERE entity_uri = ? AND scope = ? AND tenant_id = ?', entity, scope, tenant);
}

async function placesOf(session: Session, ids: readonly string[]): Promise<Place[]> {
  if (ids.length === 0) return [];
  const sql = `SELECT DISTINCT entity, scope, tenant_id FROM facts WHERE id IN (${placeholders(ids)}) ORDER BY entity, scope, tenant_id`;
  return session.rows(Place, sql, ...ids);
}

async function cover(session: Session, { entity, scope, tenant_id: tenant }: Place): Promise<void> {
  const now = new Date().toISOString().replace('Z', '+00:00');
  const left = await session.rows(
    CardLine,
    `SELECT f.id, f.relation, f.value_v, f.confidence FROM facts f
       LEFT JOIN fact_validity_overrides o ON o.fact_id = f.id
       LEFT JOIN fact_quarantine_status q ON q.fact_id = f.id
     WHERE f.entity = ? AND f.scope = ? AND f.tenant_id = ? AND f.confidence > 0
       AND (COALESCE(o.valid_until, f.valid_until) IS NULL OR COALESCE(o.valid_until, f.valid_until) > ?)
       AND COALESCE(q.quarantine_status, f.quarantine_status, 'none') NOT IN ('pending', 'rejected')
     ORDER BY f.confidence DESC, f.timestamp DESC, f.id LIMIT ${factsOnCard}`,
    entity,
    scope,
    tenant,
    now,
  );
  const lines = left.map(({ relation, value_v: value, confidence }) => `  ${relation}: ${value} (conf=${confidence.toFixed(2)})`);
  const hashes = left.map(({ id }) => sha256Id(id).slice('sha256:'.length));
  const average = left.length === 0 ? 0 : left.reduce((sum, { confidence }) => sum + confidence, 0) / left.length;
  await session.run(
    `INSERT INTO memory_cards (entity_uri, tenant_id, scope, summary, fact_hashes, avg_confidence, refreshed_at, is_stale, has_contradictions)
     VALUES (?, ?, ?, ?, ?, ?, ?, 0, 1)
     ON CONFLICT (entity_uri, tenant_id, scope) DO UPDATE SET summary = excluded.summary, fact_hashes = excluded.fact_hashes,
       avg_confidence = excluded.avg_confidence, refreshed_at = excluded.refreshed_at, is_stale = 0, has_contradictions = 1`,
    entity,
    tenant,
    scope,
    [`Entity: ${entity}`, 'Facts:', ...lines].join('\n'),
    JSON.stringify(hashes),
    average,
    now,
  );
}
