import { log, metricMeter, workflowInfo } from '@temporalio/workflow';
import { counters, events } from '../src/contract/telemetry.ts';
import type { Outcome, Phase, Refusal, StepOutcome } from '../src/contract/names.ts';
import type { OpenGate } from './gates.ts';
import type { IncidentState, PendingStep, StepRecord } from './state.ts';

// What the incident says of itself, as log lines and counters. Neither is a command: nothing of it stands in
// history, and replay says nothing twice.

type Level = 'debug' | 'info' | 'warn' | 'error';

function say(state: IncidentState, level: Level, message: string, attributes: Readonly<Record<string, unknown>> = {}): void {
  log[level](message, { phase: state.phase, round: state.round, mode: state.start.mode ?? 'live', ...attributes });
}

/** What began and ended: also a span of the incident's trace, which starts from the first run's id. */
function span(since: string, now: string): Readonly<Record<string, unknown>> {
  return { since, seconds: (Date.parse(now) - Date.parse(since)) / 1_000, firstRun: workflowInfo().firstExecutionRunId };
}

export function tellPhase(state: IncidentState, next: Phase, now: string): void {
  const since = state.phaseSince ?? workflowInfo().startTime.toISOString();
  say(state, 'info', `phase ${state.phase} ended`, { event: events.phaseEnded, next, ...span(since, now) });
}

export function tellGateOpened(state: IncidentState, { gate, opening, plan, expiresAt }: OpenGate): void {
  say(state, 'warn', `gate ${gate} waits for people`, { event: events.gateOpened, gate, opening, summary: plan.summary, expiresAt });
}

/** `how`: approved, rejected, expired, amended, or shut because nothing is left to ask. */
export function tellGateEnded(state: IncidentState, { gate, opening, since, votes }: OpenGate, how: string, now: string): void {
  const by = votes.map(({ by: person, decision }) => `${decision} ${person}`);
  say(state, 'info', `gate ${gate} ended: ${how}`, { event: events.gateEnded, gate, opening, how, votes: by, ...span(since, now) });
}

export function tellVote(state: IncidentState, gate: string, decision: string, by: string): void {
  say(state, 'info', `${decision} counted at gate ${gate}`, { event: events.voteCounted, gate, decision, by });
}

const refusalsSaid = { first: 20, thenEvery: 500 } as const;

/** A flood of junk is counted one by one, and becomes no flood of lines. */
export function tellRefused(state: IncidentState, because: Refusal, by: string, detail: string | undefined): void {
  metricMeter.createCounter(counters.messagesRefused.name, '', counters.messagesRefused.help).add(1, { because });
  const { count } = state.refused;
  if (count > refusalsSaid.first && count % refusalsSaid.thenEvery !== 0) return;
  say(state, 'warn', `message refused: ${because}`, { event: events.messageRefused, because, by, detail, refusedSoFar: count });
}

export function tellStepEnded(state: IncidentState, { name, phase, round, outcome, way, detail }: StepRecord): void {
  metricMeter.createCounter(counters.stepsEnded.name, '', counters.stepsEnded.help).add(1, { phase, outcome });
  const level = isDone(outcome) ? 'info' : 'warn';
  say(state, level, `step ${name} ended: ${outcome}`, { event: events.stepEnded, step: name, phase, round, outcome, way, detail });
}

const pendingLevels = { parked: 'error', manual: 'warn', held: 'warn', paced: 'info' } as const satisfies Record<
  PendingStep['kind'],
  Level
>;

export function tellPending(state: IncidentState, { step, kind, why, how }: Omit<PendingStep, 'since'>): void {
  say(state, pendingLevels[kind], `step ${step} waits: ${kind}`, { event: events.stepWaits, step, kind, why, how });
}

export function tellResumed(state: IncidentState, { step, kind, since }: PendingStep, now: string): void {
  const seconds = (Date.parse(now) - Date.parse(since)) / 1_000;
  say(state, 'info', `step ${step} goes on`, { event: events.stepResumed, step, kind, seconds });
}

export function tellWarning(state: IncidentState, warning: string): void {
  say(state, 'warn', warning, { event: events.warning });
}

export function tellClosed(state: IncidentState, outcome: Outcome, residual: number, now: string): void {
  const mode = state.start.mode ?? 'live';
  metricMeter.createCounter(counters.incidentsClosed.name, '', counters.incidentsClosed.help).add(1, { outcome, mode });
  const since = workflowInfo().startTime.toISOString();
  say(state, 'info', `incident closed as ${outcome}`, { event: events.incidentClosed, outcome, residual, ...span(since, now) });
}

function isDone(outcome: StepOutcome): boolean {
  return outcome === 'verified' || outcome === 'manual';
}
