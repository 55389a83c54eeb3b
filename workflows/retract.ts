import { condition, patched } from '@temporalio/workflow';
import { spanWords } from '../src/contract/duration.ts';
import { factActions } from '../src/contract/names.ts';
import type { Pause, PlanRef, StepResult, Undone } from '../src/contract/steps.ts';
import { answerAmendment, askPeople } from './ask.ts';
import { digestOf, namesOpening, type GatePlan } from './gates.ts';
import { listed, lookForHost, viaHost } from './host.ts';
import type { Incident } from './incident.ts';
import { holdNewAlerts } from './notices.ts';
import { collect, undo } from './policies.ts';
import { failureTypeOf } from './explain.ts';
import { insist, step } from './steps.ts';

/**
 * Recover 1 and 2, behind the gate: asks about the plan until people have decided all of it, makes it again
 * right before acting, undoes what was approved and has not changed, and asks the node again.
 */
export async function retractWhatIsApproved(incident: Incident): Promise<void> {
  const { state } = incident;
  while (!incident.isDone('undoFacts')) {
    if (state.go) {
      await undoApproved(incident, state.go);
      continue;
    }
    if (state.approved) {
      await makeAgain(incident, state.approved);
      continue;
    }
    const plan = state.plan;
    if (plan && actionable(plan) === 0 && state.undoneBefore && patched('undone-in-parts')) {
      incident.record('undoFacts', state.undoneBefore);
      break;
    }
    if (!plan || actionable(plan) === 0) {
      const detail = plan
        ? `nothing to undo: ${plan.total} facts judged, none proposed for undoing`
        : 'nothing to undo: no plan, assess was skipped';
      incident.record('undoFacts', { outcome: plan ? 'verified' : 'unverified', way: 'none', detail });
      incident.shut('retract');
      return;
    }
    // Rejected before continue-as-new: it still holds.
    const answer = incident.gate('retract')?.held ? 'rejected' : await askPeople(incident, 'retract', gatePlan(plan));
    if (answer === 'amended') await narrow(incident, plan);
    // Kept in the state: a switch to a new run while the plan is made again must not lose it.
    if (answer === 'approved') state.approved = { plan: named(plan), inRun: state.recordedRun };
    if (answer === 'rejected') await holdRejected(incident);
  }
  incident.shut('retract');
  await step(incident, 'verifyUndone', ({ ref }) => collect.verifyUndone({ ref, peer: state.peer, policy: state.policy }));
}

/** "Keep benign facts if you can justify them": people may only narrow the plan; that makes a new opening. */
async function narrow(incident: Incident, plan: PlanRef): Promise<void> {
  const queued = incident.amendments[0];
  if (!queued) return;
  const { amendment, run } = queued;
  const asked = incident.gate('retract');
  if (!asked || !namesOpening(asked, amendment.digest, incident.runs)) {
    const digest = asked && digestOf(asked, incident.runs.current);
    return answerAmendment(incident, { accepted: false, refusedBecause: 'stale_digest', ...(digest === undefined ? {} : { digest }) });
  }
  const narrowed = await insist(incident, 'assess', ({ ref }) =>
    collect.narrowPlan({ ref, plan: named(plan), keep: amendment.keep, by: amendment.by }),
  );
  if (!narrowed) return answerAmendment(incident, { accepted: false, refusedBecause: 'not_open' });
  incident.absorb(narrowed);
  if (narrowed.run !== run) {
    await incident.confirmRun();
    return answerAmendment(incident, { accepted: false, refusedBecause: 'stale_digest', detail: 'given before a reset' });
  }
  if (!narrowed.plan) {
    const detail = `not in the plan with an action to narrow: ${narrowed.unknown.slice(0, 5).join(', ')}`;
    return answerAmendment(incident, { accepted: false, refusedBecause: 'would_widen', detail });
  }
  incident.state.plan = narrowed.plan;
  const open = incident.open('retract', gatePlan(narrowed.plan));
  answerAmendment(incident, { accepted: true, digest: digestOf(open, incident.runs.current) });
}

