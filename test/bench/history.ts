import type { Client } from '@temporalio/client';
import proto from '@temporalio/proto';
import type { Incident } from './incident.ts';

/** One activity of a run, by the server's clock, in milliseconds since 1970. */
export interface ActivityTimes {
  readonly name: string;
  readonly scheduledAt: number;
  readonly startedAt: number;
  readonly endedAt: number;
}

/** What a run's history says about itself. */
export interface HistoryFigures {
  readonly events: number;
  readonly bytes: number;
  readonly byType: Readonly<Record<string, number>>;
  readonly activities: readonly ActivityTimes[];
  /** When each signal of this name was taken in. */
  signalsAt(name: string): number[];
}

interface Stamp {
  readonly seconds?: unknown;
  readonly nanos?: number | null;
}

function ms(stamp: Stamp | null | undefined): number {
  return Number(stamp?.seconds ?? 0) * 1_000 + (stamp?.nanos ?? 0) / 1e6;
}

/** Reads the whole history of one run. `bytes` is the server's own measure, which its limits go by. */
export async function historyOf(client: Client, workflowId: string): Promise<HistoryFigures> {
  const handle = client.workflow.getHandle(workflowId);
  const [{ events: found }, { historySize = 0 }] = await Promise.all([handle.fetchHistory(), handle.describe()]);
  const events = found ?? [];
  // The server that skips time does not say.
  const bytes = historySize > 0 ? historySize : proto.temporal.api.history.v1.History.encode({ events }).finish().length;
  const byType: Record<string, number> = {};
  const scheduled = new Map<string, { name: string; scheduledAt: number; startedAt: number; endedAt: number }>();
  const signals: { name: string; at: number }[] = [];
  for (const event of events) {
    const type =
      Object.keys(event)
        .find((name) => name.endsWith('EventAttributes'))
        ?.replace('EventAttributes', '') ?? 'unknown';
    byType[type] = (byType[type] ?? 0) + 1;
    const at = ms(event.eventTime);
    const { activityTaskScheduledEventAttributes: made, activityTaskStartedEventAttributes: started } = event;
    const ended = event.activityTaskCompletedEventAttributes ?? event.activityTaskFailedEventAttributes;
    if (made) scheduled.set(String(event.eventId), { name: made.activityType?.name ?? '', scheduledAt: at, startedAt: 0, endedAt: 0 });
    const begun = scheduled.get(String(started?.scheduledEventId));
    if (begun) begun.startedAt = at;
    const done = scheduled.get(String(ended?.scheduledEventId));
    if (done) done.endedAt = at;
    const signal = event.workflowExecutionSignaledEventAttributes;
    if (signal) signals.push({ name: signal.signalName ?? '', at });
  }
  return {
    events: events.length,
    bytes,
    byType,
    activities: [...scheduled.values()],
    signalsAt: (name) => signals.flatMap((signal) => (signal.name === name ? [signal.at] : [])),
  };
}

/** The last activity of this name in an incident that goes on: fetched until it has ended. */
export async function activityOf(client: Client, incident: Incident, name: string): Promise<ActivityTimes | undefined> {
  const { activities } = await historyOf(client, incident.workflowId);
  return activities.findLast((activity) => activity.name === name && activity.endedAt > 0);
}
