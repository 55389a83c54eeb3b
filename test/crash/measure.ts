import type { Client } from '@temporalio/client';
import { hostname } from 'node:os';
import type { Moment, Restart } from './lane.ts';

/** How an incident went on after one death of a worker. */
export interface Recovery {
  readonly by: Restart['by'];
  /** From the new worker's ready line to the first thing it did for the incident. */
  readonly movedMs: number;
  /** The same to when all that was under way at the death was taken up again. */
  readonly allMs: number;
  /** The same to the first workflow task. */
  readonly taskMs: number;
  /** From the death to the new worker's ready line. */
  readonly downMs: number;
  /** A workflow task was under way when the worker died. */
  readonly taskLost: boolean;
  /** Activities that were under way. */
  readonly inFlight: readonly string[];
}

interface Deed {
  readonly at: number;
  readonly identity: string;
  readonly run: string;
  /** Empty for a workflow task. */
  readonly activityId: string;
}

/** What workers did, as the server's histories have it. */
export interface Deeds {
  readonly deeds: readonly Deed[];
  /** When workflow tasks that a worker had begun were given up. */
  readonly tasksLost: readonly number[];
}

const startToClose = 1;

export async function deedsOf(client: Client, workflowIds: readonly string[]): Promise<Deeds> {
  const deeds: Deed[] = [];
  const tasksLost: number[] = [];
  for (const workflowId of workflowIds) {
    const handle = client.workflow.getHandle(workflowId);
    const { runId: run } = await handle.describe();
    const { events } = await handle.fetchHistory();
    const scheduled = new Map<string, string>();
    for (const event of events ?? []) {
      const at = Number(event.eventTime?.seconds ?? 0) * 1_000 + Number(event.eventTime?.nanos ?? 0) / 1e6;
      const {
        activityTaskScheduledEventAttributes: asked,
        activityTaskStartedEventAttributes: act,
        workflowTaskStartedEventAttributes: task,
      } = event;
      if (asked) scheduled.set(String(event.eventId), asked.activityId ?? '');
      if (act) deeds.push({ at, identity: act.identity ?? '', run, activityId: scheduled.get(String(act.scheduledEventId)) ?? '' });
      if (task) deeds.push({ at, identity: task.identity ?? '', run, activityId: '' });
      if (event.workflowTaskTimedOutEventAttributes?.timeoutType === startToClose) tasksLost.push(at);
    }
  }
  return { deeds: deeds.toSorted((a, b) => a.at - b.at), tasksLost };
}

/**
 * How it went on after each death. A death after which nothing was left to do has no recovery. With another worker alive
 * the wait begins with the death, and ends with what any of them does.
 */
export function recoveriesOf(
  { deeds, tasksLost }: Deeds,
  restarts: readonly Restart[],
  moments: readonly Moment[],
  alone: boolean,
): Recovery[] {
  return restarts.flatMap(({ killedAt, readyAt, deadPid, pid, by }) => {
    const from = alone ? readyAt : killedAt;
    const mine = ({ identity }: Deed) => (alone ? identity === `${pid}@${hostname()}` : identity !== `${deadPid}@${hostname()}`);
    // An attempt that died in its turn stands in no history: the worker's own notes have it.
    const noted = moments
      .filter(({ point, pid: who }) => point.startsWith('before:') && (alone ? who === pid : who !== deadPid))
      .map(({ at, id = '', run = '', pid: who }) => ({ at, activityId: id, run, identity: `${who}@${hostname()}` }));
    const own = [...deeds.filter(mine), ...noted].filter(({ at }) => at >= killedAt).toSorted((a, b) => a.at - b.at);
    const [first] = own;
    if (!first) return [];
    const flying = flyingAt(moments, killedAt, deadPid);
    const taken = flying.flatMap(({ id, run }) => own.find((deed) => deed.activityId === id && deed.run === run)?.at ?? []);
    const firstTask = own.find(({ activityId }) => activityId === '');
    return [
      {
        by,
        movedMs: Math.max(0, first.at - from),
        allMs: Math.max(0, first.at - from, ...taken.map((at) => at - from)),
        taskMs: firstTask ? Math.max(0, firstTask.at - from) : 0,
        downMs: readyAt - killedAt,
        taskLost: tasksLost.some((at) => at > killedAt && at < killedAt + 12_000),
        inFlight: flying.map(({ point }) => point.slice(point.indexOf(':') + 1, point.indexOf('#'))),
      },
    ];
  });
}

/** Activities that had begun and not ended when the worker died. */
function flyingAt(moments: readonly Moment[], killedAt: number, deadPid: number): Moment[] {
  const his = moments.filter(({ pid }) => pid === deadPid);
  const ended = new Set(
    his.filter(({ point, fatal }) => point.startsWith('after:') && !fatal).map(({ id, run, attempt }) => `${run} ${id} ${attempt}`),
  );
  return his.filter(
    ({ point, at, id, run, attempt }) => at <= killedAt + 5 && point.startsWith('before:') && !ended.has(`${run} ${id} ${attempt}`),
  );
}

/** The share `p` of the values is at most this. */
export function percentile(values: readonly number[], p: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * p) - 1)] ?? Number.NaN;
}
