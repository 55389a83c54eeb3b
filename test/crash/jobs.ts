import type { Trouble } from './episode.ts';
import { pointsOf, type DryRun, type Point } from './points.ts';
import { dieAt, endAfter, endAtGate, nodeDies, nodeMoments, randomOf, serverDies } from './troubles.ts';

/** One run of the matrix. */
export interface Job {
  readonly name: string;
  readonly group: Point['group'] | 'gate' | 'random' | 'sigterm' | 'server' | 'node' | 'second';
  readonly scenario: string;
  readonly trouble: Trouble;
  /** Workers on the queue. */
  readonly crew: 1 | 2;
}

const randomKills = 100;
const serverKills = 20;
const killsAnIncident = 4;
const sigtermIncidents = 6;

/** All runs, and a source of more until the kills that are counted as they come about are enough. */
export function jobsOf(runs: readonly DryRun[], seed: number, deaths: number): { readonly jobs: Job[]; next(): Job | undefined } {
  const points = pointsOf(runs);
  const job = (group: Job['group'], scenario: string, trouble: Trouble, crew: Job['crew'] = 1): Job => ({
    name: `${group}: ${scenario}: ${trouble.name}${crew === 2 ? ', a second worker alive' : ''}`,
    group,
    scenario,
    trouble,
    crew,
  });
  const gates = gatesOf(runs);
  const inside = points.filter(({ group }) => group === 'inside');
  const dying = (several: readonly Point[], group: Job['group'], crew: Job['crew'] = 1): Job[] =>
    spaced(several, deaths).map((those) => job(group, those[0]?.scenario ?? '', dieAt(...those.map(({ point }) => point)), crew));
  const requests = inside
    .filter(({ point }) => point.startsWith('request:') && !point.includes(':POST webhook'))
    .map((point) => ({ ...point, ...requestOf(point, runs) }));
  const jobs = [
    ...dying(inside, 'inside'),
    ...gates.map(({ scenario, gate }) => job('gate', scenario, endAtGate({ [gate]: 'kill' }))),
    ...gates.map(({ scenario, gate }) => job('sigterm', scenario, endAtGate({ [gate]: 'term' }))),
    // Each request meets each kind of death, in runs that hold different requests and different kinds.
    ...nodeMoments.flatMap((_, turn) =>
      spaced(requests, deaths, ({ request }) => request).map((those) => {
        const deathsOf = those.map(({ request, n }, at) => ({
          request,
          n,
          when: nodeMoments[(at + turn) % nodeMoments.length] ?? 'before',
        }));
        return job('node', those[0]?.scenario ?? '', nodeDies(deathsOf));
      }),
    ),
    ...dying(
      points.filter(({ group }) => group === 'boundary'),
      'boundary',
    ),
    ...dying(
      points.filter(({ group }) => group === 'evidence'),
      'evidence',
    ),
    ...dying(
      inside.filter(({ point }) => /^(answered|rpcdone):/.test(point)),
      'second',
      2,
    ),
    ...gates.map(({ scenario, gate }) => job('second', scenario, endAtGate({ [gate]: 'kill' }), 2)),
  ];
  const tally = { random: 0, made: 0, sigterm: 0, server: { kills: 0 } };
  const draw = (n: number): { readonly run: DryRun; readonly delays: number[] } => {
    const random = randomOf(seed + n);
    const run = runs[Math.floor(random() * runs.length)];
    if (!run) throw new Error('no scenario');
    return { run, delays: Array.from({ length: killsAnIncident }, () => random() * run.ms) };
  };
  return {
    jobs,
    next() {
      tally.made += 1;
      const { run, delays } = draw(tally.made);
      if (tally.sigterm < sigtermIncidents) {
        tally.sigterm += 1;
        return job('sigterm', run.scenario, endAfter('term', delays));
      }
      if (tally.server.kills < serverKills) return job('server', run.scenario, serverDies(delays, tally.server));
      if (tally.random >= randomKills) return undefined;
      const trouble = endAfter('kill', delays, tally.made % 2 === 0 ? 'cordon' : 'others');
      return job('random', run.scenario, {
        ...trouble,
        beside: async (lane, ended) => {
          const before = lane.crew.restarts.length;
          await trouble.beside?.(lane, ended);
          tally.random += lane.crew.restarts.length - before;
        },
      });
    },
  };
}

/**
 * Several deaths in one run, as far from each other as can be. Points that are not the first of their kind have a run of
 * their own: a worker that starts anew counts anew.
 */
function spaced<T extends Point>(points: readonly T[], most: number, unlike: (point: T) => string = ({ point }) => point): T[][] {
  const runs: T[][] = [];
  for (const scenario of new Set(points.map((point) => point.scenario))) {
    const all = points.filter((point) => point.scenario === scenario);
    const firsts = all.filter(({ point }) => point.endsWith('#1'));
    const apart = Math.ceil(firsts.length / most);
    const together: T[][] = Array.from({ length: apart }, () => []);
    for (const [at, point] of firsts.entries()) {
      const run = together[at % apart];
      if (run?.every((other) => unlike(other) !== unlike(point))) run.push(point);
      else together.push([point]);
    }
    runs.push(...together, ...all.filter(({ point }) => !point.endsWith('#1')).map((point) => [point]));
  }
  return runs;
}

/** Each gate that opens, in the scenario that takes the least time. */
function gatesOf(runs: readonly DryRun[]): { scenario: string; gate: string }[] {
  const found = new Map<string, string>();
  for (const { scenario, openings } of runs.toSorted((a, b) => a.ms - b.ms)) {
    for (const opening of openings) {
      const gate = opening.slice(0, opening.indexOf('#'));
      if (!found.has(gate)) found.set(gate, scenario);
    }
  }
  return [...found].map(([gate, scenario]) => ({ scenario, gate }));
}

/** The request a point is about, and which one it is of its kind in the run, whoever sends it. */
function requestOf({ point, scenario }: Point, runs: readonly DryRun[]): { request: string; n: number } {
  const name = (text: string): string => text.slice(text.indexOf(':', text.indexOf(':') + 1) + 1, text.lastIndexOf('#'));
  const request = name(point);
  const moments = runs.find((run) => run.scenario === scenario)?.moments ?? [];
  const same = moments.map((moment) => moment.point).filter((one) => one.startsWith('request:') && name(one) === request);
  return { request, n: same.indexOf(point) + 1 };
}
