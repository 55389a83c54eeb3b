import { condition, patched } from '@temporalio/workflow';
import { closureHash, type ClosedAs, type Closure } from '../src/contract/closing.ts';
import { stepsByPhase, type Outcome, type Step } from '../src/contract/names.ts';
import type { CloseRequest, IncidentResult } from '../src/contract/schemas.ts';
import { earlierFence, type HostDone, type IncidentRef, type PeerRef, type Sealed, type StepResult } from '../src/contract/steps.ts';
import { answerAmendment, askPeople } from './ask.ts';
import type { GatePlan } from './gates.ts';
import { fenceAgain } from './contain.ts';
import { didOnHost, lookForHost, onHost, viaHost, type HostWays } from './host.ts';
import type { Incident } from './incident.ts';
import { holdNewAlerts, notices } from './notices.ts';
import { collect, mutate, read } from './policies.ts';
import { startSealing } from './seal-history.ts';
import { residualOf } from './status.ts';
import { failureTypeOf } from './explain.ts';
import { insist, step } from './steps.ts';
import { tellClosed } from './tell.ts';
import { nodeThatReturns } from './test-pull.ts';

/** How the runbook came to its end. `switch`: it goes on in the next run. */
export type Closing = 'switch' | { readonly duplicateOf: string } | { readonly closedAs: ClosedAs };

/** Someone asks to close: expelled waits at gate `close`, dismissed at gate `restore`, since it opens doors again. */
export async function closeDesk(incident: Incident, outcome: CloseRequest['outcome']): Promise<Closing> {
  const { state } = incident;
  const gate = gateOf(outcome);
  for (;;) {
    if (!state.closeAsked[outcome]) {
      await condition(() => incident.closeRequests.some((asked) => asked.outcome === outcome));
      const index = incident.closeRequests.findIndex((asked) => asked.outcome === outcome);
      const [asked] = incident.closeRequests.splice(index, 1);
      if (!asked) continue;
      const { runNamed, ...request } = asked;
      if (runNamed !== (await incident.confirmRun())) {
        incident.refuse('stale_run', request.by, `close ${outcome}: asked before a reset`);
        continue;
      }
      state.closeAsked = { ...state.closeAsked, [outcome]: request };
    }
    const request = state.closeAsked[outcome];
    if (!request) continue;
    const answer = await askPeople(incident, gate, closePlan(incident, request), { requestedBy: request.by });
    state.closeAsked = { ...state.closeAsked, [outcome]: undefined };
    if (answer === 'approved') {
      state.closing = { ...request, approvedInRun: state.recordedRun };
      return { closedAs: outcome };
    }
    incident.shut(gate);
  }
}

function gateOf(outcome: ClosedAs): 'close' | 'restore' {
  return outcome === 'expelled' ? 'close' : 'restore';
}

/** What people are asked before an incident ends as that. */
export function closePlan(incident: Incident, closure: Closure): GatePlan {
  const { outcome, by, reason } = closure;
  const residual = residualOf(incident.state).length;
  const lifts = incident.state.warnings.some((warning) => warning.includes(earlierFence))
    ? 'lift what containment did, in order, and the fence that an earlier incident had left'
    : 'lift what containment did, in order';
  const probation = incident.state.policy.probation === true ? ', but keep the trust rules: it is on probation' : '';
  const does = {
    expelled: 'leave every fence in place for good',
    dismissed: lifts,
    restored: `full trust: take off the rest of containment${probation}; keys and tokens stay revoked, and what was undone stays undone`,
  }[outcome];
  return {
    planHash: closureHash(closure),
    counts: { close: 1 },
    summary: `close as ${outcome}: ${does}; ${residual} residual risks stay. Asked by ${by}: ${reason}`.slice(0, 1_000),
    items: [{ id: outcome, entity: '', relation: '', scope: '', action: 'close', way: 'none', rule: 'close', reason, evidence: [] }],
  };
}

