import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { differences, type Reference } from '../checks.ts';
import { play } from '../drive.ts';
import type { FaultKind } from '../kinds.ts';
import { withOutages } from '../outages.ts';
import { openStage, reference, type Stage } from '../stage.ts';

let stage: Stage;
let untouched: Reference;
beforeAll(async () => {
  stage = await openStage('faults-outages', 5);
  untouched = await reference(stage);
}, 600_000);
afterAll(async () => {
  await stage?.stop();
});

const triggers = [
  { activity: 'resolvePeer', method: 'GET', step: 'resolvePeer' },
  { activity: 'fenceOutbound', method: 'PATCH', step: 'fenceOutbound' },
  { activity: 'collectFacts', method: 'POST', step: 'collectFacts' },
  { activity: 'notifyDownstream', method: 'GET', step: 'notifyDownstream' },
  { activity: 'remakePlan', method: 'GET', step: 'assess' },
  { activity: 'undoFacts', method: 'POST', step: 'undoFacts' },
  { activity: 'verifyUndone', method: 'POST', step: 'verifyUndone' },
  { activity: 'restoreTrust', method: 'DELETE', step: 'restoreTrust' },
  { activity: 'liftFences', method: 'PATCH', step: 'liftFences' },
];

test.concurrent('down for more than a minute in every phase: nothing changes meanwhile, and it goes on by itself', async () => {
  const { world, played, outages } = await withOutages(stage, { id: 'outages', triggers, holdMs: 60_000 });
  expect(outages.map(({ at }) => at)).toEqual(triggers.map(({ activity, method }) => `${activity} ${method}`));
  for (const { at, why, how, before, after, seconds } of outages) {
    expect([at, why]).toEqual([at, expect.stringContaining('the connection was refused, so nothing listens there (ECONNREFUSED)')]);
    expect(how).toContain('tries again by itself');
    expect(seconds).toBeGreaterThan(60);
    expect([at, after]).toEqual([at, before]);
  }
  expect(await differences(world, played, untouched)).toEqual([]);
});

test.concurrent('a change that reaches the node half a minute late, when it was made again already, does nothing more', async () => {
  const late: FaultKind = {
    name: 'late',
    make: () => ({ kind: 'delay', ms: 30_000 }),
    type: 'StigmemUnavailable',
    came: /complete answer within 15000 ms/,
  };
  const world = await stage.world({
    id: 'late',
    faultAt: (_activity, route) => (/^(PATCH|DELETE) |^POST .*(facts|origin-pins|reject)/.test(route) ? late : undefined),
    hitsOf: () => 1,
  });
  // The fences that come late must have come before they are lifted.
  const played = await play(stage.client, world, { beforeClose: () => sleep(31_000) });
  await sleep(31_000);
  expect(world.cells.map(({ activity, route }) => `${activity} ${route.split(' ')[0]}`).toSorted()).toEqual([
    'blockRelays POST',
    'fenceInbound PATCH',
    'fenceOutbound PATCH',
    'liftFences PATCH',
    'restoreTrust DELETE',
    'undoFacts POST',
    'undoFacts POST',
  ]);
  for (const { failures } of world.cells) expect(failures[0]?.message).toMatch(late.came);
  // Each came twice; the rows are those of one.
  const found = await differences(world, played, untouched);
  expect(found.filter((what) => !/times, expected|the policy was written 6 times/.test(what))).toEqual([]);
});
