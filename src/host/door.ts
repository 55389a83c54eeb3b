import { createHash } from 'node:crypto';
import { z } from 'zod';
import { HostRefusedError, placeholders, type HostDatabase, type Session } from './database.ts';
import { once, recorded, standing, type Effect, type Made } from './effect.ts';
import { dropHold, heldFacts, letFactsGo, setHold } from './hold.ts';
import { letCardsExpire } from './cards.ts';

const Text = z.string().nullable();
const Row = z.object({ id: z.string(), status: z.string(), pull_tenant: Text });
const Cursor = z.object({ peer_id: z.string(), cursor: Text });
const Cursors = z.record(z.string(), Text);

/** A door that was opened: which rows, how far pulling had got, and what ends it by itself. */
export const Opened = z.object({
  name: z.string(),
  key: z.string(),
  incident: z.string(),
  peers: z.array(z.object({ id: z.string(), pullTenant: Text })),
  until: z.string(),
  maxFacts: z.int(),
  cursors: Cursors,
});
export type Opened = z.infer<typeof Opened>;
/** `expected`: all came that was known to wait, and the cursor moved. */
export const doorEnds = ['facts', 'expected', 'time', 'cancelled', 'overdue'] as const;
export const Closed = z.object({ by: z.enum(doorEnds), at: z.string(), arrived: z.int(), cursors: Cursors, statuses: z.array(z.string()) });
export type Closed = z.infer<typeof Closed>;
/** `shown`: held back no more; `held`: still held back. */
export const LetGo = z.object({ shown: z.array(z.string()), held: z.int() });
export type LetGo = z.infer<typeof LetGo>;
export const Ended = z.object({ held: z.array(z.string()) });
export type Ended = z.infer<typeof Ended>;

/** Nothing of ours goes out through a door that is open for a test. */
const noTenant = 'cordon-none';
const doors = { operation: 'openDoor', undo: 'closeDoor' } as const;

/**
 * Opens the door for facts of these peers to come in, for a bounded time and number of facts; each arrives held back.
 * Asked again for the same effect it opens nothing. Throws {@link HostRefusedError} unless every row is `revoked`.
 */
export async function openDoor(
  database: HostDatabase,
  effect: Effect,
  { ids, ms, maxFacts }: { readonly ids: readonly string[]; readonly ms: number; readonly maxFacts: number },
): Promise<Made<Opened>> {
  const name = `cordon_hold_${createHash('sha256').update(effect.key).digest('hex').slice(0, 24)}`;
  return once(database, effect, Opened, async (session) => {
    await session.lock('peers');
    const rows = await rowsOf(session, ids);
    const other = rows.find(({ status }) => status !== 'revoked');
    if (rows.length === 0 || other !== undefined)
      throw new HostRefusedError(`peers.status: expected rows that are revoked before a door is opened, came ${other?.status ?? 'no row'}`);
    const until = new Date(Date.now() + ms).toISOString();
    const peerIds = rows.map(({ id }) => id);
    // Its bound is over, and would shut this door too. The cards of what it holds back it keeps.
    for (const earlier of await standing(session, { operation: 'openDoor', undo: 'endHold' }, Opened))
      if (earlier.peers.some(({ id }) => peerIds.includes(id))) await dropHold(session, database.kind, earlier.name, ['facts']);
    await setHold(session, database.kind, { name, peerIds, until, maxFacts });
    const cursors = await cursorsOf(session, peerIds);
    for (const id of peerIds) await session.run("UPDATE peers SET status = 'active', pull_tenant = ? WHERE id = ?", noTenant, id);
    const peers = rows.map(({ id, pull_tenant: pullTenant }) => ({ id, pullTenant }));
    return { name, key: effect.key, incident: effect.incident, peers, until, maxFacts, cursors };
  });
}

/** How a door stands: still open, how many facts came, whether it shut itself. */
export interface DoorNow {
  readonly open: boolean;
  readonly arrived: number;
  readonly cursors: Readonly<Record<string, string | null>>;
}

export async function lookAtDoor(database: HostDatabase, opened: Opened): Promise<DoorNow> {
  const ids = opened.peers.map(({ id }) => id);
  return database.read(async (session) => ({
    open: (await rowsOf(session, ids)).some(({ status }) => status === 'active'),
    arrived: (await heldFacts(session, opened.name)).length,
    cursors: await cursorsOf(session, ids),
  }));
}

