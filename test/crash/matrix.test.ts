import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { repoRoot } from '../../src/lab/tools.ts';
import { runEpisode, type Episode, type Trouble } from './episode.ts';
import { openLane, type Lane } from './lane.ts';
import { activityNames, changingRequests, notReached, pointsOf } from './points.ts';
import { scenarios, type Scenario } from './scenarios.ts';
import { makeTemplate, type Template } from './scene.ts';
import { dieAt, endAtGate, nodeDies, serverDies } from './troubles.ts';

// A few of the runs of `npm run crash-matrix`, which makes all of them.

const name = 'matrix';
let template: Template;
let lane: Lane;
let expelled: Scenario;
let undisturbed: Episode;

beforeAll(async () => {
  rmSync(join(repoRoot, '.test', name), { recursive: true, force: true });
  template = await makeTemplate(name);
  lane = await openLane(join(repoRoot, '.test', name, 'lane'), template);
  const [first] = scenarios;
  if (!first) throw new Error('no scenario');
  expelled = first;
  undisturbed = await runEpisode(lane, expelled, { name: 'undisturbed' }, undefined);
});
afterAll(async () => {
  await lane?.stop();
  await template?.stop();
});

async function wrongOf(trouble: Trouble): Promise<{ wrong: readonly string[]; deaths: number }> {
  const { wrong, recoveries } = await runEpisode(lane, expelled, trouble, undisturbed.told);
  return { wrong, deaths: recoveries.length };
}

test('undisturbed, an incident has effects to lose: rows, notices, gates', () => {
  expect(undisturbed.wrong).toEqual([]);
  expect(undisturbed.told.rows.filter((row) => row.includes('peer_policy_updated'))).toHaveLength(2);
  expect(undisturbed.told.rows.filter((row) => row.startsWith('ourFacts') && row.includes('retracted: <run>')).length).toBeGreaterThan(3);
  expect(undisturbed.told.notices).toHaveLength(4);
  expect(undisturbed.told.openings).toEqual(['close#1', 'retract#1']);
});

test('points come from the code: what no scenario reaches is named', () => {
  const points = pointsOf([{ scenario: 'expelled', ms: 1, moments: undisturbed.moments, openings: [] }]).map(({ point }) => point);
  expect(points).toContain('before:fenceInbound#1');
  expect(points).toContain('after:undoFacts#1');
  expect(points).toContain('torn:seal#1');
  expect(points.some((point) => /^answered:undoFacts:POST \/v1\/facts#\d+$/.test(point))).toBe(true);
  expect(notReached([])).toHaveLength(activityNames().length + changingRequests().length);
  expect(changingRequests()).toContain('POST /v1/federation/capability-tokens/{}/revoke');
});

test('the worker dies when the fence is up and nobody was told, between two retractions, and in the middle of a line of evidence', async () => {
  const points = ['answered:fenceInbound:PATCH /v1/federation/peers/{}#1', 'answered:undoFacts:POST /v1/facts#2', 'torn:seal#1'];
  expect(await wrongOf(dieAt(...points))).toEqual({ wrong: [], deaths: 3 });
});

test('the worker ends at a gate, and the decision comes while nobody is there; after SIGTERM it goes on at once', async () => {
  expect(await wrongOf(endAtGate({ retract: 'kill', close: 'term' }))).toEqual({ wrong: [], deaths: 2 });
});

test('our node dies while it makes a retraction', async () => {
  expect((await wrongOf(nodeDies([{ request: 'POST /v1/facts', n: 2, when: 'meanwhile' }]))).wrong).toEqual([]);
});

test('the Temporal server dies twice', async () => {
  const tally = { kills: 0 };
  expect((await wrongOf(serverDies([1_000, 1_000], tally))).wrong).toEqual([]);
  expect(tally.kills).toBe(2);
});
