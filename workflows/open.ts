import { ApplicationFailure } from '@temporalio/common';
import { CancellationScope, condition, continueAsNew, patched, workflowInfo } from '@temporalio/workflow';
import { defaultPolicy, tightenPolicy } from '../src/contract/policy.ts';
import { explainIssues, StartPayload } from '../src/contract/schemas.ts';
import { answerAmendment } from './ask.ts';
import type { OpenGate } from './gates.ts';
import { Incident } from './incident.ts';
import { listen } from './messages.ts';
import { read } from './policies.ts';
import { newState, type IncidentState } from './state.ts';
import { startSealing } from './seal-history.ts';
import { insist } from './steps.ts';

/** A run takes this many messages before it hands over; the server refuses signals for good at 10,000. */
const messagesPerRun = 2_000;
/** So long no signal may have come when it hands over. */
const quietMs = 500;
/** From here on it hands over as soon as it can: soon the server lets nothing in any more, or ends the run. */
const atTheLatest = { signals: 9_500, updates: 1_800, bytes: 6_000_000, events: 16_000 } as const;
const eventsPerRun = 8_000;
/** A start is handed on to activities, and one payload holds 2 MB. */
const startChars = 300_000;
/** What one run may hand to the next, in bytes. */
const handedOver = 1_500_000;

/**
 * Takes the start payload, or what the run before carried over, and listens before anything else.
 * @throws ApplicationFailure InvalidInput: which field, what was expected, what came
 */
export function openIncident(args: readonly unknown[]): Incident {
  const info = workflowInfo();
  // A scheduled run looks like one that was handed over, and its arguments are what somebody typed.
  if (info.cronSchedule !== undefined) {
    throw ApplicationFailure.nonRetryable(
      `start: expected no cron schedule, got ${info.cronSchedule.slice(0, 100)}: an incident is started once`,
      'InvalidInput',
    );
  }
  const carried = info.continuedFromExecutionRunId !== undefined && args.length === 2;
  // The run this history was begun in: the same in a reset copy, where runId is another.
  const run = info.originalExecutionRunId || info.runId;
  // What we handed over ourselves is trusted; what people typed is not.
  const state = carried ? underNewDigests(args[1] as IncidentState, run) : newState(parseStart(args), defaultPolicy, run);
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
  // Cut: names of unknown fields stand in the message, and one too large for the server would be a task that fails for ever.
  if (!parsed.success)
    throw ApplicationFailure.nonRetryable(`start: ${explainIssues(parsed.error, args[0])}`.slice(0, 2_000), 'InvalidInput');
  const size = JSON.stringify(parsed.data).length;
  if (size > startChars)
    throw ApplicationFailure.nonRetryable(`start: alerts: expected at most ${startChars} characters in all, got ${size}`, 'InvalidInput');
  return parsed.data;
}

/** Pins the policy in force, learns which run this is, and seals the history of the run before. */
export async function openRun(incident: Incident): Promise<void> {
  const { state } = incident;
  const { originalExecutionRunId, continuedFromExecutionRunId } = workflowInfo();
  const open = () =>
    insist(incident, 'resolvePeer', ({ ref }) =>
      read.openRun({
        ref,
        originalRun: originalExecutionRunId,
        start: state.start,
        ...(continuedFromExecutionRunId === undefined ? {} : { previousRun: continuedFromExecutionRunId }),
      }),
    );
  let opened = await open();
  while (!opened) {
    // Without the policy in force anybody would count as an approver.
    incident.forget('resolvePeer');
    incident.note('cordon', 'The policy in force is not known yet: this can not be skipped.');
    opened = await open();
  }
  incident.absorb(opened);
  state.recordedRun = opened.run;
  state.registeredSearchAttributes = opened.registeredSearchAttributes;
  if (continuedFromExecutionRunId === undefined) {
    const tightened = tightenPolicy(opened.policy, state.start.policy ?? {});
    if (!tightened.ok) {
      const message = `start: ${tightened.field}: a start may only tighten the policy in force; expected ${tightened.expected}, got ${tightened.got}`;
      throw ApplicationFailure.nonRetryable(message, 'InvalidInput');
    }
    state.policy = tightened.policy;
  } else if (opened.isReset) voidCarried(incident);
  incident.publish();
  if (continuedFromExecutionRunId !== undefined && patched('predecessor-is-sealed')) await startSealing(continuedFromExecutionRunId);
}

