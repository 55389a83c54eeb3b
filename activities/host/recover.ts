import type { HostDone, IncidentRef, PlanRef } from '../../src/contract/steps.ts';
import { cardsAtOnce, coverCards } from '../../src/host/cards.ts';
import { suppressAtOnce, suppressFacts } from '../../src/host/suppress.ts';
import { assertApprovedHere } from '../approved.ts';
import { headOf, seal } from '../deps.ts';
import { readPlan } from '../facts/plans.ts';
import { sealUndone, type UndoLine } from '../facts/undo-log.ts';
import { beat } from '../heartbeat.ts';
import { assertServes, effectOf, type HostDeps } from './deps.ts';

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

    /** The memory cards of what was suppressed or rejected, without it: last, since each statement of ours makes the node build them anew. */
    async coverCards({ ref, plan, approvedInRun }: HostUndoInput): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const facts = (await readPlan(deps, ref, plan)).filter(({ action }) => action === 'suppress' || action === 'reject');
      let cards = 0;
      for (let from = 0; ref.mode !== 'drill' && from < facts.length; from += cardsAtOnce) {
        const ids = facts.slice(from, from + cardsAtOnce).map(({ id }) => id);
        const { record } = await coverCards(deps.database, effectOf(ref, 'undoFacts', 'coverCards', `${ref.at} from ${from}`), ids);
        cards += record.cards;
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
