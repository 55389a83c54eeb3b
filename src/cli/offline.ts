import { defaultPayloadConverter } from '@temporalio/common';
import type { temporal } from '@temporalio/proto';
import { z } from 'zod';
import { withDeadline, type TemporalSession } from '../temporal.ts';
import type { Answer, Cli } from './cli.ts';
import { serverMs, type Incident } from './incident.ts';
import { clean, shellWord, table, when } from './text.ts';

/** What the server knows of an incident by itself: description, memo, search attributes and the end of its history. */
export interface Offline {
  incident: string;
  runId: string;
  serverState: string;
  startedAt: string;
  closedAt: string | null;
  events: number;
  memo: Record<string, unknown>;
  lastSeen: LastSeen | null;
  pending: { activity: string; attempt: number; lastFailure: string }[];
  /** A workflow task that fails over and over: a worker is there, and its code can't go on with this history. */
  failingTask: FailingTask | null;
  recent: { at: string; event: string; what: string }[];
  historyRead: boolean;
}

const historyEvents = 120;
const taskFailed = 'workflow task failed';
type Event = temporal.api.history.v1.IHistoryEvent;
const Described = z.object({
  pendingActivities: z
    .array(
      z.object({
        activityType: z.object({ name: z.string().nullish() }).nullish(),
        attempt: z.number().nullish(),
        lastFailure: z.object({ message: z.string().nullish() }).nullish(),
      }),
    )
    .nullish(),
});

const Task = z.object({ pendingWorkflowTask: z.object({ attempt: z.number().default(1) }).nullish() });

/** How often a task was tried, and what it failed with first. */
export interface FailingTask {
  attempt: number;
  why: string;
}

/** The workflow task that the server has tried more than once: nothing goes on until it succeeds. */
export function failingTask(raw: unknown, recent: Offline['recent']): FailingTask | undefined {
  const attempt = Task.safeParse(raw).data?.pendingWorkflowTask?.attempt ?? 1;
  if (attempt < 2) return undefined;
  return { attempt, why: recent.find(({ event }) => event === taskFailed)?.what ?? '' };
}

/** What the workflow itself puts into its memo: ids and counts. */
const LastSeen = z.object({
  cordon: z.object({
    phase: z.string(),
    round: z.number(),
    gates: z.array(z.string()),
    steps: z.array(z.string()),
    outcome: z.string().nullable(),
  }),
});
export type LastSeen = z.infer<typeof LastSeen>['cordon'];

/** Where the incident was when a worker last looked after it. */
export function lastSeen(memo: Record<string, unknown> | undefined): LastSeen | undefined {
  return LastSeen.safeParse(memo).data?.cordon;
}

/** Reads it all within the server's deadline; a history that does not come in time is said so. */
export async function readOffline(session: TemporalSession, incident: Incident): Promise<Offline> {
  const { description: d, id, runId } = incident;
  const recent = await lastEvents(session, id, runId).catch(() => undefined);
  const pending = Described.safeParse(d.raw).data?.pendingActivities ?? [];
  return {
    incident: id,
    runId,
    serverState: d.status.name.toLowerCase(),
    startedAt: d.startTime.toISOString(),
    closedAt: d.closeTime?.toISOString() ?? null,
    events: d.historyLength,
    memo: d.memo ?? {},
    lastSeen: lastSeen(d.memo) ?? null,
    pending: pending.map((p) => ({
      activity: p.activityType?.name ?? '?',
      attempt: p.attempt ?? 1,
      lastFailure: p.lastFailure?.message ?? '',
    })),
    failingTask: failingTask(d.raw, recent ?? []) ?? null,
    recent: recent ?? [],
    historyRead: recent !== undefined,
  };
}