/** Ends the incident: what the outcome still needs, the final evidence, the report. */
export async function close(incident: Incident, ending: Exclude<Closing, 'switch'>): Promise<IncidentResult> {
  const { state } = incident;
  const outcome = 'duplicateOf' in ending ? 'duplicate' : ending.closedAs;
  turnAway(incident);
  if (outcome === 'expelled') recordNotDone(incident);
  if (outcome === 'dismissed') recordCutOff(incident);
  state.pending = {};
  state.gates = {};
  if (outcome === 'dismissed' || outcome === 'restored') await undoContainment(incident);
  if (outcome === 'expelled') await shutForGood(incident);
  if (outcome === 'expelled' && state.peer) await notices(incident);
  if (outcome !== 'duplicate') await holdNewAlerts(incident);
  let sealed: Sealed | undefined;
  do {
    await approvedInThisRun(incident);
    sealed = await sealAs(incident, outcome);
    // A reset meanwhile voids the approval all the same: what was sealed under it is no end, and is sealed anew.
  } while (await wasApprovedElsewhere(incident));
  // The run as history has it: a reset copy has to start the same child.
  await startSealing(await incident.confirmRun());
  turnAway(incident);
  incident.publish();
  await condition(() => incident.isAllSettled());
  const residual = residualOf(state);
  tellClosed(state, outcome, residual.length, incident.now());
  return { outcome, residual, evidenceHead: state.evidence.head, report: sealed?.report ?? '' };
}

/** The final evidence and the report; then the peer is let go. */
async function sealAs(incident: Incident, outcome: Outcome): Promise<Sealed | undefined> {
  const { state } = incident;
  state.outcome = outcome;
  incident.enter('closed');
  const sealed = await insist(incident, 'seal', ({ ref }) =>
    collect.seal({
      ref,
      outcome,
      ...(state.closing ? { closing: state.closing } : {}),
      status: { ...incident.snapshot(), state: 'closed', waitingFor: [] },
      alerts: state.heldAlerts,
      ours: state.ourNode,
      peer: state.peer,
    }),
  );
  if (sealed) {
    incident.absorb(sealed);
    incident.record('seal', sealed);
  }
  const { peer, ourNode } = state;
  if (incident.mode === 'live' && peer && ourNode) {
    await insist(incident, 'seal', ({ ref }) => read.releasePeer({ ref, peer, ourNodeId: ourNode.nodeId }));
  }
  return sealed;
}

/** What was asked and not served when the incident closes is refused on record. */
function turnAway(incident: Incident): void {
  while (incident.amendments.length > 0) answerAmendment(incident, { accepted: false, refusedBecause: 'closed' });
  for (const { by, do: what, step: name } of incident.commands.splice(0)) incident.refuse('closed', by, `${what} ${name}`);
  for (const { by, outcome } of incident.closeRequests.splice(0)) incident.refuse('closed', by, `close ${outcome}`);
}

/** Expelled before the page was done: what was never done is residual risk, not silence. */
function recordNotDone(incident: Incident): void {
  const { identify, contain, investigate, retract } = stepsByPhase;
  for (const name of [...identify, ...contain, ...investigate, ...retract]) {
    if (incident.isDone(name)) continue;
    const why = whyNotDone(incident, name);
    incident.record(name, {
      outcome: 'unverified',
      way: 'none',
      detail: `not done when the incident was closed${why === undefined ? '' : `: ${why}`}`,
    });
  }
}

function whyNotDone({ state }: Incident, name: Step): string | undefined {
  const before = name === 'undoFacts' ? state.undoneBefore?.detail : undefined;
  return before === undefined ? state.pending[name]?.why : `in part: ${before}`;
}

/** Dismissed while a step was under way or stuck: a notice may be out all the same, so the report must not be silent about it. */
function recordCutOff(incident: Incident): void {
  // Asking the peer for its keys has no effect that could be left half done.
  const cutOff = (incident.state.begun ?? []).filter((name) => name !== 'verifyKeys' && !incident.isDone(name));
  if (cutOff.length === 0 || !patched('cut-off-is-told')) return;
  for (const name of cutOff) {
    const why = whyNotDone(incident, name) ?? 'it was under way';
    const detail = `not finished when the incident was dismissed, and may have taken effect in part: ${why}`;
    incident.record(name, { outcome: 'unverified', way: 'none', detail });
  }
}

/** An approval counts in the run it was given in: after a reset people are asked again, until they approve. */
async function approvedInThisRun(incident: Incident): Promise<void> {
  const { state } = incident;
  while (state.closing && (await wasApprovedElsewhere(incident))) {
    state.outcome = null;
    const { approvedInRun: _void, ...request } = state.closing;
    const gate = gateOf(request.outcome);
    const asked = request.outcome === 'restored' ? {} : { requestedBy: request.by };
    const answer = await askPeople(incident, gate, closePlan(incident, request), asked);
    if (answer === 'approved') state.closing = { ...request, approvedInRun: state.recordedRun };
    else incident.shut(gate);
  }
}

