import { z } from 'zod';
import { placeholders, type HostDatabase, type Value } from './database.ts';

/** Values in one statement: well under what either database takes. */
const atOnce = 500;

const Recall = z.object({
  entity_uri: z.string().nullable(),
  scope: z.string(),
  times: z.coerce.number().int(),
  first: z.string(),
  last: z.string(),
});
const Text = z.string().nullable();
const Reference = z.object({
  id: z.string(),
  entity: z.string(),
  relation: z.string(),
  scope: z.string(),
  source: z.string(),
  confidence: z.number(),
  received_from: Text,
  derived_from: z.string(),
});
const LocalFact = z.object({
  id: z.string(),
  entity: z.string(),
  relation: z.string(),
  scope: z.string(),
  source: z.string(),
  timestamp: z.string(),
});

/** Who asked recall in a scope, and when: the node keeps no fact ids, so this is the most that can be known. */
export const Recaller = z.object({ caller: Text, scope: z.string(), times: z.int(), first: z.string(), last: z.string() });
export type Recaller = z.infer<typeof Recaller>;

/** Callers of recall in these scopes since then (ISO 8601, by our own clock). */
export async function recallersSince(database: HostDatabase, scopes: readonly string[], since: string): Promise<Recaller[]> {
  if (scopes.length === 0) return [];
  const rows = await database.read((session) =>
    session.rows(
      Recall,
      `SELECT entity_uri, scope, COUNT(*) AS times, MIN(ts) AS first, MAX(ts) AS last FROM recall_audit_log
       WHERE ts >= ? AND scope IN (${placeholders(scopes)}) GROUP BY entity_uri, scope ORDER BY entity_uri, scope`,
      asNode(since),
      ...scopes,
    ),
  );
  return rows.map(({ entity_uri: caller, ...rest }) => ({ caller, ...rest }));
}

/** A fact that says it was made of another. */
export const Derived = Reference.omit({ derived_from: true }).extend({ from: z.array(z.string()) });
export type Derived = z.infer<typeof Derived>;

const Origin = z.union([z.string(), z.looseObject({ fact_id: z.string() }), z.looseObject({ hash: z.string() })]);

/**
 * Facts that name one of these in `derived_from`, by fact id or by content id (`sha256:…`): whoever writes it chooses.
 * `pageSize` of them are read at a time.
 */
export async function derivedFrom(database: HostDatabase, ids: ReadonlySet<string>, pageSize = 2_000): Promise<Derived[]> {
  const found: Derived[] = [];
  for (let after = ''; ;) {
    const rows = await database.read((session) =>
      session.rows(
        Reference,
        'SELECT id, entity, relation, scope, source, confidence, received_from, derived_from FROM facts WHERE derived_from IS NOT NULL AND id > ? ORDER BY id LIMIT ?',
        after,
        pageSize,
      ),
    );
    for (const { derived_from: said, ...fact } of rows) {
      const from = originsOf(said).filter((id) => ids.has(id));
      if (from.length > 0) found.push({ ...fact, from });
    }
    const last = rows.at(-1);
    if (last === undefined || rows.length < pageSize) return found;
    after = last.id;
  }
}

/** Facts that were written here, on one of these entities, since then. */
export async function writtenHereSince(
  database: HostDatabase,
  entities: readonly string[],
  since: string,
): Promise<z.infer<typeof LocalFact>[]> {
  const found: z.infer<typeof LocalFact>[] = [];
  for (let from = 0; from < entities.length; from += atOnce) {
    const some: Value[] = entities.slice(from, from + atOnce);
    found.push(
      ...(await database.read((session) =>
        session.rows(
          LocalFact,
          `SELECT id, entity, relation, scope, source, timestamp FROM facts
           WHERE received_from IS NULL AND relation <> 'stigmem:received_from' AND timestamp >= ? AND entity IN (${placeholders(some)}) ORDER BY id`,
          asNode(since),
          ...some,
        ),
      )),
    );
  }
  return found;
}

/** As the node writes times, which are compared as text: a `Z` sorts after every `+` and digit. */
function asNode(time: string): string {
  return new Date(time).toISOString().replace('Z', '');
}

function originsOf(text: string): string[] {
  let said: unknown;
  try {
    said = JSON.parse(text);
  } catch {
    // What a writer put there is its own business; it names nothing then.
    return [];
  }
  return (Array.isArray(said) ? said : []).flatMap((one: unknown) => {
    const origin = Origin.safeParse(one).data;
    if (origin === undefined) return [];
    if (typeof origin === 'string') return [origin];
    return [origin['fact_id'], origin['hash']].filter((name) => typeof name === 'string');
  });
}
