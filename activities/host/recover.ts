import type { JudgedFact } from '../../src/contract/schemas.ts';
import type { HostDone, IncidentRef, PeerRef, PlanRef } from '../../src/contract/steps.ts';
import { cardsAtOnce, coverCards } from '../../src/host/cards.ts';
import { suppressAtOnce, suppressFacts } from '../../src/host/suppress.ts';
import { liftTombstones, readTombstones } from '../../src/host/tombstones.ts';
import { tripleKey } from '../../src/policy/facts.ts';
import { assertApprovedHere } from '../approved.ts';
import { headOf, seal } from '../deps.ts';
import { readPlan } from '../facts/plans.ts';
import { sealUndone, type UndoLine } from '../facts/undo-log.ts';
import { beat } from '../heartbeat.ts';
import { assertServes, effectOf, signerOf, type HostDeps } from './deps.ts';

/** Changes between two seals. */
const changesAtOnce = 10;

interface HostUndoInput {
  readonly ref: IncidentRef;
  readonly plan: PlanRef;
  readonly approvedInRun: string;
}

/** Recover 1, on the node's own machine. Acts only on what was approved in this very run. */
export function hostRecoverActivities(deps: HostDeps) {
  return {
    /**
     * Lets the facts of the approved plan expire that it suppresses, or those that it rejected: out of facts and direct
     * recall, and ours on the same triple shown again. No write of the node's hourly quota is spent.
     */
    async suppressFacts({
      ref,
      plan,
      approvedInRun,
      action: wanted,
    }: HostUndoInput & { readonly action: 'suppress' | 'reject' }): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const facts = (await readPlan(deps, ref, plan)).filter(({ action }) => action === wanted);
      if (ref.mode === 'drill') {
        const sealed = await sealUndone(deps, ref, plan.planHash, 'host drill', []);
        return { done: 0, detail: `DRILL: would suppress ${facts.length} facts`, evidence: headOf(sealed) };
      }
      let sealed = await sealUndone(deps, ref, plan.planHash, `host ${wanted}`, []);
      let [done, missing] = [0, 0];
      for (let from = 0; from < facts.length; from += suppressAtOnce * changesAtOnce) {
        const lines: UndoLine[] = [];
        const chunk = facts.slice(from, from + suppressAtOnce * changesAtOnce);
        for (let at = 0; at < chunk.length; at += suppressAtOnce) {
          const some = chunk.slice(at, at + suppressAtOnce);
          // Of the plan, not of the attempt: the same stretch is the same change however often it is asked for.
          const effect = effectOf(ref, 'undoFacts', 'suppressFacts', `${plan.planHash} ${wanted} from ${from + at}`);
          const { record } = await suppressFacts(
            deps.database,
            effect,
            some.map(({ id }) => id),
          );
          const gone = new Set(record.missing);
          for (const { id, entity, relation, scope, action } of some) {
            if (gone.has(id))
              lines.push({ id, entity, relation, scope, action, outcome: 'refused', note: 'the database has no such fact' });
            // Rejecting is done over HTTP, and is on record there.
            else if (action === 'suppress')
              lines.push({ id, entity, relation, scope, action, outcome: 'done', note: 'expired on the host', at: ref.at });
          }
          missing += gone.size;
          done += some.length - gone.size;
          beat({ suppressed: done });
        }
        if (lines.length > 0) sealed = await sealUndone(deps, ref, plan.planHash, `host ${wanted} from ${from}`, lines);
      }
      return { done, detail: `${done} facts expired on the host${missing > 0 ? `, ${missing} not there` : ''}`, evidence: headOf(sealed) };
    },

    /** Lifts the tombstones of the approved plan that it lifts, and reads back from the database that none of them counts any more. */
    async liftTombstones({ ref, peer, plan, approvedInRun }: HostUndoInput & { readonly peer: PeerRef }): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const wanted = (await readPlan(deps, ref, plan)).filter(({ action }) => action === 'lift');
      const ids = new Set(wanted.map(({ id }) => id));
      const signer = signerOf(peer);
      const before = (await readTombstones(deps.database, signer)).filter(({ id }) => ids.has(id));
      const sealed = await seal(deps, ref, `tombstones before ${plan.planHash}`, 'tombstones', before);
      if (ref.mode === 'drill') return { done: 0, detail: `DRILL: would lift ${wanted.length} tombstones`, evidence: headOf(sealed) };
      // Of the plan, not of the attempt: the same again lifts nothing twice.
      const { record } = await liftTombstones(deps.database, effectOf(ref, 'undoFacts', 'liftTombstones', plan.planHash), signer, ids);
      const lifted = new Set(record.ids);
      const standing = new Set((await readTombstones(deps.database, signer)).map(({ id }) => id));
      const lines = wanted.map(({ id, entity, relation, scope, action }): UndoLine => {
        const base = { id, entity, relation, scope, action, at: ref.at };
        if (standing.has(id)) return { ...base, outcome: 'wrong', note: 'its revocation was written, and it still counts' };
        return lifted.has(id)
          ? { ...base, outcome: 'done', note: 'lifted on the host' }
          : { ...base, outcome: 'refused', note: 'the database has no such tombstone that counts' };
      });
      const after = await sealUndone(deps, ref, plan.planHash, 'host lift', lines);
      const done = lines.filter(({ outcome }) => outcome === 'done').length;
      return { done, detail: `${done} of ${wanted.length} tombstones lifted on the host, read back`, evidence: headOf(after) };
    },

    /** The memory cards of what was suppressed or rejected, without it: last, since each statement of ours makes the node build them anew. */
    async coverCards({ ref, plan, approvedInRun }: HostUndoInput): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const placeOf = ({ entity, scope }: JudgedFact): string => tripleKey(entity, '', scope);
      // Those of one card beside each other: else each of hundreds of changes would write nearly all cards again.
      const facts = (await readPlan(deps, ref, plan))
        .filter(({ action }) => action === 'suppress' || action === 'reject')
        .map((fact) => ({ id: fact.id, place: placeOf(fact) }))
        .toSorted((a, b) => (a.place < b.place ? -1 : a.place > b.place ? 1 : 0));
      let cards = 0;
      for (let from = 0; ref.mode !== 'drill' && from < facts.length; from += cardsAtOnce) {
        const some = facts.slice(from, from + cardsAtOnce);
        const effect = effectOf(ref, 'undoFacts', 'coverCards', `${ref.at} by card from ${from}`);
        const { record } = await coverCards(
          deps.database,
          effect,
          some.map(({ id }) => id),
        );
        const isGoingOn = record.cards > 0 && facts[from - 1]?.place === some[0]?.place;
        cards += record.cards - (isGoingOn ? 1 : 0);
        beat({ cards });
      }
      const sealed = await seal(deps, ref, `cards ${plan.planHash}`, 'undone', { cards });
      const what = 'memory cards of what was suppressed';
      const why =
        'written without it on the host; the node builds one anew from raw rows after the next write on its entity, or when asked with refresh, and where no counter-statement makes it contradictory recall gives it again';
      return {
        done: cards,
        detail: `${cards} memory cards written without them`,
        residual: cards > 0 ? [{ what, why, count: cards }] : [],
        evidence: headOf(sealed),
      };
    },
  };
}
