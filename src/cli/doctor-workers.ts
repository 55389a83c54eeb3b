import proto from '@temporalio/proto';
import { spanWords } from '../contract/duration.ts';
import { withDeadline, type TemporalSession } from '../temporal.ts';
import { about, type Check, type Finding } from './doctor-finding.ts';
import { serverMs } from './incident.ts';
import { clean } from './text.ts';

const { TASK_QUEUE_TYPE_WORKFLOW: workflowQueue, TASK_QUEUE_TYPE_ACTIVITY: activityQueue } = proto.temporal.api.enums.v1.TaskQueueType;
/** A worker with nothing to do asks again after a minute; the server remembers dead ones longer than that. */
const longPollMs = 75_000;

/** One worker, as the server last saw it. */
interface Poller {
  readonly identity: string;
  readonly build: string;
  readonly ageMs: number;
}

async function pollersOf({ client, settings }: TemporalSession, name: string, type: number): Promise<Poller[]> {
  const { namespace } = settings;
  const answer = await withDeadline(client, serverMs, () =>
    client.workflowService.describeTaskQueue({ namespace, taskQueue: { name }, taskQueueType: type }),
  );
  return answer.pollers
    .map(({ identity, lastAccessTime, deploymentOptions, workerVersionCapabilities }) => ({
      identity: clean(identity ?? '?'),
      build: clean(deploymentOptions?.buildId || workerVersionCapabilities?.buildId || ''),
      ageMs: Math.max(0, Date.now() - Number(lastAccessTime?.seconds ?? 0) * 1_000),
    }))
    .filter(({ ageMs }) => ageMs <= longPollMs)
    .toSorted((a, b) => a.ageMs - b.ageMs);
}

/** Milliseconds since a worker last asked for workflow tasks; undefined when none did for a while. */
export async function lastPoll(session: TemporalSession, name: string): Promise<number | undefined> {
  return (await pollersOf(session, name, workflowQueue))[0]?.ageMs;
}

export function workerChecks(session: TemporalSession, taskQueue: string, hostTaskQueue: string): Check[] {
  return [
    { name: 'worker', look: () => workersCheck(session, taskQueue) },
    { name: 'host worker', look: () => hostCheck(session, hostTaskQueue) },
  ];
}

async function workersCheck(session: TemporalSession, taskQueue: string): Promise<Finding> {
  const { ok, warn, fail } = about('worker');
  const pollers = await pollersOf(session, taskQueue, workflowQueue);
  const [latest] = pollers;
  if (!latest) return fail(`none polls task queue ${taskQueue}: incidents stand still`, 'cordon worker');
  const builds = [...new Set(pollers.map(({ build }) => build).filter((build) => build !== ''))];
  const who = pollers
    .slice(0, 5)
    .map(({ identity, build }) => (build === '' ? identity : `${identity} (build ${shortBuild(build)})`))
    .join(', ');
  const more = pollers.length > 5 ? `, and ${pollers.length - 5} more` : '';
  const found = `${pollers.length} on task queue ${taskQueue}, the last asked ${spanWords(latest.ageMs)} ago: ${who}${more}`;
  if (builds.length <= 1) return ok(found);
  return warn(
    `${found}; ${builds.length} builds at once`,
    'finish the upgrade: stop the workers of the older build (one that was just stopped is shown for a minute)',
  );
}

async function hostCheck(session: TemporalSession, hostTaskQueue: string): Promise<Finding> {
  const { ok, warn } = about('host worker');
  const [latest] = await pollersOf(session, hostTaskQueue, activityQueue);
  if (latest) return ok(`asked task queue ${hostTaskQueue} ${spanWords(latest.ageMs)} ago: ${latest.identity}`);
  return warn(
    `none on task queue ${hostTaskQueue}: keys, trust rules and pins of the peer are steps by hand, and what a retraction would harm is held`,
    "on the node's machine: cordon host-worker; without it do those steps as `cordon show` says",
  );
}

/** A build of an unversioned worker is the hash of its workflow code. */
function shortBuild(build: string): string {
  return build.replace(/^(.*\+)?([0-9a-f]{12})[0-9a-f]{20,}$/, '$2');
}