async function wasApprovedElsewhere(incident: Incident): Promise<boolean> {
  const { closing } = incident.state;
  return closing !== null && closing.approvedInRun !== (await incident.confirmRun());
}

/** Expelled while it was in again: shut first. What a test pull held back stays so, without its hold in the node's database. */
async function shutForGood(incident: Incident): Promise<void> {
  const { state } = incident;
  if (state.watch) await fenceAgain(incident);
  state.watch = null;
  if (state.doorOpened !== true) return;
  const approvedInRun = state.closing?.approvedInRun ?? '';
  await viaHost(incident, ({ long }) => long.endHolds({ ref: incident.ref(), approvedInRun }));
}

/** Dismissed or restored: lifts what containment did, in order, each read back; what stays is listed. */
async function undoContainment(incident: Incident): Promise<void> {
  const { state } = incident;
  const { peer } = state;
  if (!peer) return;
  incident.enter('restore');
  await lookForHost(incident);
  await whileApproved(
    incident,
    'restoreTrust',
    withHost(incident, (ways, of) => restoreOnHost(incident, ways, of), mutate.restoreTrust),
  );
  const resumed = withHost(incident, ({ quick }, of) => quick.resumePromotionJob(of), mutate.resumePromotion);
  await whileApproved(incident, 'resumePromotion', resumed);
  // Last, because from here on the peer delivers again.
  await whileApproved(
    incident,
    'liftFences',
    withHost(incident, ({ quick }, of) => quick.reinstatePeers(of), mutate.liftFences),
  );
  state.pending = {};
}

/** Holds of test pulls go first: what is held back still is shown where it was a false alarm. */
async function restoreOnHost({ state }: Incident, { long }: HostWays, of: OnHost): Promise<HostDone> {
  const { ref, approvedInRun } = of;
  const ended = state.doorOpened === true ? await long.endHolds({ ref, approvedInRun, show: of.restored === undefined }) : undefined;
  const done = await long.restoreOnHost(of);
  return ended ? { ...done, residual: [...(ended.residual ?? []), ...(done.residual ?? [])] } : done;
}

/** What the host worker did nobody else can undo: the step waits for it. */
function withHost(incident: Incident, act: (ways: HostWays, of: OnHost) => Promise<HostDone>, lift: Lift): Lift {
  return async (of) => {
    const { ref, readBack, approvedInRun } = of;
    const needed = didOnHost(incident);
    const { state } = incident;
    const only = state.closing?.outcome === 'restored' ? nodeThatReturns(incident) : undefined;
    const restored = only === undefined ? {} : { restored: { nodeIds: [only], keepTrustRules: state.policy.probation === true } };
    const host = needed
      ? await onHost(incident, 'what it did in this incident is undone by it alone', (ways) =>
          act(ways, { ref, readBack, approvedInRun, ...restored }),
        )
      : undefined;
    return lift({ ...of, ...(host ? { host } : {}), ...(only === undefined ? {} : { only }) });
  };
}

interface Lifting {
  readonly ref: IncidentRef;
  readonly readBack: boolean;
  readonly approvedInRun: string;
}
type OnHost = Lifting & { readonly restored?: { readonly nodeIds: readonly string[]; readonly keepTrustRules: boolean } };
type Lift = (of: Lifting & { readonly peer: PeerRef | null; readonly host?: HostDone; readonly only?: string }) => Promise<StepResult>;

/** A step that opens a door acts only on an approval of its own run: a reset after the approval asks people again. */
async function whileApproved(incident: Incident, name: Step, lift: Lift): Promise<void> {
  const { state } = incident;
  for (;;) {
    let askAgain = false;
    await step(incident, name, async ({ ref, readBack }) => {
      try {
        return await lift({ ref, readBack, peer: state.peer, approvedInRun: state.closing?.approvedInRun ?? '' });
      } catch (error) {
        if (failureTypeOf(error) !== 'PreconditionChanged') throw error;
        askAgain = true;
        return { outcome: 'unverified', way: 'none', detail: 'approved before a reset: asked again', evidence: state.evidence };
      }
    });
    if (!askAgain || !state.closing) return;
    incident.forget(name);
    await approvedInThisRun(incident);
  }
}
