import { condition, ParentClosePolicy, startChild, workflowInfo } from '@temporalio/workflow';
import { canonicalJson, planHash, sha256Id } from '../src/contract/canonical.ts';
import type { Step } from '../src/contract/names.ts';
import type { CloseRequest, IncidentResult } from '../src/contract/schemas.ts';
import type { IncidentRef, PeerRef, StepResult } from '../src/contract/steps.ts';
import { askPeople } from './ask.ts';
import type { GatePlan } from './gates.ts';
import type { Incident } from './incident.ts';
import { holdNewAlerts, notices } from './notices.ts';
import { collect, mutate, read } from './policies.ts';
import { SealHistory } from './seal-history.ts';
import { residualOf } from './status.ts';
import { failureTypeOf, insist, step } from './steps.ts';

/** How the runbook came to its end. `switch`: it goes on in the next run. */
export type Closing = 'switch' | { readonly duplicateOf: string } | { readonly closedAs: CloseRequest['outcome'] };

/** Someone asks to close: expelled waits at gate `close`, dismissed at gate `restore`, since it opens doors again. */
export async function closeDesk(incident: Incident, outcome: CloseRequest['outcome']): Promise<Closing> {
  const { state } = incident;
  const gate = outcome === 'expelled' ? 'close' : 'restore';
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

function closePlan(incident: Incident, { outcome, by, reason }: CloseRequest): GatePlan {
  const items = [{ id: outcome, action: 'close', contentHash: sha256Id(canonicalJson({ outcome, by, reason })) }];
  const residual = residualOf(incident.state).length;
  const does = outcome === 'expelled' ? 'leave every fence in place for good' : 'lift what containment did, in order';
  return {
    planHash: planHash(items),
    counts: { close: 1 },
    summary: `close as ${outcome}: ${does}; ${residual} residual risks stay. Asked by ${by}: ${reason}`.slice(0, 1_000),
    items: items.map(({ id, action }) => ({ id, entity: '', relation: '', scope: '', action, way: 'none', rule: 'close', reason, evidence: [] })),
  };
}

/** Ends the incident: what the outcome still needs, the final evidence, the report. */
export async function close(incident: Incident, ending: Exclude<Closing, 'switch'>): Promise<IncidentResult> {
  const { state } = incident;
  state.pending = {};
  state.gates = {};
  if ('duplicateOf' in ending) {
    state.outcome = 'duplicate';
    incident.warn(`${ending.duplicateOf} holds this peer; our alerts were handed over to it.`);
  } else {
    state.outcome = ending.closedAs;
    if (ending.closedAs === 'dismissed') await undoContainment(incident);
    else if (state.peer) await notices(incident);
  }
  if (!('duplicateOf' in ending)) await holdNewAlerts(incident);
  const outcome = state.outcome;
  incident.enter('closed');
  const sealed = await insist(incident, 'seal', ({ ref }) =>
    collect.seal({
      ref,
      outcome,
      ...(state.closing ? { closing: state.closing } : {}),
      status: incident.snapshot(),
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
  const { workflowId, runId, firstExecutionRunId } = workflowInfo();
  await startChild(SealHistory, {
    workflowId: `cordon-seal:${firstExecutionRunId}:${runId}`,
    args: [{ incident: workflowId, runId }],
    parentClosePolicy: ParentClosePolicy.ABANDON,
  });
  incident.publish();
  return { outcome, residual: residualOf(state), evidenceHead: state.evidence.head, report: sealed?.report ?? '' };
}

/** Dismissed: lifts what containment did, in order, each read back; what stays is listed. */
async function undoContainment(incident: Incident): Promise<void> {
  const { state } = incident;
  const { peer } = state;
  if (!peer) return;
  incident.enter('restore');
  await whileApproved(incident, 'restoreTrust', mutate.restoreTrust);
  await whileApproved(incident, 'resumePromotion', mutate.resumePromotion);
  // Last, because from here on the peer delivers again.
  await whileApproved(incident, 'liftFences', mutate.liftFences);
  state.pending = {};
}

type Lift = (of: { ref: IncidentRef; readBack: boolean; peer: PeerRef | null; approvedInRun: string }) => Promise<StepResult>;

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
    await incident.confirmRun();
    while ((await askPeople(incident, 'restore', closePlan(incident, state.closing), { requestedBy: state.closing.by })) !== 'approved') incident.shut('restore');
    state.closing = { ...state.closing, approvedInRun: state.recordedRun };
  }
}