/** Continue-as-new carries counted approvals: they count under the new run's digests. */
function underNewDigests(state: IncidentState, run: string): IncidentState {
  const gates = Object.entries(state.gates).map(([gate, open]): [string, OpenGate] => [
    gate,
    { ...open, votes: open.votes.map((vote) => ({ ...vote, run })) },
  ]);
  return {
    ...state,
    recordedRun: run,
    gates: Object.fromEntries(gates),
    go: state.go && { ...state.go, approvedInRun: run },
    ...(state.approved ? { approved: { ...state.approved, inRun: run } } : {}),
    ...(state.rebindApproved ? { rebindApproved: { inRun: run } } : {}),
    ...(state.pullApproved ? { pullApproved: { inRun: run } } : {}),
  };
}

/** A reset of a run voids what was carried into it. */
function voidCarried(incident: Incident): void {
  const { state } = incident;
  for (const open of Object.values(state.gates)) incident.setGate({ ...open, votes: [] });
  state.go = null;
  state.approved = null;
  state.rebindApproved = null;
  state.pullApproved = null;
  state.closeAsked = {};
  state.skipAsked = null;
  state.gates = Object.fromEntries(Object.entries(state.gates).filter(([gate]) => gate === 'retract'));
}

/** Resolves when this run should hand over to the next: never in the middle of a step, and not while a gate is open unless the limits force it. */
export async function timeToSwitch(incident: Incident): Promise<'switch'> {
  const unhindered = () => incident.busy === 0 && incident.amendments.length === 0;
  const forced = () => workflowInfo().continueAsNewSuggested || incident.messages >= messagesPerRun;
  const due = () => workflowInfo().historyLength >= eventsPerRun && Object.keys(incident.state.gates).length === 0;
  const wanted = () => unhindered() && (forced() || due());
  const urgent = () => {
    const { historySize, historyLength } = workflowInfo();
    const { messages, signals } = incident;
    if (signals >= atTheLatest.signals || messages - signals >= atTheLatest.updates) return true;
    return historySize >= atTheLatest.bytes || historyLength >= atTheLatest.events;
  };
  await condition(wanted);
  if (!patched('switch-when-quiet')) return 'switch';
  // The server lets no run end while a signal waits, and each attempt costs a replay of all that came: in a flood
  // nothing else would ever be done.
  for (;;) {
    await condition(wanted);
    const { signals } = incident;
    await condition(urgent, quietMs);
    if (wanted() && (urgent() || incident.signals === signals)) return 'switch';
  }
}

/** Hands over to the next run. What was asked and not yet served is refused on record: it named this run. */
export async function switchRun(incident: Incident): Promise<never> {
  incident.isSwitching = true;
  const waits = () => incident.amendments.length + incident.commands.length + incident.closeRequests.length > 0;
  // Again, for what is asked until the last handler has ended.
  do {
    while (incident.amendments.length > 0) answerAmendment(incident, { accepted: false, refusedBecause: 'stale_digest' });
    for (const { by, step } of incident.commands.splice(0)) incident.refuse('stale_run', by, `${step}: crossed the switch to a new run`);
    for (const { by, outcome } of incident.closeRequests.splice(0))
      incident.refuse('stale_run', by, `close ${outcome}: crossed the switch to a new run`);
    await condition(() => incident.isAllSettled() || waits());
  } while (waits());
  const state = smallEnough(incident.state);
  return continueAsNew(state.start, state);
}

/** A state too large for one payload could never be handed over: what stands in history or evidence as well is left out. */
function smallEnough(whole: IncidentState): IncidentState {
  const { alerts: _, ...start } = whole.start;
  const state = { ...whole, start };
  if (bytesOf(state) <= handedOver) return state;
  const withoutItems = <T extends { readonly items?: unknown }>({ items: __, ...plan }: T): Omit<T, 'items'> => plan;
  const gates = Object.entries(state.gates).map(([gate, open]): [string, OpenGate] => [
    gate,
    open.plan.evidenceId === undefined ? open : { ...open, plan: withoutItems(open.plan) },
  ]);
  return {
    ...state,
    gates: Object.fromEntries(gates),
    plan: state.plan && withoutItems(state.plan),
    next: state.next && withoutItems(state.next),
    ...(state.backlog ? { backlog: withoutItems(state.backlog) } : {}),
    go: state.go && { ...state.go, plan: withoutItems(state.go.plan) },
    ...(state.approved ? { approved: { ...state.approved, plan: withoutItems(state.approved.plan) } } : {}),
    alerts: state.alerts.map(({ detail: __, ...alert }) => alert),
    heldAlerts: state.heldAlerts.map((alert) => ({ ...alert, eventIds: [] })),
  };
}

function bytesOf(value: unknown): number {
  return new TextEncoder().encode(JSON.stringify(value)).length;
}
