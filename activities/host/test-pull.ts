import { setTimeout as sleep } from 'node:timers/promises';
import type { HostDone, IncidentRef, LetIn, PeerRef } from '../../src/contract/steps.ts';
import {
  arrivals,
  closedDoor,
  closeDoor,
  endHold,
  lookAtDoor,
  openDoor,
  Opened,
  opensNext,
  showArrivals,
  type Closed,
} from '../../src/host/door.ts';
import { cardsAtOnce, coverCards } from '../../src/host/cards.ts';
import { effectsOf, recorded } from '../../src/host/effect.ts';
import { letPeerIn, readPeers } from '../../src/host/peers.ts';
import { suppressAtOnce } from '../../src/host/suppress.ts';
import { assertApprovedHere } from '../approved.ts';
import { cancelSignal, headOf, seal } from '../deps.ts';
import { readPlan } from '../facts/plans.ts';
import { StepFailure } from '../failures.ts';
import { beat } from '../heartbeat.ts';
import { assertServes, effectOf, type HostDeps } from './deps.ts';

/** How often the door is looked at; the bounds hold in the node's own database between two looks. */
const everyMs = 200;
/** One night; a test pull takes minutes. */
const longestMs = 12 * 3_600_000;

export interface DoorInput {
  readonly ref: IncidentRef;
  readonly peer: PeerRef;
  /** Whose rows are opened: the others of this peer have a key that nobody approved. */
  readonly nodeId: string;
  /** The run whose approval this acts on. */
  readonly approvedInRun: string;
  /** Facts that may come in, 1 to 10,000. */
  readonly maxFacts: number;
  readonly ms: number;
  /** So many wait: once they came and the cursor has moved, nothing is waited for any more. */
  readonly expect?: number;
}

/** What came through a door and how it was shut; ids of the facts are sealed under `evidenceId`. */
export interface DoorHeld extends HostDone {
  readonly door: string;
  readonly arrived: number;
  readonly evidenceId: string;
  /** By peers row: how far the node had pulled. It stays where it was when the door was shut in the middle of a page. */
  readonly cursorBefore: Readonly<Record<string, string | null>>;
  readonly cursorAfter: Readonly<Record<string, string | null>>;
  readonly closedBy: Closed['by'];
}

