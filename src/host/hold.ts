import { z } from 'zod';
import { HostRefusedError, placeholders, type HostDatabase, type Session } from './database.ts';
import { auditSource } from './effect.ts';
import { expired } from './suppress.ts';

/** Whose arrivals are held back, and until when and how many the door takes any. All of it stands in SQL: ids, numbers and times only. */
export interface Hold {
  /** Of this hold alone: lower-case letters, digits and `_`. */
  readonly name: string;
  /** peers.id, as the node makes them. */
  readonly peerIds: readonly string[];
  /** ISO 8601 with `Z`. */
  readonly until: string;
  readonly maxFacts: number;
}

/**
 * Triggers in the node's own database, so that they hold in the node's own transaction, whatever becomes of cordon:
 * - every fact that comes from these peers, or of them through others, arrives expired;
 * - memory cards of its entity count as contradictory, so that recall leaves them out: the node makes them of raw rows;
 * - the fact that reaches the bound, or comes after the deadline, shuts the door behind it;
 * - while the door is shut the cursor stays: a page in the middle of which it was shut is asked for again.
 * What the peer chose (its node_id, its entity) is compared as data and never becomes part of a statement.
 */
export async function setHold(session: Session, kind: HostDatabase['kind'], hold: Hold): Promise<void> {
  assertPlain(hold);
  for (const statement of kind === 'sqlite' ? onSqlite(hold) : onPostgres(hold)) await session.run(statement);
}

type Part = keyof typeof tables;

/**
 * Takes triggers of a hold away again: all, or only what holds arrivals back, where a later hold does so. What arrived
 * under it stays as it is.
 */
export async function dropHold(
  session: Session,
  kind: HostDatabase['kind'],
  name: string,
  parts: readonly Part[] = ['facts', 'cards', 'cursor'],
): Promise<void> {
  assertPlain({ name, peerIds: [], until: new Date(0).toISOString(), maxFacts: 0 });
  for (const part of parts) {
    if (kind === 'sqlite') {
      for (const when of ['i', 'u']) await session.run(`DROP TRIGGER IF EXISTS ${name}_${part}_${when}`);
    } else {
      await session.run(`DROP TRIGGER IF EXISTS ${name}_${part} ON ${tables[part]}`);
      await session.run(`DROP FUNCTION IF EXISTS ${name}_${part}()`);
    }
  }
}

const tables = { facts: 'facts', cards: 'memory_cards', cursor: 'replication_cursors' } as const;
const Held = z.object({ fact_id: z.string() });

/** Facts that arrived under a hold and are still held back by it. */
export async function heldFacts(session: Session, name: string): Promise<string[]> {
  const rows = await session.rows(
    Held,
    'SELECT fact_id FROM fact_validity_overrides WHERE reason = ? AND updated_by = ? ORDER BY fact_id',
    name,
    auditSource,
  );
  return rows.map(({ fact_id: id }) => id);
}

/** Shows facts that a hold held back; of others nothing is changed. Gives which. */
export async function letFactsGo(session: Session, name: string, ids: readonly string[]): Promise<string[]> {
  const held = new Set(await heldFacts(session, name));
  const wanted = ids.filter((id) => held.has(id));
  for (let from = 0; from < wanted.length; from += atOnce) {
    const some = wanted.slice(from, from + atOnce);
    await session.run(`DELETE FROM fact_validity_overrides WHERE reason = ? AND fact_id IN (${placeholders(some)})`, name, ...some);
  }
  return wanted;
}
const atOnce = 500;

function assertPlain({ name, peerIds, until, maxFacts }: Hold): void {
  const isPlain =
    /^[a-z][a-z0-9_]{0,47}$/.test(name) &&
    peerIds.every((id) => /^[\w-]{1,64}$/.test(id)) &&
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(until) &&
    Number.isSafeInteger(maxFacts) &&
    maxFacts >= 0;
  if (!isPlain) throw new HostRefusedError('a hold: expected plain ids, a time and a number, came something else');
}

const list = (ids: readonly string[]): string => ids.map((id) => `'${id}'`).join(', ');

/** Is this fact one of theirs, delivered or relayed? */
const isTheirs = ({ peerIds }: Hold): string =>
  `EXISTS (SELECT 1 FROM peers p WHERE p.id IN (${list(peerIds)}) AND (p.node_id = NEW.received_from OR p.node_id = NEW.origin_node_id OR (p.entity_uri <> '' AND p.entity_uri = NEW.origin_entity_uri)))`;