/** Shuts a door, once: whoever comes second is told what the first put on record. What came stays held back. */
export async function closeDoor(database: HostDatabase, opened: Opened, by: Closed['by']): Promise<Made<Closed>> {
  return once(database, closing(opened), Closed, async (session) => {
    await session.lock('peers');
    for (const { id, pullTenant } of opened.peers) {
      await session.run("UPDATE peers SET status = 'revoked' WHERE id = ? AND status = 'active'", id);
      await session.run('UPDATE peers SET pull_tenant = ? WHERE id = ? AND pull_tenant = ?', pullTenant, id, noTenant);
    }
    const ids = opened.peers.map(({ id }) => id);
    const arrived = (await heldFacts(session, opened.name)).length;
    const statuses = (await rowsOf(session, ids)).map(({ status }) => status);
    const at = new Date().toISOString();
    return { by: arrived >= opened.maxFacts ? 'facts' : by, at, arrived, cursors: await cursorsOf(session, ids), statuses };
  });
}

/** A page of 100 facts, and to spare: the node goes through it one by one and skips what comes while the door is shut. */
const pageMs = 30_000;

/**
 * When a door may be opened next (ms since 1970): one that is opened while the node is still in the middle of a page that
 * another was shut on would let the cursor move past what was skipped.
 */
export async function opensNext(database: HostDatabase): Promise<number> {
  const closings = await database.read((session) => standing(session, { operation: 'closeDoor', undo: 'openDoor' }, Closed));
  return Math.max(0, ...closings.map(({ at }) => Date.parse(at) + pageMs));
}

/** What was put on record when a door was shut; undefined while nobody has. */
export function closedDoor(database: HostDatabase, opened: Opened): Promise<Closed | undefined> {
  return recorded(database, closing(opened).key, Closed);
}

/** Shuts every door whose time is over, whoever opened it. Needs nothing but the database. */
export async function closeOverdue(database: HostDatabase, now = Date.now()): Promise<readonly Opened[]> {
  const open = await database.read((session) => standing(session, doors, Opened));
  const overdue = open.filter(({ until }) => Date.parse(until) <= now);
  for (const opened of overdue) await closeDoor(database, opened, 'overdue');
  return overdue;
}

/** Facts that came through a door and are still held back, by id. */
export function arrivals(database: HostDatabase, opened: Opened): Promise<string[]> {
  return database.read((session) => heldFacts(session, opened.name));
}

/** Shows what was judged good of what came through a door; all else stays held back. */
export async function showArrivals(database: HostDatabase, effect: Effect, opened: Opened, ids: readonly string[]): Promise<Made<LetGo>> {
  return once(database, effect, LetGo, async (session) => {
    await session.lock('fact_validity_overrides');
    const shown = await letFactsGo(session, opened.name, ids);
    await letCardsExpire(session, shown);
    return { shown, held: (await heldFacts(session, opened.name)).length };
  });
}

/**
 * What comes from these peers from now on is held back no more. What came through their doors still is, and its cards stay
 * out of recall. Throws {@link HostRefusedError} while one of the doors is open.
 */
export async function letArrive(session: Session, kind: HostDatabase['kind'], peerIds: readonly string[]): Promise<void> {
  const isOf = ({ peers }: Opened): boolean => peers.some(({ id }) => peerIds.includes(id));
  if ((await standing(session, doors, Opened)).some(isOf))
    throw new HostRefusedError('a peer is let in when its door is shut, and this one is open');
  for (const opened of await standing(session, { operation: 'openDoor', undo: 'endHold' }, Opened))
    if (isOf(opened)) await dropHold(session, kind, opened.name, ['facts', 'cursor']);
}

/**
 * Ends the hold of a door that is shut: from now on nothing is held back by itself any more. What is held back still
 * stays expired, and is listed. Throws {@link HostRefusedError} while the door is open.
 */
export async function endHold(database: HostDatabase, opened: Opened): Promise<Made<Ended>> {
  const effect: Effect = { key: `${opened.key} ended`, incident: opened.incident, step: 'testPull', operation: 'endHold', of: opened.key };
  return once(database, effect, Ended, async (session) => {
    const open = await standing(session, doors, Opened);
    if (open.some(({ key }) => key === opened.key))
      throw new HostRefusedError('a hold is ended when its door is shut, and this one is open');
    await dropHold(session, database.kind, opened.name);
    return { held: await heldFacts(session, opened.name) };
  });
}

function closing(opened: Opened): Effect {
  const { key, incident } = opened;
  return { key: `${key} closed`, incident, step: 'testPull', operation: 'closeDoor', of: key };
}

async function rowsOf(session: Session, ids: readonly string[]): Promise<z.infer<typeof Row>[]> {
  if (ids.length === 0) return [];
  return session.rows(Row, `SELECT id, status, pull_tenant FROM peers WHERE id IN (${placeholders(ids)}) ORDER BY id`, ...ids);
}

async function cursorsOf(session: Session, ids: readonly string[]): Promise<Record<string, string | null>> {
  const sql = `SELECT peer_id, cursor FROM replication_cursors WHERE direction = 'inbound' AND peer_id IN (${placeholders(ids)})`;
  return Object.fromEntries((await session.rows(Cursor, sql, ...ids)).map(({ peer_id: id, cursor }) => [id, cursor]));
}