/** Right before acting the plan is made again up to its cut: what changed, and what came after, is asked about anew. */
async function makeAgain(incident: Incident, { plan, inRun }: NonNullable<typeof incident.state.approved>): Promise<void> {
  const { state } = incident;
  await holdNewAlerts(incident);
  await lookForHost(incident);
  const remade = await insist(incident, 'assess', async ({ ref }) => {
    const host = state.host ? { host: true, ...(await listed(incident)) } : {};
    return collect.remakePlan({ ref, peer: state.peer, policy: state.policy, firstBad: state.firstSaid, approved: plan, ...host });
  });
  state.approved = null;
  if (!remade) return;
  incident.absorb(remade);
  state.go = { plan: named(remade.go), approvedInRun: inRun, done: 0 };
  state.next = remade.next;
}

async function undoApproved(incident: Incident, go: NonNullable<typeof incident.state.go>): Promise<void> {
  const { state } = incident;
  const undone = await insist(incident, 'undoFacts', async ({ ref }) => {
    try {
      // The host worker's way costs no writes, so it comes first; without it undoFacts says that it waits for that.
      const { suppress = 0, reject = 0, lift = 0 } = go.plan.counts;
      if (!state.host && suppress + lift > 0) await lookForHost(incident);
      const approved = { ref, plan: named(go.plan), approvedInRun: go.approvedInRun };
      if (suppress > 0 && go.done === 0) await viaHost(incident, ({ long }) => long.suppressFacts({ ...approved, action: 'suppress' }));
      if (lift > 0 && go.done === 0) await viaHost(incident, ({ long }, peer) => long.liftTombstones({ ...approved, peer }));
      const went = await undo.undoFacts({ ...approved, from: go.done });
      if (went.pause) return went;
      // Rejecting leaves hidden what the fact hid, and sets an override of its own: so those after it.
      if (reject > 0) await viaHost(incident, ({ long }) => long.suppressFacts({ ...approved, action: 'reject' }));
      if (suppress + reject === 0) return went;
      const cards = await viaHost(incident, ({ long }) => long.coverCards(approved));
      return { ...went, residual: [...(went.residual ?? []), ...(cards?.residual ?? [])] };
    } catch (error) {
      // Approved in another run: this history was reset after the approval, so people are asked again.
      if (failureTypeOf(error) === 'PreconditionChanged') return 'ask again' as const;
      throw error;
    }
  });
  if (undone === 'ask again' || undone === undefined) {
    state.go = null;
    if (state.pending.undoFacts?.kind === 'paced') incident.resume('undoFacts');
    if (undone) await incident.confirmRun();
    return;
  }
  incident.absorb(undone);
  if (undone.pause) {
    state.go = { ...go, done: undone.done };
    await waitForQuota(incident, undone, undone.pause);
    return;
  }
  if (state.pending.undoFacts) incident.resume('undoFacts');
  state.go = null;
  const all = together(state.undoneBefore, undone);
  if (state.next) {
    state.undoneBefore = all;
    state.plan = state.next;
    state.next = null;
  } else incident.record('undoFacts', all);
}

/** What was undone under this opening, and under those before it: as good as the worst of them. */
function together(
  before: typeof Incident.prototype.state.undoneBefore,
  { outcome, way, detail, residual = [] }: StepResult,
): NonNullable<typeof before> {
  if (!before) return { outcome, way, detail, residual };
  return {
    outcome: before.outcome === 'verified' ? outcome : before.outcome,
    way,
    detail: `${before.detail}; then ${detail}`,
    residual: [...(before.residual ?? []), ...residual],
  };
}

