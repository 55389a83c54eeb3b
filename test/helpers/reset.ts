import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import { temporalBin } from '../../src/lab/tools.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { approve, closeAs, decide, gateOpen, status, until, type Incident, type devServer } from './workflow-env.ts';

type DevServer = Pick<Awaited<ReturnType<typeof devServer>>, 'address' | 'client'>;

/** The last workflow task that completed so far. */
export async function lastTask(incident: Incident): Promise<number> {
  const { events } = await incident.fetchHistory();
  const tasks = (events ?? []).flatMap(({ eventId, workflowTaskCompletedEventAttributes: task }) => (task ? [Number(eventId)] : []));
  return tasks.at(-1) ?? 0;
}

/** A task of its own after all that happened so far: a reset to it keeps all of that. */
export async function nextTask(incident: Incident): Promise<number> {
  const { notes } = await status(incident);
  await incident.signal('note', { by: 'alice', text: 'a task' });
  await until(incident, (now) => now.notes.length > notes.length, 'the note');
  return lastTask(incident);
}

/** The first task that completed after an activity of this name was scheduled; before it ended, where nothing else happened. */
export async function taskBefore(incident: Incident, activity: string): Promise<number> {
  const { events } = await incident.fetchHistory();
  const scheduled = (events ?? []).find(({ activityTaskScheduledEventAttributes: of }) => of?.activityType?.name === activity);
  return Number(scheduled?.activityTaskScheduledEventAttributes?.workflowTaskCompletedEventId ?? 0);
}

/** Resets to right before the task with this event id; signals and updates that came after are applied again. */
export async function reset(env: DevServer, incident: Incident, eventId: number): Promise<Incident> {
  const { runId } = await incident.describe();
  const args = [
    'workflow',
    'reset',
    '--address',
    env.address,
    '-w',
    incident.workflowId,
    '-r',
    runId,
    '--event-id',
    String(eventId),
    '--reason',
    'test',
    '--output',
    'json',
  ];
  const { stdout } = await promisify(execFile)(temporalBin(), args);
  const answer: { runId: string } = JSON.parse(stdout);
  return env.client.workflow.getHandle<typeof PeerCompromise>(incident.workflowId, answer.runId);
}

export const because = (now: Awaited<ReturnType<typeof status>>) => now.refused.last.map(({ by, because: why }) => `${by} ${why}`);

/** After a reset: the old approval is on record as void, nothing was done meanwhile, and a new one ends it well. */
export async function approvedAnew(
  copy: Incident,
  oldDigest: string,
  undone: ReadonlyMap<string, number>,
  before: ReadonlyMap<string, number>,
): Promise<void> {
  const { digest } = await gateOpen(copy, 'retract');
  expect(digest).not.toBe(oldDigest);
  expect(await decide(copy, { gate: 'retract', decision: 'approve', digest: oldDigest, by: 'bob' })).toMatchObject({ accepted: false });
  expect(undone).toEqual(before);
  expect(await approve(copy, 'retract', 'carol')).toMatchObject({ accepted: true });
  await until(copy, ({ phase }) => phase === 'rotate', 'rotate');
  expect(undone.get('fact-b')).toBe((before.get('fact-b') ?? 0) + 1);
  expect(await closeAs(copy, 'expelled')).toMatchObject({ outcome: 'expelled' });
}