/** `show` with no worker alive. */
export function renderOffline(cli: Cli, o: Offline): Answer {
  const { bold, dim } = cli.colors;
  const now = cli.io.now();
  const open = o.serverState === 'running' || o.serverState === 'paused';
  const { failingTask: failing } = o;
  const next = failing
    ? `next: look at the worker: its code fails on this incident, ${failing.attempt} times by now: ${clean(failing.why || 'its log says why')}`
    : open
      ? 'next: start a worker (cordon worker): none answers, this is only what the Temporal server knows'
      : `ended without a worker to ask (${o.serverState}); next: cordon audit ${shellWord(o.incident)}`;
  const seen = o.lastSeen;
  const lines = [
    '',
    `${bold(clean(o.incident))} · run ${o.runId.slice(0, 8)} · ${o.serverState}`,
    `started  ${o.startedAt} (${when(o.startedAt, now)}), ${o.events} events`,
    seen === null ? 'phase    not known without a worker' : `phase    ${clean(seen.phase)}, round ${seen.round}, when a worker last ran`,
  ];
  if (failing) {
    const what = `task     FAILING, attempt ${failing.attempt}: ${clean(failing.why || "the worker's log says why")}`;
    lines.push(
      cli.colors.red(what),
      '         It goes on by itself once the worker runs code that can replay this history; nothing is lost meanwhile.',
    );
  }
  if (seen !== null && seen.gates.length > 0) lines.push(`gates    ${clean(seen.gates.join(', '))} (gate#opening)`);
  if (seen !== null && seen.steps.length > 0) lines.push(`steps    ${clean(seen.steps.join(', '))}`);
  if (seen !== null && seen.outcome !== null) lines.push(`outcome  ${clean(seen.outcome)}`);
  if (o.pending.length > 0) {
    const rows = o.pending.map((p) => [p.activity, String(p.attempt), p.lastFailure]);
    lines.push('', bold('Under way or retried'), table(['activity', 'attempt', 'last failure'], rows, cli.width, [24, 7]));
  }
  if (!o.historyRead) lines.push('', 'The history did not come in time; run it again.');
  if (o.recent.length > 0) {
    const rows = o.recent.slice(0, 25).map((e) => [when(e.at, now), e.event, e.what]);
    lines.push('', bold('Last events, newest first'), table(['when', 'event', 'what'], rows, cli.width, [11, 20]));
  }
  lines.push('', dim('Signals and decisions are kept by the server and count when a worker runs.'));
  return { next, text: lines, json: { source: 'server', ...o }, exit: open ? 'unconfirmed' : 'ok' };
}

async function lastEvents(session: TemporalSession, workflowId: string, runId: string): Promise<Offline['recent']> {
  const { client, settings } = session;
  const answer = await withDeadline(client, serverMs, () =>
    client.workflowService.getWorkflowExecutionHistoryReverse({
      namespace: settings.namespace,
      execution: { workflowId, runId },
      maximumPageSize: historyEvents,
    }),
  );
  return (answer.history?.events ?? []).flatMap((event) => {
    const told = tell(event);
    return told === undefined ? [] : [{ at: timeOf(event), ...told }];
  });
}

/** One event in words; undefined for the server's own housekeeping. */
function tell(e: Event): { event: string; what: string } | undefined {
  const signal = e.workflowExecutionSignaledEventAttributes;
  if (signal) return { event: `signal ${signal.signalName ?? ''}`, what: `from ${signal.identity ?? 'nobody named'}` };
  const update = e.workflowExecutionUpdateAcceptedEventAttributes?.acceptedRequest;
  if (update) return { event: `update ${update.input?.name ?? ''}`, what: `from ${update.meta?.identity ?? 'nobody named'}` };
  const scheduled = e.activityTaskScheduledEventAttributes;
  if (scheduled) return { event: scheduled.activityType?.name ?? 'activity', what: summary(e) || 'asked for' };
  const failed = e.activityTaskFailedEventAttributes;
  if (failed) return { event: 'activity failed', what: failed.failure?.message ?? '' };
  const timer = e.timerStartedEventAttributes;
  if (timer) return { event: 'timer started', what: summary(e) };
  const task = e.workflowTaskFailedEventAttributes;
  if (task) return { event: taskFailed, what: task.failure?.message ?? '' };
  const ended = e.workflowExecutionTerminatedEventAttributes;
  if (ended) return { event: 'TERMINATED', what: ended.reason ?? '' };
  const fail = e.workflowExecutionFailedEventAttributes;
  if (fail) return { event: 'FAILED', what: fail.failure?.message ?? '' };
  if (e.workflowExecutionStartedEventAttributes) return { event: 'started', what: summary(e) };
  if (e.workflowExecutionCancelRequestedEventAttributes) return { event: 'cancel requested', what: 'recorded and refused' };
  if (e.workflowExecutionCompletedEventAttributes) return { event: 'completed', what: '' };
  return undefined;
}

function summary(event: Event): string {
  const payload = event.userMetadata?.summary;
  if (!payload) return '';
  try {
    const text: unknown = defaultPayloadConverter.fromPayload(payload);
    return typeof text === 'string' ? text : '';
  } catch {
    return '';
  }
}

function timeOf(event: Event): string {
  const seconds = Number(event.eventTime?.seconds ?? 0);
  return new Date(seconds * 1_000).toISOString();
}