/** The node takes only so many writes an hour, and a fence must always find room: the rest waits, for days if need be. */
async function waitForQuota(incident: Incident, { done, total }: Undone, pause: Pause): Promise<void> {
  const until = new Date(Date.now() + pause.ms).toISOString();
  const where = `${done} of ${total} facts are done${finishWords(pause)}`;
  incident.wait({
    step: 'undoFacts',
    kind: 'paced',
    why: `${where}. ${pause.why}`,
    how: `Nothing to do: it goes on at ${until}. cordon retry <incident> undoFacts --by <you> goes on at once.`,
  });
  const about = ({ step: name }: { readonly step: string }) => name === 'undoFacts';
  for (let word: string | undefined = ''; word !== undefined && word !== 'retry';) {
    await condition(() => incident.commands.some(about), Math.max(1, Date.parse(until) - Date.now()));
    const command = incident.takeCommand(about);
    word = command?.do;
    if (command && word !== 'retry')
      incident.note('cordon', `undoFacts: ${command.by} sent ${command.do}, but it only waits for the write quota: use retry, or close`);
  }
  // Thousands of facts pause a dozen times: memo and search attributes are written for the first of them only.
  if (!patched('paced-until-done')) return incident.resume('undoFacts');
  const why = `${where}; the next are being undone.`;
  incident.wait({ step: 'undoFacts', kind: 'paced', why, how: 'Nothing to do: it goes on by itself.' });
}

/** When the last one is done, by the pace so far. What was recorded without it says nothing. */
function finishWords({ ms, restMs }: Pause): string {
  if (restMs === undefined) return '';
  const at = new Date(Date.now() + ms + restMs).toISOString();
  return `; at the pace so far the rest takes until about ${at.slice(0, '2026-11-23T01:00'.length)}Z (${spanWords(ms + restMs)})`;
}

/** Rejected: nothing is undone. Holds until people amend, retry or close. */
async function holdRejected(incident: Incident): Promise<void> {
  const open = incident.gate('retract');
  if (!open) return;
  const by = open.votes.find((vote) => vote.decision === 'reject')?.by ?? 'people';
  incident.setGate({ ...open, held: true });
  incident.wait({
    step: 'undoFacts',
    kind: 'held',
    why: `The plan was rejected by ${by}: nothing is undone.`,
    how: 'cordon amend <incident> …, cordon retry <incident> undoFacts --by <you> (asks again), or cordon close <incident> ….',
  });
  for (;;) {
    await condition(() => incident.amendments.length > 0 || incident.commands.some(({ step: name }) => name === 'undoFacts'));
    const run = await incident.confirmRun();
    const command = incident.takeCommand(({ step: name }) => name === 'undoFacts');
    if (command && command.run !== run) incident.refuse('stale_run', command.by, `${command.do} undoFacts: given before a reset`);
    else if (command?.do === 'skip') {
      const before = incident.state.undoneBefore;
      const detail = `skipped by ${command.by}: ${command.note || 'no reason given'}; ${before ? `before that: ${before.detail}` : 'nothing was undone'}`;
      incident.record('undoFacts', {
        outcome: 'unverified',
        way: 'none',
        detail,
        ...(before?.residual ? { residual: before.residual } : {}),
      });
      break;
    } else if (command?.do === 'retry') {
      if (incident.state.plan) incident.open('retract', gatePlan(incident.state.plan));
      break;
    } else if (command) incident.note('cordon', `undoFacts: ${command.by} says it is done; amend the plan to what is left, or skip`);
    else if (incident.state.plan) {
      const opening = incident.gate('retract')?.opening;
      await narrow(incident, incident.state.plan);
      if (incident.gate('retract')?.opening !== opening) break;
    }
  }
  incident.resume('undoFacts');
}

function actionable(plan: PlanRef): number {
  return Object.entries(plan.counts).reduce((sum, [action, count]) => (action === 'keep' || action === 'hold' ? sum : sum + count), 0);
}

/** A plan as activities take it: they read the sealed one, and history has its items once, where it was made. */
function named(plan: PlanRef): PlanRef {
  const { items: _shown, ...named } = plan;
  return named;
}

function gatePlan(plan: PlanRef): GatePlan {
  const counts: Record<string, number> = { ...plan.counts };
  const summary = factActions.flatMap((action) => (counts[action] === undefined ? [] : [`${action} ${counts[action]}`])).join(', ');
  return { planHash: plan.planHash, counts, summary, evidenceId: plan.evidenceId, ...(plan.items ? { items: plan.items } : {}) };
}
