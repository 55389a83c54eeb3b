import { stepOf, type ActivityRecord } from './activities.ts';
import type { HistoryEvent } from './history.ts';
import type { Message } from './messages.ts';
import type { AuditRun } from './read.ts';

/** One line of what happened. */
export interface TimelineRow {
  readonly at: string;
  readonly runId: string;
  readonly eventId: number;
  readonly who: string;
  readonly what: string;
}

/** One event in plain words; nothing for the server's own housekeeping. */
export function tell(event: HistoryEvent, runId: string): TimelineRow[] {
  const row = (who: string, what: string): TimelineRow[] => [{ at: event.eventTime, runId, eventId: Number(event.eventId), who, what }];
  const started = event.workflowExecutionStartedEventAttributes;
  if (started) return row(started.identity, started.continuedExecutionRunId === '' ? 'the incident was started' : 'a new run took over');
  const cancel = event.workflowExecutionCancelRequestedEventAttributes;
  if (cancel) return row(cancel.identity, 'asked to cancel the workflow: recorded, and refused by design');
  const failed = event.workflowTaskFailedEventAttributes;
  if (failed)
    return row(
      failed.identity,
      failed.newRunId === ''
        ? `the program failed on a task and tried it again: ${failed.failure?.message ?? failed.cause}`
        : `somebody reset the workflow: this run is a copy of ${failed.baseRunId} up to here`,
    );
  const terminated = event.workflowExecutionTerminatedEventAttributes;
  if (terminated) return row(terminated.identity, `somebody terminated the run: ${terminated.reason || 'no reason given'}`);
  if (event.workflowExecutionCompletedEventAttributes) return row('', 'the incident ended');
  if (event.workflowExecutionContinuedAsNewEventAttributes) return row('', 'the run handed over to a new one');
  const fail = event.workflowExecutionFailedEventAttributes;
  return fail ? row('', `the incident failed: ${fail.failure?.message ?? ''}`) : [];
}

/** An activity, at the moment it ended. */
export function tellActivity(record: ActivityRecord): TimelineRow {
  const { name, phase, runId, attempts, worker, ended, failure } = record;
  const { outcome, way, detail } = stepOf(record);
  const how = outcome
    ? `${outcome}${way && way !== 'none' ? ` by ${way}` : ''}${detail ? `: ${detail}` : ''}`
    : (ended?.how ?? 'not finished');
  const tries = attempts > 1 ? ` after ${attempts} attempts` : '';
  return {
    at: ended?.at ?? record.at,
    runId,
    eventId: ended?.eventId ?? record.eventId,
    who: worker,
    what: `${phase === '' ? '' : `${phase}: `}${name} ${how}${tries}${failure ? `: ${failure.type} ${failure.message}` : ''}`,
  };
}

/** A message, at the moment it came. */
export function tellMessage({ at, runId, eventId, who, what }: Message): TimelineRow {
  return { at, runId, eventId, who, what };
}

/** Which worker processes served the run, in order. */
export function workerChanges({ runId, events }: AuditRun): TimelineRow[] {
  let last = '';
  return events.flatMap(({ workflowTaskCompletedEventAttributes: task, eventTime: at, eventId }) => {
    if (!task || task.identity === last) return [];
    const what = last === '' ? 'first worker of the run' : `another worker than before (${last})`;
    last = task.identity;
    return [{ at, runId, eventId: Number(eventId), who: task.identity, what }];
  });
}
