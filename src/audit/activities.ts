import { z } from 'zod';
import { isStep, phaseOf } from '../contract/names.ts';
import { onlyValue, type HistoryEvent } from './history.ts';

/** One activity: what was asked of it, how often it was tried, and what it said. */
export interface ActivityRecord {
  readonly name: string;
  readonly phase: string;
  readonly runId: string;
  readonly eventId: number;
  readonly at: string;
  readonly input: unknown;
  attempts: number;
  worker: string;
  ended?: { readonly eventId: number; readonly at: string; readonly how: 'completed' | 'failed' | 'timed out' | 'cancelled' };
  result?: unknown;
  failure?: { readonly type: string; readonly message: string };
  /** What failed before, where an attempt was tried again. */
  lastFailure?: string;
}

/** What results of steps have in common. */
const StepLike = z.looseObject({
  outcome: z.string().optional(),
  way: z.string().optional(),
  detail: z.string().optional(),
  evidence: z.looseObject({ head: z.string(), entries: z.number() }).optional(),
});

/** The common parts of a result; empty when it has none. */
export function stepOf({ result }: Pick<ActivityRecord, 'result'>): z.infer<typeof StepLike> {
  return StepLike.safeParse(result).data ?? {};
}

/** Pairs what was scheduled with how it ended. */
export function readActivities(events: readonly HistoryEvent[], runId: string): ActivityRecord[] {
  const records = new Map<string, ActivityRecord>();
  for (const event of events) {
    const scheduled = event.activityTaskScheduledEventAttributes;
    if (scheduled) {
      const { name } = scheduled.activityType;
      const phase = isStep(name) ? phaseOf(name) : '';
      const common = { name, phase, runId, eventId: Number(event.eventId), at: event.eventTime };
      records.set(event.eventId, { ...common, input: onlyValue(scheduled.input), attempts: 0, worker: '' });
      continue;
    }
    const started = event.activityTaskStartedEventAttributes;
    const record = records.get(started?.scheduledEventId ?? endedOf(event)?.scheduledEventId ?? '');
    if (!record) continue;
    if (started) {
      record.attempts = started.attempt;
      record.worker = started.identity;
      if (started.lastFailure) record.lastFailure = started.lastFailure.message;
      continue;
    }
    finish(record, event);
  }
  return [...records.values()];
}

function endedOf(event: HistoryEvent): { readonly scheduledEventId: string } | undefined {
  return (
    event.activityTaskCompletedEventAttributes ??
    event.activityTaskFailedEventAttributes ??
    event.activityTaskTimedOutEventAttributes ??
    event.activityTaskCanceledEventAttributes
  );
}

function finish(record: ActivityRecord, event: HistoryEvent): void {
  const { activityTaskCompletedEventAttributes: completed, activityTaskFailedEventAttributes: failed } = event;
  const { activityTaskTimedOutEventAttributes: timedOut } = event;
  const how = completed ? 'completed' : failed ? 'failed' : timedOut ? 'timed out' : 'cancelled';
  record.ended = { eventId: Number(event.eventId), at: event.eventTime, how };
  if (completed) record.result = onlyValue(completed.result);
  const failure = failed?.failure ?? timedOut?.failure;
  if (failure) record.failure = { type: failure.applicationFailureInfo?.type ?? '', message: failure.message };
}
