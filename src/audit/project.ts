import { defaultPolicy, Policy, tightenPolicy } from '../contract/policy.ts';
import { StartPayload, Status, IncidentResult } from '../contract/schemas.ts';
import { z } from 'zod';
import { readActivities, stepOf, type ActivityRecord } from './activities.ts';
import { checkMutations, checkOutcome, type Mutation } from './checks.ts';
import { Digests } from './digests.ts';
import { onlyValue } from './history.ts';
import { readMessages, type Message } from './messages.ts';
import type { AuditHistory, AuditRun } from './read.ts';
import { tell, tellActivity, tellMessage, workerChanges, type TimelineRow } from './timeline.ts';
import { VoteLedger, type Decided, type Decision } from './votes.ts';

export interface RunSummary {
  readonly runId: string;
  readonly events: number;
  /** The last event that was copied from the run it was reset from; 0 for a run of its own. */
  readonly copiedUpTo: number;
  readonly resetFrom: string;
  readonly continuedFrom: string;
  readonly ended: string;
}

/** What a history says, for people. Pure: the same history gives the same audit. */
export interface Audit {
  readonly incident: string;
  readonly start: StartPayload | null;
  readonly startedBy: string;
  readonly policy: Policy;
  readonly runs: readonly RunSummary[];
  readonly timeline: readonly TimelineRow[];
  readonly activities: readonly ActivityRecord[];
  readonly messages: readonly Message[];
  readonly decisions: readonly Decision[];
  readonly decided: readonly Decided[];
  readonly mutations: readonly Mutation[];
  readonly status: Status | null;
  readonly result: IncidentResult | null;
  /** Heads of the evidence chain that history knows, in order. */
  readonly heads: readonly string[];
  readonly workers: readonly TimelineRow[];
  /** Not covered by this audit, in words. */
  readonly gaps: readonly string[];
  /** Where something was read from, if not from the source. */
  readonly notes: readonly string[];
  /** What makes the audit fail. */
  readonly problems: readonly string[];
}

const Opened = z.looseObject({ policy: Policy });
const Sealing = z.looseObject({ status: Status });
const Carried = z.looseObject({ policy: Policy });

/** Reads the whole incident from its runs, oldest first. */
export function project({ runs, gaps, notes = [] }: AuditHistory): Audit {
  const digests = new Digests();
  const ledger = new VoteLedger();
  const timeline: TimelineRow[] = [];
  const activities: ActivityRecord[] = [];
  const messages: Message[] = [];
  const summaries: RunSummary[] = [];
  const firstStart = runs[0]?.events[0]?.workflowExecutionStartedEventAttributes;
  const start =
    StartPayload.safeParse(firstStart?.input[0] && 'value' in firstStart.input[0] ? firstStart.input[0].value : undefined).data ?? null;
  let policy = defaultPolicy;
  for (const run of runs) {
    const summary = summarise(run);
    summaries.push(summary);
    const known = runs.some(({ runId }) => runId === summary.resetFrom);
    // What a reset copied is told where it happened, if that run is at hand.
    const own = run.events.filter(({ eventId }) => !known || Number(eventId) > summary.copiedUpTo);
    const ofRun = readActivities(run.events, run.runId).filter(({ eventId }) => !known || eventId > summary.copiedUpTo);
    policy = policyOf(run, readActivities(run.events, run.runId), start) ?? policy;
    digests.addRun(run.runId);
    if (summary.resetFrom !== '' && !known) digests.addRun(summary.resetFrom);
    if (summary.continuedFrom !== '') ledger.carry(summary.continuedFrom, run.runId);
    messages.push(...readMessages({ ...run, events: own }, { digests, ledger, policy, activities: ofRun, summary, allEvents: run.events }));
    activities.push(...ofRun);
    timeline.push(...own.flatMap((event) => tell(event, run.runId)));
  }
  timeline.push(...activities.map(tellActivity), ...messages.map(tellMessage));
  const status = lastOf(activities.map(({ name, input }) => (name === 'seal' ? Sealing.safeParse(input).data?.status : undefined)));
  const result = lastOf(
    runs.map(
      ({ events }) => IncidentResult.safeParse(onlyValue(events.at(-1)?.workflowExecutionCompletedEventAttributes?.result ?? [])).data,
    ),
  );
  const decisions = messages.flatMap(({ decision }) => (decision ? [decision] : []));
  const mutations = checkMutations(activities, ledger.decided, summaries);
  const ends = summaries.flatMap(({ runId, ended }) =>
    /^(terminated|failed|timed out|still open)/.test(ended)
      ? [`run ${runId}: ${ended}: what the incident would have done after that is not covered`]
      : [],
  );
  const resets = summaries.flatMap(({ runId, resetFrom, copiedUpTo }) =>
    resetFrom === ''
      ? []
      : [`run ${runId} is a reset copy of run ${resetFrom} up to event ${copiedUpTo}: decisions before that point are void in it`],
  );
  return {
    incident: runs[0]?.workflowId ?? '',
    start,
    startedBy: firstStart?.identity ?? '',
    policy,
    runs: summaries,
    timeline: timeline.toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at) || a.eventId - b.eventId),
    activities,
    messages,
    decisions,
    decided: ledger.decided,
    mutations,
    status: status ?? null,
    result: result ?? null,
    heads: headsOf(activities, result),
    workers: runs.flatMap(workerChanges),
    gaps: [...gaps, ...ends, ...resets],
    notes,
    problems: [
      ...mutations.flatMap(({ wrong }) => (wrong === null ? [] : [wrong])),
      ...checkOutcome(result?.outcome ?? null, status ?? null, ledger.decided, summaries),
      ...decisions.flatMap(({ answered, refusedBecause, eventId, runId, gate, by }) =>
        answered && answered.accepted !== (refusedBecause === null)
          ? [
              `run ${runId} event ${eventId}: the workflow ${answered.accepted ? 'accepted' : `refused (${answered.refusedBecause ?? ''})`} the decision of ${by} on ${gate}; by this audit it is ${refusedBecause ?? 'valid'}`,
            ]
          : [],
      ),
    ],
  };
}

