import { ApplicationFailure } from '@temporalio/common';
import { allHandlersFinished, CancellationScope, condition, continueAsNew, workflowInfo } from '@temporalio/workflow';
import { defaultPolicy, tightenPolicy } from '../src/contract/policy.ts';
import { explainIssues, StartPayload } from '../src/contract/schemas.ts';
import { answerAmendment } from './ask.ts';
import { Incident } from './incident.ts';
import { listen } from './messages.ts';
import { read } from './policies.ts';
import { newState, type IncidentState } from './state.ts';
import { insist } from './steps.ts';

/** A run takes this many messages before it hands over; the server refuses signals for good at 10,000. */
const messagesPerRun = 2_000;
const eventsPerRun = 8_000;

/**
 * Takes the start payload, or what the run before carried over, and listens before anything else.
 * @throws ApplicationFailure InvalidInput: which field, what was expected, what came
 */
export function openIncident(args: readonly unknown[]): Incident {
  const info = workflowInfo();
  const carried = info.continuedFromExecutionRunId !== undefined && args.length === 2;
  // What we handed over ourselves is trusted; what people typed is not.
  const state = carried ? (args[1] as IncidentState) : newState(parseStart(args), defaultPolicy, info.runId);
  const incident = new Incident(state);
  listen(incident);
  CancellationScope.current().cancelRequested.catch(() => {
    incident.warn(`Cancel was requested at ${incident.now()} and refused: an incident ends by \`cordon close\`, behind its gate.`);
  });
  return incident;
}

function parseStart(args: readonly unknown[]): StartPayload {
  if (args.length !== 1) {
    throw ApplicationFailure.nonRetryable(`start: expected exactly one JSON object, got ${args.length} arguments`, 'InvalidInput');
  }
  const parsed = StartPayload.safeParse(args[0]);
  if (!parsed.success) throw ApplicationFailure.nonRetryable(`start: ${explainIssues(parsed.error, args[0])}`, 'InvalidInput');
  return parsed.data;
}

/** Pins the policy in force, learns which run this is, and seals the history of the run before. */
export async function openRun(incident: Incident): Promise<void> {
  const { state } = incident;
  const { originalExecutionRunId, continuedFromExecutionRunId } = workflowInfo();
  const opened = await insist(incident, 'resolvePeer', ({ ref }) =>
    read.openRun({ ref, originalRun: originalExecutionRunId, start: state.start, ...(continuedFromExecutionRunId === undefined ? {} : { previousRun: continuedFromExecutionRunId }) }),
  );
  if (!opened) return;
  incident.absorb(opened);
  state.recordedRun = opened.run;
  state.registeredSearchAttributes = opened.registeredSearchAttributes;
  if (continuedFromExecutionRunId === undefined) {
    const tightened = tightenPolicy(opened.policy, state.start.policy ?? {});
    if (!tightened.ok) {
      const message = `start: ${tightened.field}: a start may only tighten the policy in force; expected ${tightened.expected}`;
      throw ApplicationFailure.nonRetryable(message, 'InvalidInput');
    }
    state.policy = tightened.policy;
  } else carryDecisions(incident, opened.isReset);
  incident.publish();
}

/** Continue-as-new carries counted approvals under the new digest; a reset of the new run voids them. */
function carryDecisions(incident: Incident, isReset: boolean): void {
  const { state } = incident;
  const run = state.recordedRun;
  for (const open of Object.values(state.gates)) {
    incident.setGate({ ...open, votes: isReset ? [] : open.votes.map((vote) => ({ ...vote, run })) });
  }
  if (state.go) state.go = isReset ? null : { ...state.go, approvedInRun: run };
  if (isReset) {
    state.closeAsked = {};
    state.skipAsked = null;
    state.gates = Object.fromEntries(Object.entries(state.gates).filter(([gate]) => gate === 'retract'));
  }
}

/** Resolves when this run should hand over to the next: never in the middle of a step, and not while a gate is open unless the limits force it. */
export async function timeToSwitch(incident: Incident): Promise<'switch'> {
  const quiet = () => incident.busy === 0 && incident.amendments.length === 0;
  const forced = () => workflowInfo().continueAsNewSuggested || incident.messages >= messagesPerRun;
  const due = () => workflowInfo().historyLength >= eventsPerRun && Object.keys(incident.state.gates).length === 0;
  await condition(() => quiet() && (forced() || due()));
  return 'switch';
}

/** Hands over to the next run. What was asked and not yet served is refused on record: it named this run. */
export async function switchRun(incident: Incident): Promise<never> {
  while (incident.amendments.length > 0) answerAmendment(incident, { accepted: false, refusedBecause: 'stale_digest' });
  for (const { by, step } of incident.commands) incident.refuse('stale_run', by, `${step}: crossed the switch to a new run`);
  for (const { by, outcome } of incident.closeRequests) incident.refuse('stale_run', by, `close ${outcome}: crossed the switch to a new run`);
  await condition(allHandlersFinished);
  return continueAsNew(incident.state.start, incident.state);
}
