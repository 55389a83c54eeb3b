import type { Policy } from '../src/contract/policy.ts';
import type { JudgedFact, Residual } from '../src/contract/schemas.ts';
import type { IncidentRef, PeerRef, PlanRef, StepResult, Undone } from '../src/contract/steps.ts';
import { assertApprovedHere } from './approved.ts';
import { assertBoundNode, headOf, seal, type Deps } from './deps.ts';
import { heldResidual, readPlan } from './facts/plans.ts';
import { undoInOrder } from './facts/undo.ts';
import { readUndone, type UndoLine } from './facts/undo-log.ts';
import { StepFailure } from './failures.ts';
import { askAgain } from './facts/verify.ts';

/** Recover 1 and 2: "Retract facts that are false, unsafe …", "Keep benign facts". Acts only on what was approved in this very run. */
export function recoverActivities(deps: Deps) {
  return {
    /** Undoes the approved plan in its order, within the node's write limit. Once per fact, whatever dies. */
    async undoFacts({
      ref,
      plan,
      approvedInRun,
      from,
    }: {
      ref: IncidentRef;
      plan: PlanRef;
      approvedInRun: string;
      from: number;
    }): Promise<Undone> {
      assertApprovedHere(approvedInRun);
      const { entity_uri: source } = await assertBoundNode(deps, ref);
      const facts = await readPlan(deps, ref, plan);
      const total = facts.length;
      if (ref.mode === 'drill') {
        const detail = `DRILL: would ${countWords(facts)}; nothing was changed`;
        const sealed = await seal(deps, ref, `drill ${plan.planHash}`, 'undone', { drill: true, plan: plan.planHash, detail });
        return { outcome: 'unverified', way: 'none', detail, residual: heldResidual(facts), done: total, total, evidence: headOf(sealed) };
      }
      const byHostOf = await readUndone(deps, ref, plan.planHash);
      const undone = ({ id, action }: JudgedFact): boolean => byHostOf.get(id)?.action === action && byHostOf.get(id)?.outcome !== 'left';
      const waiting = facts.filter((fact) => isForHost(fact) && !undone(fact)).length;
      // Approved in the host worker's way: no other one undoes it, so it waits for the host worker.
      if (waiting > 0)
        throw new StepFailure(
          'HostUnavailable',
          `${waiting} items of the approved plan are for the host worker to suppress or lift, and it has not done so`,
        );
      // What the host worker did is on record already, and takes nothing over HTTP but a statement here and there.
      const overHttp = facts.filter((fact) => !isForHost(fact) || fact.counter === true);
      const byHost = total - overHttp.length;
      const went = await undoInOrder(deps, source ?? ref.nodeId ?? '', { ref, plan, facts: overHttp, from: Math.max(0, from - byHost) });
      const settled = went.done + byHost;
      const lines = [...(await readUndone(deps, ref, plan.planHash)).values()];
      // Of all openings of this round: what an earlier plan left is as residual as what this one leaves.
      const soFar = [...(await readUndone(deps, ref)).values()];
      const amiss = soFar.filter(({ outcome }) => outcome === 'wrong' || outcome === 'refused');
      const tally = {
        plan: plan.planHash,
        total,
        done: settled,
        counts: tallyOf(lines),
        amiss: amiss.slice(0, 200),
        pause: went.pause ?? null,
      };
      const sealed = await seal(deps, ref, `tally ${plan.planHash} ${settled}`, 'undone', tally);
      return {
        outcome: went.pause === undefined && amiss.length === 0 ? 'verified' : 'unverified',
        way: facts.some(isForHost) ? 'host' : 'http',
        detail: `${settled} of ${total} facts settled: ${tallyWords(lines)}`,
        residual: [...heldResidual(soFar), ...amissResidual(amiss)],
        done: settled,
        total,
        ...(went.pause ? { pause: went.pause } : {}),
        evidence: headOf(sealed),
      };
    },

    /** Asks the node again, as an ordinary agent: what of the undone facts still answers, and are our own visible? */
    async verifyUndone({ ref, peer }: { ref: IncidentRef; peer: PeerRef | null; policy: Policy }): Promise<StepResult> {
      return askAgain(deps, ref, peer);
    },
  };
}

/** What HTTP has no way to do. */
function isForHost({ action }: JudgedFact): boolean {
  return action === 'suppress' || action === 'lift';
}

function countWords(facts: readonly JudgedFact[]): string {
  const counts = new Map<string, number>();
  for (const { action } of facts) counts.set(action, (counts.get(action) ?? 0) + 1);
  return counts.size === 0 ? 'do nothing' : [...counts].map(([action, count]) => `${action} ${count}`).join(', ');
}

function tallyOf(lines: readonly UndoLine[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { action, outcome } of lines) {
    const name = outcome === 'left' ? action : `${action} ${outcome}`;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

function tallyWords(lines: readonly UndoLine[]): string {
  const words = Object.entries(tallyOf(lines)).map(([name, count]) => `${name} ${count}`);
  return words.length === 0 ? 'nothing' : words.join(', ');
}

function amissResidual(amiss: readonly UndoLine[]): Residual[] {
  if (amiss.length === 0) return [];
  const first = amiss[0];
  return [
    {
      what: 'facts that could not be undone as approved',
      why: `${first?.id.slice(0, 100) ?? ''}: ${first?.note.slice(0, 300) ?? ''}`,
      count: amiss.length,
    },
  ];
}
