import { z } from 'zod';
import { letCardsExpire } from './cards.ts';
import { placeholders, type HostDatabase, type Session } from './database.ts';
import { auditSource, once, recorded, standing, type Effect, type Made } from './effect.ts';

/** Facts in one change: a short transaction beside a node that serves. */
export const suppressAtOnce = 500;
/** Long past by any clock, and the same for all, so that ours are known again. */
export const expired = '1970-01-01T00:00:00+00:00';

const Override = z.object({
  fact_id: z.string(),
  valid_until: z.string().nullable(),
  confidence: z.number().nullable(),
  reason: z.string().nullable(),
  updated_at: z.string(),
  updated_by: z.string().nullable(),
});

/** What was suppressed, with the override each had before any incident did so; `missing`: no such fact. */
export const Suppressed = z.object({
  suppressed: z.array(z.object({ id: z.string(), before: Override.nullable() })),
  missing: z.array(z.string()),
});
export type Suppressed = z.infer<typeof Suppressed>;
/** `left`: somebody has changed it since; `held`: another incident suppresses it too. */
export const Restored = z.object({ restored: z.array(z.string()), left: z.array(z.string()), held: z.array(z.string()) });
export type Restored = z.infer<typeof Restored>;

const over = { operation: 'suppressFacts', undo: 'restoreFacts' } as const;

/**
 * Lets facts expire, which is what takes them out of facts and direct recall and shows our own on the same triple
 * again. Nothing is deleted. At most {@link suppressAtOnce}.
 */
export async function suppressFacts(database: HostDatabase, effect: Effect, ids: readonly string[]): Promise<Made<Suppressed>> {
  if (ids.length > suppressAtOnce) throw new RangeError(`expected at most ${suppressAtOnce} facts in one change, came ${ids.length}`);
  return once(database, effect, Suppressed, async (session) => {
    await session.lock('fact_validity_overrides');
    const there = await existing(session, ids);
    const now = new Map((await overrides(session, ids)).map((row) => [row.fact_id, row]));
    const known = [...now.values()].some(isOurs) ? await originals(session) : new Map<string, Original>();
    const at = new Date().toISOString();
    const suppressed: Suppressed['suppressed'] = [];
    for (const id of there) {
      const row = now.get(id);
      suppressed.push({ id, before: isOurs(row) ? (known.get(id) ?? null) : (row ?? null) });
      await session.run(
        `INSERT INTO fact_validity_overrides (fact_id, valid_until, confidence, reason, updated_at, updated_by) VALUES (?, ?, NULL, ?, ?, ?)
         ON CONFLICT (fact_id) DO UPDATE SET valid_until = excluded.valid_until, reason = excluded.reason, updated_at = excluded.updated_at, updated_by = excluded.updated_by`,
        id,
        expired,
        effect.incident,
        at,
        auditSource,
      );
    }
    return { suppressed, missing: ids.filter((id) => !there.has(id)) };
  });
}

/** Puts the overrides back as they were, of what the effect `of` suppressed, nobody has changed since and no other incident suppresses. */
export async function restoreFacts(database: HostDatabase, effect: Effect & { readonly of: string }): Promise<Made<Restored>> {
  const { suppressed } = (await recorded(database, effect.of, Suppressed)) ?? { suppressed: [] };
  return once(database, effect, Restored, async (session) => {
    await session.lock('fact_validity_overrides');
    const ids = suppressed.map(({ id }) => id);
    const now = new Map((await overrides(session, ids)).map((row) => [row.fact_id, row]));
    const others = await standing(session, { ...over, except: effect.of }, Suppressed);
    const holds = new Set(others.flatMap((other) => other.suppressed.map(({ id }) => id)));
    const done: Restored = { restored: [], left: [], held: [] };
    for (const { id, before } of suppressed) {
      if (!isOurs(now.get(id))) done.left.push(id);
      else if (holds.has(id)) done.held.push(id);
      else {
        await restore(session, id, before);
        done.restored.push(id);
      }
    }
    await letCardsExpire(session, done.restored);
    return done;
  });
}

type Original = z.infer<typeof Override> | null;

async function restore(session: Session, id: string, before: Original): Promise<void> {
  if (before === null) await session.run('DELETE FROM fact_validity_overrides WHERE fact_id = ?', id);
  else
    await session.run(
      'UPDATE fact_validity_overrides SET valid_until = ?, confidence = ?, reason = ?, updated_by = ?, updated_at = ? WHERE fact_id = ?',
      before.valid_until,
      before.confidence,
      before.reason,
      before.updated_by,
      before.updated_at,
      id,
    );
}

const isOurs = (row: z.infer<typeof Override> | undefined): boolean => row?.updated_by === auditSource && row.valid_until === expired;

/** How facts that are suppressed already were before that. */
async function originals(session: Session): Promise<Map<string, Original>> {
  const all = await standing(session, over, Suppressed);
  return new Map(all.flatMap(({ suppressed }) => suppressed.map(({ id, before }) => [id, before] as const)));
}

async function existing(session: Session, ids: readonly string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set();
  const rows = await session.rows(z.object({ id: z.string() }), `SELECT id FROM facts WHERE id IN (${placeholders(ids)})`, ...ids);
  return new Set(rows.map(({ id }) => id));
}

async function overrides(session: Session, ids: readonly string[]): Promise<z.infer<typeof Override>[]> {
  if (ids.length === 0) return [];
  return session.rows(
    Override,
    `SELECT fact_id, valid_until, confidence, reason, updated_at, updated_by FROM fact_validity_overrides WHERE fact_id IN (${placeholders(ids)})`,
    ...ids,
  );
}
