import Table from 'cli-table3';
import type { Episode } from './episode.ts';
import type { Job } from './jobs.ts';
import { percentile } from './measure.ts';

interface Group {
  readonly group: string;
  readonly runs: number;
  readonly failed: number;
  readonly deaths: number;
  readonly moved: Spread | null;
  readonly all: Spread | null;
}

interface Spread {
  readonly p50: number;
  readonly p95: number;
  readonly max: number;
}

export interface Summary {
  readonly ok: boolean;
  readonly seed: number;
  readonly ms: number;
  readonly notReached: readonly string[];
  readonly groups: readonly Group[];
  readonly total: Group;
  readonly repeatedNotices: number;
  /** Times SIGTERM came while the server was handing a workflow task to that worker: the task waits for its timeout. */
  readonly handedOutTooLate: number;
  readonly runs: readonly {
    readonly name: string;
    readonly ok: boolean;
    readonly ms: number;
    readonly wrong: readonly string[];
    readonly recoveries: Episode['recoveries'];
  }[];
}

type Result = { readonly job: Job; readonly episode: Episode };

export function summaryOf(
  results: readonly Result[],
  of: { readonly seed: number; readonly missing: readonly string[]; readonly ms: number },
): Summary {
  const names = [...new Set(results.map(({ job }) => job.group))];
  return {
    ok: of.missing.length === 0 && results.length > 0 && results.every(({ episode }) => episode.wrong.length === 0),
    seed: of.seed,
    ms: of.ms,
    notReached: of.missing,
    groups: names.map((name) =>
      groupOf(
        name,
        results.filter(({ job }) => job.group === name),
      ),
    ),
    total: groupOf('all', results),
    repeatedNotices: results.reduce((sum, { episode }) => sum + episode.told.repeats, 0),
    handedOutTooLate: results.flatMap(({ episode }) => episode.recoveries).filter(({ by, taskLost }) => by === 'SIGTERM' && taskLost)
      .length,
    runs: results.map(({ job, episode }) => ({
      name: job.name,
      ok: episode.wrong.length === 0,
      ms: episode.ms,
      wrong: episode.wrong,
      recoveries: episode.recoveries,
    })),
  };
}

function groupOf(group: string, results: readonly Result[]): Group {
  const recoveries = results.flatMap(({ episode }) => episode.recoveries);
  return {
    group,
    runs: results.length,
    failed: results.filter(({ episode }) => episode.wrong.length > 0).length,
    deaths: recoveries.length,
    moved: spread(recoveries.map(({ movedMs }) => movedMs)),
    all: spread(recoveries.map(({ allMs }) => allMs)),
  };
}

function spread(values: readonly number[]): Spread | null {
  if (values.length === 0) return null;
  return { p50: Math.round(percentile(values, 0.5)), p95: Math.round(percentile(values, 0.95)), max: Math.round(Math.max(...values)) };
}

/** The table people read. Times are milliseconds from the new worker's ready line (with a second worker: from the death). */
export function tableOf({ groups, total, seed, ms, notReached, ok, repeatedNotices, handedOutTooLate }: Summary): string {
  const table = new Table({
    head: ['what dies', 'runs', 'failed', 'recoveries', 'moved on p50', 'p95', 'max', 'all taken up p50', 'p95', 'max'],
    style: { head: [], border: [] },
  });
  const cells = (of: Spread | null): string[] => (of ? [of.p50, of.p95, of.max].map(String) : ['', '', '']);
  for (const each of [...groups, total])
    table.push([each.group, each.runs, each.failed, each.deaths, ...cells(each.moved), ...cells(each.all)]);
  return [
    table.toString(),
    `seed ${seed}, ${Math.round(ms / 60_000)} minutes; ${repeatedNotices} notices came twice, each under the key of the first`,
    `${handedOutTooLate} times the server gave a workflow task to a worker that SIGTERM had just stopped: it waits for the task's timeout`,
    ...(notReached.length > 0 ? [`NOT REACHED by any scenario: ${notReached.join(', ')}`] : []),
    ok ? 'passed' : 'FAILED',
  ].join('\n');
}
