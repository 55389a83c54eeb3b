import { z } from 'zod';
import { sha256Id } from '../contract/canonical.ts';
import type { HostDatabase, Session } from './database.ts';

export const operations = [
  'revokePeers',
  'reinstatePeers',
  'revokeAccess',
  'restoreAccess',
  'suppressFacts',
  'restoreFacts',
  'coverCards',
  'proof',
  'lowerTrust',
  'raiseTrust',
  'liftTombstones',
  'hideAgain',
  'rebindPeer',
  'unbindPeer',
  'openDoor',
  'closeDoor',
  'showArrivals',
  'letPeerIn',
  'endHold',
] as const;
export type Operation = (typeof operations)[number];

/** Which change of which incident this is: the same again makes nothing twice. */
export interface Effect {
  /** `<firstExecutionRunId>:<phase>:<round>:<item>`. */
  readonly key: string;
  readonly incident: string;
  readonly step: string;
  readonly operation: Operation;
  /** The key of the effect that this one undoes. */
  readonly of?: string;
}

/** What became of a change: `made` by this very call, or by one before that died before it could answer. */
export interface Made<T> {
  readonly made: boolean;
  readonly record: T;
}

/** How our rows in the node's own audit are told from the node's: GET /v1/audit?source= finds them. */
export const auditSource = 'cordon host-worker';
const auditType = 'admin_action';
const Detail = z.object({ detail: z.string() });
const Told = z.object({
  operation: z.enum(operations),
  incident: z.string(),
  effect: z.string(),
  of: z.string().optional(),
  record: z.unknown(),
});

/**
 * A change and its record in the node's audit, in one transaction: after SIGKILL at any point both are there or neither is.
 * @param make - gives what has to be known to undo it; no secret
 */
export async function once<T>(
  database: HostDatabase,
  effect: Effect,
  record: z.ZodType<T>,
  make: (session: Session) => Promise<T>,
): Promise<Made<T>> {
  const id = auditId(effect.key);
  return database.change(async (session) => {
    // First: who comes second waits here until the first has ended.
    const began = await session.run(
      // GET /v1/audit fails on an event without a fact_id; the node itself puts a token's id there.
      "INSERT INTO fact_audit_log (id, fact_id, event_type, entity_uri, source, ts, tenant_id, detail) VALUES (?, ?, ?, ?, ?, ?, 'default', ?) ON CONFLICT (id) DO NOTHING",
      id,
      id,
      auditType,
      effect.incident,
      auditSource,
      new Date().toISOString(),
      '{}',
    );
    if (began === 0) return { made: false, record: record.parse((await recordOf(session, id))?.record) };
    const made = await make(session);
    const { operation, incident, step, key, of } = effect;
    const detail = { operation, incident, step, effect: key, ...(of === undefined ? {} : { of }), record: made };
    await session.run('UPDATE fact_audit_log SET detail = ? WHERE id = ?', JSON.stringify(detail), id);
    // On SQLite the node numbers its own rows so.
    if (database.kind === 'sqlite') await session.run('UPDATE fact_audit_log SET seq = rowid WHERE id = ?', id);
    return { made: true, record: made };
  });
}

/** Writes one row to the node's audit and changes nothing else: that it is seen over HTTP shows whose database this is. */
export async function leaveProof(database: HostDatabase, effect: Effect): Promise<string> {
  await once(database, effect, z.object({}), async () => ({}));
  return auditId(effect.key);
}

/** What an effect put on record; undefined when it was never made. */
export async function recorded<T>(database: HostDatabase, key: string, record: z.ZodType<T>): Promise<T | undefined> {
  const found = await database.read((session) => recordOf(session, auditId(key)));
  return found === undefined ? undefined : record.parse(found.record);
}

interface Pair {
  readonly operation: Operation;
  readonly undo: Operation;
}

/**
 * The effects of one operation that stand: made by any incident, and not undone since; oldest first. An item that one of
 * them holds was not as it is now before, and stays when another lets go.
 */
export async function standing<T>(
  session: Session,
  { except, ...pair }: Pair & { readonly except?: string | ((effect: string) => boolean) },
  record: z.ZodType<T>,
): Promise<T[]> {
  const isLeftOut = typeof except === 'function' ? except : (effect: string) => effect === except;
  return (await standingOf(session, pair)).filter(({ effect }) => !isLeftOut(effect)).map((one) => record.parse(one.record));
}

/** One effect as it is on record. */
export interface Recorded {
  readonly key: string;
  readonly incident: string;
  /** When it was made, by the host's clock; ISO 8601. */
  readonly at: string;
  /** It was not undone since. */
  readonly stands: boolean;
  readonly record: unknown;
}

/** All effects of one operation, of every incident; oldest first. */
export async function effectsOf(database: HostDatabase, pair: Pair): Promise<Recorded[]> {
  const told = await database.read((session) => toldOf(session, pair));
  const still = new Set(notUndone(told, pair).map(({ effect }) => effect));
  return told.flatMap(({ operation, effect: key, incident, at, record }) =>
    operation === pair.operation ? [{ key, incident, at, stands: still.has(key), record }] : [],
  );
}

async function standingOf(session: Session, pair: Pair): Promise<z.infer<typeof Told>[]> {
  return notUndone(await toldOf(session, pair), pair);
}

function notUndone<T extends z.infer<typeof Told>>(told: readonly T[], pair: Pair): T[] {
  const undone = new Set(told.flatMap(({ of }) => (of === undefined ? [] : [of])));
  return told.filter((one) => one.operation === pair.operation && !undone.has(one.effect));
}

async function toldOf(session: Session, { operation, undo }: Pair): Promise<(z.infer<typeof Told> & { at: string })[]> {
  const rows = await session.rows(
    Detail.extend({ ts: z.string() }),
    'SELECT detail, ts FROM fact_audit_log WHERE event_type = ? AND source = ? AND (detail LIKE ? OR detail LIKE ?) ORDER BY ts, id',
    auditType,
    auditSource,
    `{"operation":"${operation}"%`,
    `{"operation":"${undo}"%`,
  );
  return rows.map(({ detail, ts: at }) => ({ ...Told.parse(JSON.parse(detail)), at }));
}

async function recordOf(session: Session, id: string): Promise<z.infer<typeof Told> | undefined> {
  const [row] = await session.rows(Detail, 'SELECT detail FROM fact_audit_log WHERE id = ?', id);
  return row && Told.parse(JSON.parse(row.detail));
}

function auditId(key: string): string {
  return `cordon_${sha256Id(key).slice('sha256:'.length, 'sha256:'.length + 40)}`;
}
