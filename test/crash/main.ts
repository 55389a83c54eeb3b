import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { repoRoot } from '../../src/lab/tools.ts';
import { runEpisode, type Episode } from './episode.ts';
import { jobsOf, type Job } from './jobs.ts';
import { openLane, type Lane } from './lane.ts';
import { notReached, type DryRun } from './points.ts';
import { scenarios } from './scenarios.ts';
import { makeTemplate } from './scene.ts';
import { summaryOf, tableOf } from './summary.ts';
import { differences, type Told } from './verdict.ts';

// `npm run crash-matrix`: every way a process can die under an incident, and what becomes of it.

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '20261123' },
    only: { type: 'string', default: '' },
    lanes: { type: 'string', default: '2' },
    deaths: { type: 'string', default: '3' },
  },
});
const seed = Number(values.seed);
const lanesWanted = Number(values.lanes);
/** Of a worker or a node in one run, at most. */
const deaths = Number(values.deaths);
if (!Number.isSafeInteger(seed) || ![1, 2, 3, 4].includes(lanesWanted) || ![1, 2, 3].includes(deaths)) {
  console.error(
    'usage: crash-matrix [--seed <whole number>] [--only <regular expression over the names>] [--lanes 1 to 4] [--deaths 1 to 3, in one run]',
  );
  process.exit(2);
}
const only = new RegExp(values.only);
const name = 'crash-matrix';
const dir = join(repoRoot, '.test', name);
const began = Date.now();
const since = () => `${Math.round((Date.now() - began) / 1_000)} s`;
const say = (text: string): void => console.log(`[${since()}] ${text}`);

rmSync(dir, { recursive: true, force: true });
mkdirSync(join(dir, 'failed'), { recursive: true });
say(`crash matrix, seed ${seed}`);
const template = await makeTemplate(name);
const lanes: Lane[] = [];
const results: { readonly job: Job; readonly episode: Episode }[] = [];
try {
  for (let n = 1; n <= lanesWanted; n += 1) lanes.push(await openLane(join(dir, `lane-${n}`), template));
  const expected = new Map<string, Told>();
  const runs: DryRun[] = [];
  const [firstLane] = lanes;
  if (!firstLane) throw new Error('no lane');
  for (const scenario of scenarios) {
    const episode = await runEpisode(firstLane, scenario, { name: 'undisturbed' }, undefined);
    if (episode.wrong.length > 0) throw new Error(`${scenario.name}, undisturbed: ${episode.wrong.join('\n')}`);
    say(`undisturbed ${scenario.name}: ${episode.ms} ms, ${episode.moments.length} moments`);
    expected.set(scenario.name, episode.told);
    runs.push({ scenario: scenario.name, ms: episode.ms, moments: episode.moments, openings: episode.told.openings });
  }
  const missing = notReached(runs);
  const plan = jobsOf(runs, seed, deaths);
  const jobs = plan.jobs.filter((job) => only.test(job.name));
  say(
    `${jobs.length} of ${plan.jobs.length} runs${missing.length > 0 ? `; NOT REACHED by any scenario: ${missing.join(', ')}` : '; every activity and every changing request is reached'}`,
  );

  const runOne = async (lane: Lane, job: Job): Promise<void> => {
    const scenario = scenarios.find((one) => one.name === job.scenario);
    const told = expected.get(job.scenario);
    if (!scenario || !told) throw new Error(`no scenario ${job.scenario}`);
    const episode = await runEpisode(lane, scenario, job.trouble, told);
    results.push({ job, episode });
    const moved = episode.recoveries.map(({ movedMs }) => Math.round(movedMs)).join(', ');
    say(
      `${episode.wrong.length > 0 ? 'FAILED' : 'ok'} ${job.name} (${episode.ms} ms${moved === '' ? '' : `, moved on after ${moved} ms`})`,
    );
    if (episode.wrong.length === 0) return;
    for (const line of episode.wrong) console.log(`    ${line.slice(0, 600)}`);
    const detail = { ...episode, differences: differences(episode.told, told) };
    writeFileSync(join(dir, 'failed', `${results.length}.json`), JSON.stringify({ job: job.name, ...detail }, null, 1));
  };
  const work = async (lane: Lane, queue: Job[]): Promise<void> => {
    for (let job = queue.shift(); job; job = queue.shift()) await runOne(lane, job);
  };
  const alone = jobs.filter(({ crew }) => crew === 1);
  await Promise.all(lanes.map((lane) => work(lane, alone)));
  // Kills of the server and at random moments are counted as they come about: more incidents until there are enough.
  if (values.only === '')
    await Promise.all(
      lanes.map(async (lane) => {
        for (let job = plan.next(); job; job = plan.next()) await runOne(lane, job);
      }),
    );
  const pairs = jobs.filter(({ crew }) => crew === 2);
  if (pairs.length > 0) {
    await Promise.all(lanes.map((lane) => lane.second()));
    await Promise.all(lanes.map((lane) => work(lane, pairs)));
  }
  const summary = summaryOf(results, { seed, missing, ms: Date.now() - began });
  writeFileSync(join(dir, 'result.json'), JSON.stringify(summary, null, 2));
  console.log(tableOf(summary));
  console.log(`as JSON: ${join(dir, 'result.json')}`);
  process.exitCode = summary.ok ? 0 : 1;
} finally {
  await Promise.allSettled(lanes.map((lane) => lane.stop()));
  await template.stop();
}