/** Test pull, on the node's own machine, behind gate `testPull`. */
export function hostTestPullActivities(deps: HostDeps) {
  return {
    /**
     * Opens the door for the peer's facts, holds it open until so many came, the time is over or it is cancelled, and
     * shuts it. Whatever comes is held back from facts and recall until {@link showArrivals}. Should this worker die, the
     * database itself ends it at the first fact after the deadline, and the next host worker before it polls.
     */
    async holdDoorOpen({ ref, peer, nodeId, approvedInRun, maxFacts, ms, expect }: DoorInput): Promise<DoorHeld> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      assertBounds(maxFacts, ms);
      const { database } = deps;
      const effect = effectOf(ref, 'testPull', 'openDoor', `${approvedInRun} ${ref.at}`);
      await seal(deps, ref, `door before ${ref.at}`, 'peers', { peerIds: peer.peerIds, maxFacts, ms });
      if (ref.mode === 'drill') return drilled(deps, ref, effect.key);
      await pageOver(effect.key);
      const ids = await rowsOfNode(peer, nodeId);
      const { record: opened } = await openDoor(database, effect, { ids, ms, maxFacts });
      const closed = await held(opened, expect);
      const came = await arrivals(database, opened);
      // Of a door whose holder died nobody has judged what came.
      const left = (await heldByDoors(ref)).filter((id) => !came.includes(id));
      const sealed = await seal(deps, ref, `door ${ref.at}`, 'facts', { opened, closed, ids: came, left } satisfies DoorSealed);
      const shut = closed.statuses.every((status) => status === 'revoked');
      if (!shut)
        throw new StepFailure(
          'PreconditionChanged',
          `peers.status: expected revoked after the door was shut, came ${closed.statuses.join(', ')}`,
        );
      return {
        done: came.length,
        door: opened.key,
        arrived: came.length,
        evidenceId: sealed.id,
        cursorBefore: opened.cursors,
        cursorAfter: closed.cursors,
        closedBy: closed.by,
        detail: `${came.length} facts came in and are held back; shut by ${closed.by}, and the row reads revoked`,
        evidence: headOf(sealed),
      };
    },

    /** Shows what was judged good of what came through the doors of this incident: `keep` in the sealed judgement. */
    async showArrivals({ ref, approvedInRun, judged }: ShowInput): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const ids = (await readPlan(deps, ref, { evidenceId: judged })).flatMap(({ id, action }) => (action === 'keep' ? [id] : []));
      const shown: string[] = [];
      for (const opened of ref.mode === 'drill' ? [] : await doorsOf(ref)) shown.push(...(await show(ref, opened, ids)));
      const sealed = await seal(deps, ref, `arrivals shown ${ref.at}`, 'facts', { judged, shown });
      const left = ids.length - shown.length;
      return {
        done: shown.length,
        detail: `${shown.length} facts that came through the door are shown`,
        residual: left > 0 ? [{ what: 'facts that were to be shown', why: 'the door holds no such fact back', count: left }] : [],
        evidence: headOf(sealed),
      };
    },

    /** Lets the peer deliver again, for the watch; its rows with a key that nobody approved stay shut. */
    async letPeerIn({ ref, peer, nodeId, approvedInRun }: Omit<DoorInput, 'maxFacts' | 'ms' | 'expect'>): Promise<LetIn> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const { database } = deps;
      const ids = await rowsOfNode(peer, nodeId);
      await seal(deps, ref, `let in before ${ref.at}`, 'peers', { nodeId, ids });
      if (ref.mode === 'drill')
        return { at: ref.at, done: 0, detail: 'DRILL: would let the peer in', evidence: (await drilled(deps, ref, '')).evidence };
      const effect = effectOf(ref, 'watch', 'letPeerIn', `${approvedInRun} ${ref.at}`);
      await pageOver(effect.key);
      const { record } = await letPeerIn(database, effect, ids, (key) => key.startsWith(`${ref.firstRun}:`));
      const sealed = await seal(deps, ref, `let in ${ref.at}`, 'peers', record);
      const open = record.peers.filter(({ status }) => status === 'active');
      const shut = record.peers.filter(({ status }) => status !== 'active');
      return {
        at: record.at,
        done: open.length,
        reopened: Object.fromEntries(record.peers.map(({ id, status }) => [id, status])),
        detail: `${open.length} of ${record.peers.length} rows of ${nodeId} let in`,
        residual: shut.map(({ id, status, held }) => ({
          what: `peers row ${id}`,
          why: `stays ${status}${held ? ': another incident keeps it shut' : ', as it was before this incident'}`,
          count: 1,
        })),
        evidence: headOf(sealed),
      };
    },

    /**
     * Takes the holds of all doors of this incident out of the node's database, when it ends.
     * @remarks `show`: a false alarm, what is held back still is shown
     */
    async endHolds({ ref, approvedInRun, show: isFalseAlarm = false }: EndInput): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const doors = await doorsOf(ref);
      const held: string[] = [];
      for (const opened of ref.mode === 'drill' ? [] : doors) {
        if (isFalseAlarm) await show(ref, opened, await arrivals(deps.database, opened));
        held.push(...(await endHold(deps.database, opened)).record.held);
      }
      await cover(ref, held);
      const sealed = await seal(deps, ref, `holds ended ${ref.at}`, 'facts', { doors, held });
      return {
        done: doors.length,
        detail: `${doors.length} holds taken out of the node's database`,
        residual:
          held.length > 0
            ? [{ what: 'facts that came through a door and were not shown', why: 'they stay expired', count: held.length }]
            : [],
        evidence: headOf(sealed),
      };
    },
  };

  /** Every door this incident has opened, oldest first. */
  async function doorsOf({ firstRun }: IncidentRef): Promise<Opened[]> {
    const all = await effectsOf(deps.database, { operation: 'openDoor', undo: 'endHold' });
    return all.flatMap(({ key, record }) => (key.startsWith(`${firstRun}:`) ? [Opened.parse(record)] : []));
  }

  async function heldByDoors(ref: IncidentRef): Promise<string[]> {
    const held: string[] = [];
    for (const opened of await doorsOf(ref)) held.push(...(await arrivals(deps.database, opened)));
    return held;
  }

  async function rowsOfNode(peer: PeerRef, nodeId: string): Promise<string[]> {
    const rows = (await readPeers(deps.database)).filter(({ node_id: of }) => of === nodeId && peer.nodeIds.includes(of));
    return rows.map(({ id }) => id);
  }

  async function show(ref: IncidentRef, opened: Opened, ids: readonly string[]): Promise<string[]> {
    const shown: string[] = [];
    for (let from = 0; from < ids.length; from += suppressAtOnce) {
      const effect = effectOf(ref, 'testPull', 'showArrivals', `${opened.key} ${ref.at} from ${from}`);
      const { record } = await showArrivals(deps.database, effect, opened, ids.slice(from, from + suppressAtOnce));
      shown.push(...record.shown);
      beat({ shown: shown.length });
    }
    return shown;
  }

  /** Without the hold nothing keeps the node from making cards of what it held back. */
  async function cover(ref: IncidentRef, held: readonly string[]): Promise<void> {
    for (let from = 0; from < held.length; from += cardsAtOnce) {
      const effect = effectOf(ref, 'liftFences', 'coverCards', `held ${ref.at} from ${from}`);
      await coverCards(deps.database, effect, held.slice(from, from + cardsAtOnce));
      beat();
    }
  }

  /** Waits out the page that another door was shut on, unless this one was opened before. */
  async function pageOver(key: string): Promise<void> {
    const { database } = deps;
    const signal = cancelSignal();
    if ((await recorded(database, key, Opened)) !== undefined) return;
    while (Date.now() < (await opensNext(database))) await sleep(everyMs, undefined, { signal });
  }

  async function held(opened: Opened, expect: number | undefined): Promise<Closed> {
    const { database } = deps;
    const signal = cancelSignal();
    for (;;) {
      const before = await closedDoor(database, opened);
      if (before !== undefined) return before;
      const now = await lookAtDoor(database, opened);
      const isOver = Date.now() >= Date.parse(opened.until);
      // Shut without a word of ours: the bound in the database was reached.
      const isAllThere = expect !== undefined && now.arrived >= expect && hasMoved(opened.cursors, now.cursors);
      if (signal.aborted || isOver || isAllThere || !now.open)
        return (await closeDoor(database, opened, signal.aborted ? 'cancelled' : isAllThere ? 'expected' : 'time')).record;
      beat({ arrived: now.arrived });
      await sleep(everyMs, undefined, { signal }).catch(() => undefined);
    }
  }
}