/** Does a fact that is held back stand on this card's entity? */
const isHeldBack = ({ name }: Hold): string =>
  `EXISTS (SELECT 1 FROM fact_validity_overrides o JOIN facts f ON f.id = o.fact_id WHERE o.reason = '${name}' AND f.entity = NEW.entity_uri AND f.scope = NEW.scope AND f.tenant_id = NEW.tenant_id)`;

const isShut = ({ peerIds }: Hold): string =>
  `NEW.peer_id IN (${list(peerIds)}) AND NOT EXISTS (SELECT 1 FROM peers p WHERE p.id = NEW.peer_id AND p.status = 'active')`;

/** What a fact that arrives does; `now` and `newline` in the words of the database. */
const arrival = ({ name, peerIds, until, maxFacts }: Hold, now: string, newline: string): string => `
  INSERT INTO fact_validity_overrides (fact_id, valid_until, confidence, reason, updated_at, updated_by)
    VALUES (NEW.id, '${expired}', NULL, '${name}', ${now}, '${auditSource}')
    ON CONFLICT (fact_id) DO UPDATE SET valid_until = excluded.valid_until, reason = excluded.reason, updated_at = excluded.updated_at, updated_by = excluded.updated_by;
  INSERT INTO memory_cards (entity_uri, tenant_id, scope, summary, fact_hashes, avg_confidence, refreshed_at, is_stale, has_contradictions)
    VALUES (NEW.entity, NEW.tenant_id, NEW.scope, 'Entity: ' || NEW.entity || ${newline} || 'Facts:', '[]', 0, ${now}, 0, 1)
    ON CONFLICT (entity_uri, tenant_id, scope) DO UPDATE SET is_stale = 0, has_contradictions = 1;
  UPDATE peers SET status = 'revoked' WHERE id IN (${list(peerIds)}) AND status = 'active'
    AND (${now} >= '${until}' OR (SELECT COUNT(*) FROM fact_validity_overrides o WHERE o.reason = '${name}') >= ${maxFacts});`;

function onSqlite(hold: Hold): string[] {
  const { name } = hold;
  const now = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
  const card = `WHEN (NEW.is_stale <> 0 OR NEW.has_contradictions = 0) AND ${isHeldBack(hold)}
    BEGIN UPDATE memory_cards SET is_stale = 0, has_contradictions = 1 WHERE entity_uri = NEW.entity_uri AND scope = NEW.scope AND tenant_id = NEW.tenant_id; END`;
  return [
    `CREATE TRIGGER ${name}_facts_i AFTER INSERT ON facts WHEN ${isTheirs(hold)} BEGIN ${arrival(hold, now, 'char(10)')} END`,
    `CREATE TRIGGER ${name}_cards_i AFTER INSERT ON memory_cards ${card}`,
    `CREATE TRIGGER ${name}_cards_u AFTER UPDATE ON memory_cards ${card}`,
    `CREATE TRIGGER ${name}_cursor_i AFTER INSERT ON replication_cursors WHEN ${isShut(hold)}
       BEGIN DELETE FROM replication_cursors WHERE peer_id = NEW.peer_id AND direction = NEW.direction; END`,
    `CREATE TRIGGER ${name}_cursor_u AFTER UPDATE ON replication_cursors WHEN NEW.cursor IS NOT OLD.cursor AND ${isShut(hold)}
       BEGIN UPDATE replication_cursors SET cursor = OLD.cursor, updated_at = OLD.updated_at WHERE peer_id = NEW.peer_id AND direction = NEW.direction; END`,
  ];
}

function onPostgres(hold: Hold): string[] {
  const { name } = hold;
  const now = `to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;
  const made = (part: keyof typeof tables, when: string, body: string): string[] => [
    `CREATE FUNCTION ${name}_${part}() RETURNS trigger LANGUAGE plpgsql AS $hold$ BEGIN ${body} END $hold$`,
    `CREATE TRIGGER ${name}_${part} ${when} ON ${tables[part]} FOR EACH ROW EXECUTE FUNCTION ${name}_${part}()`,
  ];
  return [
    ...made('facts', 'AFTER INSERT', `IF ${isTheirs(hold)} THEN ${arrival(hold, now, 'chr(10)')} END IF; RETURN NULL;`),
    ...made(
      'cards',
      'BEFORE INSERT OR UPDATE',
      `IF ${isHeldBack(hold)} THEN NEW.is_stale := 0; NEW.has_contradictions := 1; END IF; RETURN NEW;`,
    ),
    ...made(
      'cursor',
      'BEFORE INSERT OR UPDATE',
      // Without the row: who inserts in the place of one that is there updates nothing either.
      `IF ${isShut(hold)} THEN RETURN NULL; END IF; RETURN NEW;`,
    ),
  ];
}
