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
export function jobsOf(runs: readonly DryRun[], seed: number): { readonly jobs: Job[]; next(): Job | undefined } {
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
  const requests = inside.filter(({ point }) => point.startsWith('request:') && !point.includes(':POST webhook'));
  const jobs = [
    ...points.filter(({ group }) => group !== 'evidence').map(({ group, scenario, point }) => job(group, scenario, dieAt(point))),
    ...evidenceDeaths(points).map(({ scenario, points: several }) => job('evidence', scenario, dieAt(...several))),
    ...gates.map(({ scenario, gate }) => job('gate', scenario, endAtGate(gate, 'kill'))),
    ...gates.map(({ scenario, gate }) => job('sigterm', scenario, endAtGate(gate, 'term'))),
    ...requests.flatMap(({ scenario, point }) => {
      const { request, n } = requestOf(
        point,
        runs.find((run) => run.scenario === scenario),
      );
      return nodeMoments.map((when) => job('node', scenario, nodeDies(request, n, when)));
    }),
    ...inside
      .filter(({ point }) => /^(answered|rpcdone):/.test(point))
      .map(({ scenario, point }) => job('second', scenario, dieAt(point), 2)),
    ...gates.map(({ scenario, gate }) => job('second', scenario, endAtGate(gate, 'kill'), 2)),
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

/** Every piece of evidence is sealed by the same few lines of code: three deaths in one run, each in another activity. */
function evidenceDeaths(points: readonly Point[]): { scenario: string; points: string[] }[] {
  const deaths: { scenario: string; points: string[] }[] = [];
  const left = points.filter(({ group }) => group === 'evidence');
  const of = (point: string): string => point.slice(point.indexOf(':') + 1, point.indexOf('#'));
  for (let first = left.shift(); first; first = left.shift()) {
    const together = [first];
    for (let at = 0; at < left.length && together.length < 3;) {
      const next = left[at];
      if (next && next.scenario === first.scenario && together.every(({ point }) => of(point) !== of(next.point)))
        together.push(...left.splice(at, 1));
      else at += 1;
    }
    deaths.push({ scenario: first.scenario, points: together.map(({ point }) => point) });
  }
  return deaths;
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
function requestOf(point: string, run: DryRun | undefined): { request: string; n: number } {
  const name = (text: string): string => text.slice(text.indexOf(':', text.indexOf(':') + 1) + 1, text.lastIndexOf('#'));
  const request = name(point);
  const same = (run?.moments ?? []).map((moment) => moment.point).filter((one) => one.startsWith('request:') && name(one) === request);
  return { request, n: same.indexOf(point) + 1 };
}
