import { setTimeout as sleep } from 'node:timers/promises';
import type { HostDone, IncidentRef, PeerRef } from '../../src/contract/steps.ts';
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
import { effectsOf, recorded } from '../../src/host/effect.ts';
import { suppressAtOnce } from '../../src/host/suppress.ts';
import { assertApprovedHere } from '../approved.ts';
import { cancelSignal, headOf, seal } from '../deps.ts';
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
  /** The run whose approval this acts on. */
  readonly approvedInRun: string;
  /** Facts that may come in, 1 to 10,000. */
  readonly maxFacts: number;
  readonly ms: number;
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
  const doorOf = async (key: string): Promise<Opened> => {
    const opened = await recorded(deps.database, key, Opened);
    if (opened === undefined) throw new StepFailure('PreconditionChanged', `expected a door that was opened as ${key}, came none`);
    return opened;
  };

  return {
    /**
     * Opens the door for the peer's facts, holds it open until so many came, the time is over or it is cancelled, and
     * shuts it. Whatever comes is held back from facts and recall until {@link showArrivals}. Should this worker die, the
     * database itself ends it at the first fact after the deadline, and the next host worker before it polls.
     */
    async holdDoorOpen({ ref, peer, approvedInRun, maxFacts, ms }: DoorInput): Promise<DoorHeld> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      assertBounds(maxFacts, ms);
      const { database } = deps;
      const effect = effectOf(ref, 'testPull', 'openDoor', `${approvedInRun} ${ref.at}`);
      await seal(deps, ref, `door before ${ref.at}`, 'peers', { peerIds: peer.peerIds, maxFacts, ms });
      if (ref.mode === 'drill') return drilled(deps, ref, effect.key);
      await pageOver(effect.key);
      const { record: opened } = await openDoor(database, effect, { ids: peer.peerIds, ms, maxFacts });
      const closed = await held(opened);
      const ids = await arrivals(database, opened);
      const sealed = await seal(deps, ref, `door ${ref.at}`, 'facts', { opened, closed, ids });
      const shut = closed.statuses.every((status) => status === 'revoked');
      if (!shut)
        throw new StepFailure(
          'PreconditionChanged',
          `peers.status: expected revoked after the door was shut, came ${closed.statuses.join(', ')}`,
        );
      return {
        done: ids.length,
        door: opened.key,
        arrived: ids.length,
        evidenceId: sealed.id,
        cursorBefore: opened.cursors,
        cursorAfter: closed.cursors,
        closedBy: closed.by,
        detail: `${ids.length} facts came in and are held back; shut by ${closed.by}, and the row reads revoked`,
        evidence: headOf(sealed),
      };
    },

    /** Shows what was judged good of what came through that door. */
    async showArrivals({ ref, approvedInRun, door, ids }: DoorRef & { readonly ids: readonly string[] }): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const opened = await doorOf(door);
      const shown: string[] = [];
      for (let from = 0; ref.mode !== 'drill' && from < ids.length; from += suppressAtOnce) {
        const effect = effectOf(ref, 'testPull', 'showArrivals', `${door} ${ref.at} from ${from}`);
        const { record } = await showArrivals(deps.database, effect, opened, ids.slice(from, from + suppressAtOnce));
        shown.push(...record.shown);
        beat({ shown: shown.length });
      }
      const sealed = await seal(deps, ref, `arrivals shown ${ref.at}`, 'facts', { door, shown });
      const left = ids.length - shown.length;
      return {
        done: shown.length,
        detail: `${shown.length} facts that came through the door are shown`,
        residual: left > 0 ? [{ what: 'facts that were to be shown', why: 'the door holds no such fact back', count: left }] : [],
        evidence: headOf(sealed),
      };
    },

    /** Takes the holds of all doors of this incident out of the node's database: before full trust, or when it ends. */
    async endHolds({ ref, approvedInRun }: Pick<DoorRef, 'ref' | 'approvedInRun'>): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const doors = (await effectsOf(deps.database, { operation: 'openDoor', undo: 'endHold' })).filter(({ key }) =>
        key.startsWith(`${ref.firstRun}:`),
      );
      const held: string[] = [];
      for (const { key } of ref.mode === 'drill' ? [] : doors) held.push(...(await endHold(deps.database, await doorOf(key))).record.held);
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

  /** Waits out the page that another door was shut on, unless this one was opened before. */
  async function pageOver(key: string): Promise<void> {
    const { database } = deps;
    const signal = cancelSignal();
    if ((await recorded(database, key, Opened)) !== undefined) return;
    while (Date.now() < (await opensNext(database))) await sleep(everyMs, undefined, { signal });
  }

  async function held(opened: Opened): Promise<Closed> {
    const { database } = deps;
    const signal = cancelSignal();
    for (;;) {
      const before = await closedDoor(database, opened);
      if (before !== undefined) return before;
      const now = await lookAtDoor(database, opened);
      const isOver = Date.now() >= Date.parse(opened.until);
      // Shut without a word of ours: the bound in the database was reached.
      if (signal.aborted || isOver || !now.open) return (await closeDoor(database, opened, signal.aborted ? 'cancelled' : 'time')).record;
      beat({ arrived: now.arrived });
      await sleep(everyMs, undefined, { signal }).catch(() => undefined);
    }
  }
}

export interface DoorRef {
  readonly ref: IncidentRef;
  readonly approvedInRun: string;
  /** As {@link DoorHeld} names it. */
  readonly door: string;
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
