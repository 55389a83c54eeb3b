import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createActivities } from '../../activities/index.ts';
import type { Deps } from '../../activities/deps.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import type { Moment } from './lane.ts';

// Where a worker can die is read off the code and off undisturbed runs of it: no list is kept by hand.

/** What an undisturbed run of a scenario came by. */
export interface DryRun {
  readonly scenario: string;
  readonly ms: number;
  readonly moments: readonly Moment[];
  /** Gates that opened, as `gate#opening`. */
  readonly openings: readonly string[];
}

/** One moment of one scenario at which a worker dies. */
export interface Point {
  readonly scenario: string;
  readonly point: string;
  readonly group: 'boundary' | 'inside' | 'evidence';
}

/** The names of all activities that the code registers. Making them touches nothing. */
export function activityNames(): string[] {
  const nothing = {} as Deps;
  return Object.keys(createActivities(nothing));
}

/** Requests of the node's client that are no reads: those of its source, as `METHOD /route` with `{}` for ids. */
export function changingRequests(): string[] {
  const source = readFileSync(join(repoRoot, 'src', 'stigmem', 'client.ts'), 'utf8');
  // The path stands in the call, or in a constant right before it.
  const calls = [
    ...source.matchAll(
      /(?:const path = `([^`]+)`;\s+return )?this\.(?:admin|agent)\('(POST|PATCH|PUT|DELETE)', (?:path|[`']([^`']+)[`'])/g,
    ),
  ];
  const declared = [...source.matchAll(/\('(?:POST|PATCH|PUT|DELETE)'/g)].length;
  const found = calls.map(([, before, method = '', direct]) => `${method} ${(before ?? direct ?? '').replaceAll(/\$\{[^}]*\}/g, '{}')}`);
  const changing = found.filter((request) => !/^POST \/v1\/(recall|lint)$/.test(request));
  if (found.length !== declared || found.some((request) => request.endsWith(' ')))
    throw new Error('a request of the client could not be read');
  return [...new Set(changing)];
}

/** What the code can do that no scenario came by. The matrix fails unless this is empty. */
export function notReached(runs: readonly DryRun[]): string[] {
  const points = new Set(runs.flatMap(({ moments }) => moments.map(({ point }) => point)));
  const activities = activityNames().filter((name) => !points.has(`before:${name}#1`));
  const requests = changingRequests().filter(
    (request) => ![...points].some((point) => point.startsWith('request:') && point.includes(`:${request}#`)),
  );
  return [...activities.map((name) => `activity ${name}`), ...requests.map((name) => `request ${name}`)];
}

const kinds = {
  boundary: ['before', 'after'],
  inside: ['request', 'answered', 'rpc', 'rpcdone'],
  evidence: ['append', 'torn', 'appended'],
} as const;

/**
 * Each point once, in the scenario that takes the least time: every call of every activity, before and after; of each
 * kind of change inside an activity the first, the middle and the last; of the evidence each activity seals the first piece.
 */
export function pointsOf(runs: readonly DryRun[]): Point[] {
  const taken = new Set<string>();
  const points: Point[] = [];
  for (const { scenario, moments } of runs.toSorted((a, b) => a.ms - b.ms)) {
    const seen = moments.map(({ point }) => point);
    const lastOf = new Map(seen.map((point) => [kindOf(point), numberOf(point)]));
    const wanted = (group: Point['group'], point: string): boolean => {
      const [n, last] = [numberOf(point), lastOf.get(kindOf(point)) ?? 1];
      if (group === 'boundary') return true;
      return n === 1 || (group === 'inside' && (n === last || n === Math.ceil(last / 2)));
    };
    const before = new Set(taken);
    for (const point of seen) {
      const group = (['boundary', 'inside', 'evidence'] as const).find((name) =>
        (kinds[name] as readonly string[]).includes(point.split(':')[0] ?? ''),
      );
      if (group === undefined || taken.has(point) || !wanted(group, point)) continue;
      // What another scenario does the same way needs its first, middle and last only once.
      if (group !== 'boundary' && before.has(kindOf(point))) continue;
      taken.add(point).add(kindOf(point));
      points.push({ scenario, point, group });
    }
  }
  return points;
}

/** `before:fenceInbound` of `before:fenceInbound#2`. */
function kindOf(point: string): string {
  return point.slice(0, point.lastIndexOf('#'));
}

function numberOf(point: string): number {
  return Number(point.slice(point.lastIndexOf('#') + 1));
}