function hasMoved(before: Opened['cursors'], after: Opened['cursors']): boolean {
  return Object.entries(after).some(([peerId, cursor]) => cursor !== (before[peerId] ?? null));
}

/** What is sealed of a door under {@link DoorHeld.evidenceId}. */
export interface DoorSealed {
  readonly opened: Opened;
  readonly closed: Closed;
  readonly ids: readonly string[];
  /** What came through earlier doors, and is held back still. */
  readonly left: readonly string[];
}

interface EndInput {
  readonly ref: IncidentRef;
  readonly approvedInRun: string;
  readonly show?: boolean;
}

interface ShowInput {
  readonly ref: IncidentRef;
  readonly approvedInRun: string;
  /** Evidence id of the judgement. */
  readonly judged: string;
}

function assertBounds(maxFacts: number, ms: number): void {
  if (!Number.isInteger(maxFacts) || maxFacts < 1 || maxFacts > 10_000)
    throw new StepFailure('InvalidInput', `maxFacts: expected 1 to 10000, came ${maxFacts}`);
  if (!(ms >= 1_000 && ms <= longestMs)) throw new StepFailure('InvalidInput', `ms: expected a second to 12 hours, came ${ms}`);
}

async function drilled(deps: HostDeps, ref: IncidentRef, door: string): Promise<DoorHeld> {
  const sealed = await seal(deps, ref, `door ${ref.at}`, 'facts', { ids: [] });
  const none = { cursorBefore: {}, cursorAfter: {}, arrived: 0, closedBy: 'cancelled' } as const;
  return { ...none, done: 0, door, evidenceId: sealed.id, detail: 'DRILL: would open the door', evidence: headOf(sealed) };
}
