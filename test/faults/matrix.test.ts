import { afterAll, beforeAll, expect, test } from 'vitest';
import { failureTypes } from '../../src/contract/failures.ts';
import { differences, type Reference } from './checks.ts';
import { faultKinds, type FaultKind } from './kinds.ts';
import { withOutages } from './outages.ts';
import { openStage, outcomeOf, reference, type Stage } from './stage.ts';
import type { Cell } from './world.ts';

let stage: Stage;
let untouched: Reference;
beforeAll(async () => {
  stage = await openStage('faults', 2);
  untouched = await reference(stage);
});
afterAll(async () => {
  await stage?.stop();
});

const isRetried = ({ type }: FaultKind): boolean => failureTypes[type].retryable;

/** The kinds take turns over all the routes of all activities: each route meets one, each kind is met. */
test.concurrent('every route of every activity meets a fault in one incident: parks or retries, says what is wrong, and ends as if nothing had been', async () => {
  const kindAt = new Map(untouched.cells.toSorted().map((cell, index) => [cell, faultKinds[index % faultKinds.length]]));
  const hasParked = (cell: Cell): boolean =>
    cell.end === 'parked' && faultKinds.some((kind) => kind.name === cell.fault && isRetried(kind));
  const outcome = await stage.played(
    {
      id: 'mixed',
      faultAt: (activity, route) => kindAt.get(`${activity} ${route}`),
      // What Temporal retries is let through at the second try, but for the first ones: those use up their tries.
      hitsOf: (kind, _cell, cells) => (isRetried(kind) && cells.some(hasParked) ? 2 : Infinity),
      timeoutMs: 5_000,
    },
    async (world, played) => {
      expect(new Set(world.cells.map(({ fault }) => fault)).size).toBe(faultKinds.length);
      return outcomeOf({ name: 'mixed' }, world, played, untouched);
    },
  );
  expect(outcome.wrong).toEqual([]);
  expect(outcome.parked).toBeGreaterThan(20);
  expect(outcome.retried).toBeGreaterThan(10);
});

test.concurrent('a node that is down when the fence is to go up: both fences park and say so, nothing is changed, and they go up by themselves', async () => {
  const triggers = [{ activity: 'fenceInbound', method: 'PATCH', step: 'fenceInbound' }];
  const { world, played, outages } = await withOutages(stage, { id: 'outage', triggers, holdMs: 5_000 });
  const [outage] = outages;
  expect(outage?.why).toMatch(
    /^[A-Z]+ \/\S+: expected an answer, came none: the connection was refused, so nothing listens there \(ECONNREFUSED\)$/,
  );
  expect(outage?.how).toContain(
    'Check that the Stigmem node runs and that the worker reaches STIGMEM_URL. It tries again by itself within',
  );
  expect(outage?.after).toEqual(outage?.before);
  expect(await differences(world, played, untouched)).toEqual([]);
});
