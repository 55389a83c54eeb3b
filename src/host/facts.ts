import { z } from 'zod';
import { placeholders, type HostDatabase } from './database.ts';

const Text = z.string().nullable();

/** A fact with all that the node knows of it, and when it came by our own clock. */
export const HostFact = z.object({
  id: z.string(),
  entity: z.string(),
  relation: z.string(),
  value_type: z.string(),
  value_v: z.string(),
  source: z.string(),
  timestamp: z.string(),
  valid_until: Text,
  confidence: z.number(),
  scope: z.string(),
  hlc: Text,
  received_from: Text,
  origin_node_id: Text,
  origin_entity_uri: Text,
  attested_key_id: Text,
  tenant_id: z.string(),
  garden_id: Text,
  derived_from: Text,
  cid: Text,
  interpret_as: z.string(),
  quarantine_status: Text,
  quarantine_reason: Text,
  override_valid_until: Text,
  override_confidence: z.number().nullable(),
  arrived_at: Text,
  /** The entity whose key wrote it, of one that was written here; absent in what was sealed before it was asked for. */
  written_by: Text.default(null),
});
export type HostFact = z.infer<typeof HostFact>;

/** Whose facts: what they delivered, what came from them through others, and what they wrote here with keys of our node. */
export interface Origin {
  readonly nodeIds: readonly string[];
  readonly entityUris: readonly string[];
  /** Entities whose keys count as theirs. */
  readonly writers?: readonly string[];
}

/** The node's own record of who wrote a fact here. */
const written = "a.event_type = 'fact_write'";

const own = Object.keys(HostFact.shape).slice(0, Object.keys(HostFact.shape).indexOf('quarantine_status'));
const select = `SELECT ${own.map((name) => `f.${name}`).join(', ')},
    COALESCE(q.quarantine_status, f.quarantine_status) AS quarantine_status, COALESCE(q.quarantine_reason, f.quarantine_reason) AS quarantine_reason,
    o.valid_until AS override_valid_until, o.confidence AS override_confidence,
    CASE WHEN f.received_from IS NULL THEN (SELECT MIN(a.ts) FROM fact_audit_log a WHERE a.fact_id = f.id AND ${written})
      ELSE (SELECT MIN(m.timestamp) FROM facts m WHERE m.entity = f.id AND m.relation = 'stigmem:received_from' AND m.received_from IS NULL) END AS arrived_at,
    CASE WHEN f.received_from IS NULL THEN (SELECT MIN(a.entity_uri) FROM fact_audit_log a WHERE a.fact_id = f.id AND ${written}) END AS written_by
  FROM facts f
    LEFT JOIN fact_quarantine_status q ON q.fact_id = f.id
    LEFT JOIN fact_validity_overrides o ON o.fact_id = f.id`;

/**
 * One page of the facts of an origin, in the order of their ids, which never change: a walk over all pages misses none
 * that was there when it began, and meets none twice.
 * @param after - the last id of the page before; empty for the first
 */
async function factsPage(database: HostDatabase, origin: Origin, after: string, limit: number): Promise<HostFact[]> {
  const { where, values } = whereOf(origin);
  return database.read((session) =>
    session.rows(HostFact, `${select} WHERE f.id > ? AND (${where}) ORDER BY f.id LIMIT ?`, after, ...values, limit),
  );
}

/** Facts in one read: few enough that the node hardly waits, many enough that reading is what takes the time. */
const pageSize = 2_000;

/** All of them, a page in memory at a time: what the evidence store seals as it comes. */
export async function* walkFacts(database: HostDatabase, origin: Origin, size = pageSize): AsyncGenerator<HostFact> {
  for (let after = ''; ;) {
    const page = await factsPage(database, origin, after, size);
    yield* page;
    const last = page.at(-1);
    if (last === undefined || page.length < size) return;
    after = last.id;
  }
}

/** How many there are: what "complete" is measured by. */
export async function countFacts(database: HostDatabase, origin: Origin): Promise<number> {
  const { where, values } = whereOf(origin);
  const [row] = await database.read((session) =>
    // PostgreSQL counts in bigint, which comes as text.
    session.rows(z.object({ n: z.coerce.number().int() }), `SELECT COUNT(*) AS n FROM facts f WHERE ${where}`, ...values),
  );
  return row?.n ?? 0;
}

/**
 * Facts of anybody else that live on the entity, relation and scope of one of an origin's: ours, or an innocent peer's. A
 * page in memory at a time, in the order of their ids.
 */
export async function* walkNeighbours(database: HostDatabase, origin: Origin, size = pageSize): AsyncGenerator<HostFact> {
  const { where, values } = whereOf(origin);
  const theirs = where.replaceAll('f.', 'p.');
  for (let after = ''; ;) {
    const page = await database.read((session) =>
      session.rows(
        HostFact,
        `${select} JOIN (SELECT DISTINCT p.entity, p.relation, p.scope FROM facts p WHERE ${theirs}) t
           ON t.entity = f.entity AND t.relation = f.relation AND t.scope = f.scope
         WHERE f.id > ? AND NOT COALESCE(${where}, FALSE) ORDER BY f.id LIMIT ?`,
        ...values,
        after,
        ...values,
        size,
      ),
    );
    yield* page;
    const last = page.at(-1);
    if (last === undefined || page.length < size) return;
    after = last.id;
  }
}

const Source = z.object({ source: z.string() });

/** Every source the facts of an origin claim, letter by letter. */
export async function sourcesOf(database: HostDatabase, origin: Origin): Promise<string[]> {
  const { where, values } = whereOf(origin);
  const rows = await database.read((session) =>
    session.rows(Source, `SELECT DISTINCT f.source AS source FROM facts f WHERE ${where} ORDER BY source`, ...values),
  );
  return rows.map(({ source }) => source);
}

/** Sources of facts that were written here, but for those written with a key of one of these entities. */
export async function localSources(database: HostDatabase, writers: readonly string[]): Promise<string[]> {
  const byKey =
    writers.length === 0
      ? ''
      : `AND NOT EXISTS (SELECT 1 FROM fact_audit_log a WHERE a.fact_id = f.id AND ${written} AND a.entity_uri IN (${placeholders(writers)}))`;
  const rows = await database.read((session) =>
    session.rows(
      Source,
      `SELECT DISTINCT f.source AS source FROM facts f WHERE f.received_from IS NULL AND f.relation <> 'stigmem:received_from' ${byKey} ORDER BY source`,
      ...writers,
    ),
  );
  return rows.map(({ source }) => source);
}

function whereOf({ nodeIds, entityUris, writers = [] }: Origin): { where: string; values: string[] } {
  const parts: string[] = [];
  const values: string[] = [];
  for (const [column, wanted] of [
    ['f.received_from', nodeIds],
    ['f.origin_node_id', nodeIds],
    ['f.origin_entity_uri', entityUris],
  ] as const) {
    if (wanted.length === 0) continue;
    parts.push(`${column} IN (${placeholders(wanted)})`);
    values.push(...wanted);
  }
  if (writers.length > 0) {
    const byKey = `SELECT a.fact_id FROM fact_audit_log a WHERE ${written} AND a.entity_uri IN (${placeholders(writers)})`;
    parts.push(`(f.received_from IS NULL AND f.id IN (${byKey}))`);
    values.push(...writers);
  }
  // Nobody: no fact.
  return parts.length === 0 ? { where: '1 = 0', values } : { where: parts.join(' OR '), values };
}
