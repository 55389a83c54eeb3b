import { setTimeout as sleep } from 'node:timers/promises';
import { waitUntil } from '../../src/lab/processes.ts';
import type { Lane, Moment } from './lane.ts';
import { deedsOf, recoveriesOf, type Recovery } from './measure.ts';
import type { AtGate, Operator, StartedBy } from './operator.ts';
import type { Scenario } from './scenarios.ts';
import { differences, lessLostNotes, tell, type Told } from './verdict.ts';

/** What happens to one run. */
export interface Trouble {
  readonly name: string;
  /** The worker dies here by its own hand; with several, in one after the other. */
  readonly points?: readonly string[];
  readonly startedBy?: StartedBy;
  readonly atGate?: (lane: Lane) => AtGate;
  /** Goes on beside the incident until it has ended. */
  readonly beside?: (lane: Lane, ended: () => boolean) => Promise<void>;
  /** Before the incident starts. */
  readonly before?: (lane: Lane) => Promise<void>;
  /** Did it come to it? Without this: of itself. */
  readonly fired?: () => boolean;
  /** How often our node dies in it. */
  readonly nodeDeaths?: number;
}

export interface Episode {
  readonly scenario: string;
  readonly trouble: string;
  readonly told: Told;
  readonly moments: readonly Moment[];
  readonly recoveries: readonly Recovery[];
  /** What is wrong with it; empty when all is as it must be. */
  readonly wrong: readonly string[];
  readonly ms: number;
}

const limitMs = 180_000;

/** The longest an incident may take to move on. */
function boundOf({ by, taskLost }: Recovery, startedBy: StartedBy): number {
  if (by === 'SIGTERM') return 500;
  return taskLost && startedBy === 'others' ? 11_000 : 6_000;
}

let episodes = 0;

/** Runs one incident of the scenario in this trouble, and judges it by the undisturbed one. */
export async function runEpisode(lane: Lane, scenario: Scenario, trouble: Trouble, expected: Told | undefined): Promise<Episode> {
  episodes += 1;
  const began = Date.now();
  const id = `crash-${scenario.name}-${episodes}`;
  const startedBy = trouble.startedBy ?? 'cordon';
  const { points = [] } = trouble;
  await lane.reset({ id, points, ...(scenario.policy ? { policy: scenario.policy } : {}) });
  await scenario.prepare?.(lane);
  await trouble.before?.(lane);
  const deaths = lane.crews.map(({ restarts }) => restarts.length);
  let over = false;
  let beside: Promise<void> = Promise.resolve();
  const begun = (): void => {
    beside = trouble.beside?.(lane, () => over) ?? Promise.resolve();
    beside.catch(() => undefined);
  };
  const atGate = trouble.atGate?.(lane) ?? (async (_gate, decide) => decide());
  const wrong: string[] = [];
  let told: Told = { reports: [], rows: [], notices: [], openings: [], problems: [], repeats: 0 };
  let recoveries: Recovery[] = [];
  try {
    const work = async (): Promise<readonly Operator[]> => {
      const people = await scenario.play({ lane, client: lane.client, id, startedBy, atGate, begun });
      over = true;
      await beside;
      await Promise.all(people.map((one) => sealed(lane, one)));
      return people;
    };
    const people = await within(limitMs, work());
    told = await tell(lane, people);
    const deeds = await deedsOf(
      lane.client,
      people.flatMap((one) => [one.id, sealOf(one)]),
    );
    // A worker that dies when all is done is up again a moment later.
    await sleep(100);
    await Promise.all(lane.crews.map((crew) => crew.settled()));
    const restarts = lane.crews.flatMap((crew, at) => crew.restarts.slice(deaths[at]));
    recoveries = recoveriesOf(deeds, restarts, lane.moments(), lane.crews.length === 1);
    wrong.push(...told.problems, ...(expected ? lessLostNotes(differences(told, expected), trouble.nodeDeaths ?? 0) : []));
    const reached = new Set(lane.moments().flatMap(({ fatal, point }) => (fatal ? [point] : [])));
    wrong.push(...points.filter((point) => !reached.has(point)).map((point) => `the worker never came to ${point}`));
    if (trouble.fired?.() === false) wrong.push('the run never came to it');
    for (const recovery of recoveries) {
      const { by, movedMs, inFlight } = recovery;
      const bound = boundOf(recovery, startedBy);
      if (movedMs <= bound) continue;
      wrong.push(
        `moved on ${Math.round(movedMs)} ms after the new worker was ready (${by}, in flight: ${inFlight.join(', ') || 'nothing'}); the bound is ${bound}`,
      );
    }
  } catch (error) {
    over = true;
    wrong.push(
      error instanceof Error ? `${error.message}${error.cause instanceof Error ? `: ${error.cause.message}` : ''}` : String(error),
    );
    await clear(lane);
  }
  return { scenario: scenario.name, trouble: trouble.name, told, moments: lane.moments(), recoveries, wrong, ms: Date.now() - began };
}

const sealOf = ({ firstRun }: Operator): string => `cordon-seal:${firstRun}:${firstRun}`;

/** The history is sealed by a workflow of its own, after the incident. */
async function sealed(lane: Lane, one: Operator): Promise<void> {
  const handle = lane.client.workflow.getHandle(sealOf(one));
  await waitUntil('the history to be sealed', async () => (await handle.describe()).status.name === 'COMPLETED', { timeoutMs: 60_000 });
}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  const late = sleep(ms, undefined, { ref: false }).then(() => {
    throw new Error(`it had not ended after ${ms / 1_000} s`);
  });
  return Promise.race([work, late]);
}

/** What a failed run left open must not hold the next one. */
async function clear(lane: Lane): Promise<void> {
  await waitUntil('a clear lane', async () => {
    for await (const { workflowId, runId } of lane.client.workflow.list({ query: "ExecutionStatus='Running'" })) {
      await lane.client.workflow
        .getHandle(workflowId, runId)
        .terminate('the run failed')
        .catch(() => undefined);
    }
    return true;
  });
}
