import { activityInfo } from '@temporalio/activity';
import type { Policy } from '../src/contract/policy.ts';
import type { JudgedFact, Residual } from '../src/contract/schemas.ts';
import type { IncidentRef, PeerRef, PlanRef, StepResult, Undone } from '../src/contract/steps.ts';
import { assertBoundNode, headOf, seal, type Deps } from './deps.ts';
import { heldResidual, readPlan } from './facts/plans.ts';
import { undoInOrder } from './facts/undo.ts';
import { readUndone, type UndoLine } from './facts/undo-log.ts';
import { askAgain } from './facts/verify.ts';
import { StepFailure } from './failures.ts';

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
      const run = activityInfo().workflowExecution?.runId;
      if (run !== approvedInRun) {
        throw new StepFailure(
          'PreconditionChanged',
          `approved in run ${approvedInRun}, but this is run ${run ?? 'unknown'}: the history was reset since, so people are asked again`,
        );
      }
      const { entity_uri: source } = await assertBoundNode(deps, ref);
      const facts = await readPlan(deps, ref, plan);
      const total = facts.length;
      if (ref.mode === 'drill') {
        const detail = `DRILL: would ${countWords(facts)}; nothing was changed`;
        const sealed = await seal(deps, ref, `drill ${plan.planHash}`, 'undone', { drill: true, plan: plan.planHash, detail });
        return { outcome: 'unverified', way: 'none', detail, residual: heldResidual(facts), done: total, total, evidence: headOf(sealed) };
      }
      const went = await undoInOrder(deps, source ?? ref.nodeId ?? '', { ref, plan, facts, from });
      const lines = [...(await readUndone(deps, ref, plan.planHash)).values()];
      // Of all openings of this round: what an earlier plan left is as residual as what this one leaves.
      const soFar = [...(await readUndone(deps, ref)).values()];
      const amiss = soFar.filter(({ outcome }) => outcome === 'wrong' || outcome === 'refused');
      const tally = {
        plan: plan.planHash,
        total,
        done: went.done,
        counts: tallyOf(lines),
        amiss: amiss.slice(0, 200),
        pause: went.pause ?? null,
      };
      const sealed = await seal(deps, ref, `tally ${plan.planHash} ${went.done}`, 'undone', tally);
      return {
        outcome: went.pause === undefined && amiss.length === 0 ? 'verified' : 'unverified',
        way: 'http',
        detail: `${went.done} of ${total} facts settled: ${tallyWords(lines)}`,
        residual: [...heldResidual(soFar), ...amissResidual(amiss)],
        done: went.done,
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
