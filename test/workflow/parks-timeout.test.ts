import { afterAll, beforeAll, expect, test } from 'vitest';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { devServer, until, withIncident } from '../helpers/workflow-env.ts';

// In its own time: a server that skips time does not while an attempt is under way.

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('parks-timeout');
});
afterAll(async () => {
  await env?.stop();
});

test('where the time for retries ends in an attempt, a parked step says what the one before it failed of', async () => {
  const world = fakeWorld();
  world.failing.set('fenceOutbound', { type: 'StigmemUnavailable', times: 1, of: 'attempt', again: '70s' });
  await withIncident(env, world, async (incident) => {
    await expect.poll(() => world.failing.get('fenceOutbound')?.times, { timeout: 10_000 }).toBe(0);
    let goOn = (): void => undefined;
    world.held.set('fenceOutbound', new Promise((resolve) => (goOn = resolve)));
    try {
      const { waitingFor } = await until(incident, ({ state }) => state === 'parked', 'parked', 85_000);
      expect(waitingFor[0]).toMatchObject({
        step: 'fenceOutbound',
        why: 'fenceOutbound: StigmemUnavailable as the test asked',
        how: expect.stringContaining('Check that the Stigmem node runs'),
      });
    } finally {
      goOn();
    }
  });
}, 120_000);