function policyOf({ events }: AuditRun, activities: readonly ActivityRecord[], start: StartPayload | null): Policy | undefined {
  const carried = events[0]?.workflowExecutionStartedEventAttributes?.input[1];
  if (carried) return 'value' in carried ? Carried.safeParse(carried.value).data?.policy : undefined;
  const pinned = lastOf(activities.map(({ name, result }) => (name === 'openRun' ? Opened.safeParse(result).data?.policy : undefined)));
  if (!pinned) return undefined;
  const tightened = tightenPolicy(pinned, start?.policy ?? {});
  return tightened.ok ? tightened.policy : pinned;
}

function summarise({ runId, events }: AuditRun): RunSummary {
  const reset = events.findLast(({ workflowTaskFailedEventAttributes: failed }) => (failed?.newRunId ?? '') !== '');
  const last = events.at(-1);
  const ended = last?.workflowExecutionCompletedEventAttributes
    ? 'completed'
    : last?.workflowExecutionContinuedAsNewEventAttributes
      ? 'went on in a new run'
      : last?.workflowExecutionTerminatedEventAttributes
        ? `terminated from outside: ${last.workflowExecutionTerminatedEventAttributes.reason || 'no reason given'}`
        : last?.workflowExecutionFailedEventAttributes
          ? `failed: ${last.workflowExecutionFailedEventAttributes.failure?.message ?? ''}`
          : last?.workflowExecutionTimedOutEventAttributes
            ? 'timed out'
            : 'still open when this was read';
  return {
    runId,
    events: events.length,
    copiedUpTo: reset ? Number(reset.eventId) : 0,
    resetFrom: reset?.workflowTaskFailedEventAttributes?.baseRunId ?? '',
    continuedFrom: events[0]?.workflowExecutionStartedEventAttributes?.continuedExecutionRunId ?? '',
    ended,
  };
}

function headsOf(activities: readonly ActivityRecord[], result: IncidentResult | undefined): string[] {
  const heads = activities.map((record) => stepOf(record).evidence?.head ?? '');
  return [...new Set([...heads, result?.evidenceHead ?? ''])].filter((head) => head !== '');
}

function lastOf<T>(items: readonly (T | undefined)[]): T | undefined {
  return items.findLast((item) => item !== undefined);
}
