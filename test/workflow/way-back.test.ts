import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { fakeWorld, newKeys } from '../helpers/fake-activities.ts';
import { back, type Back } from '../helpers/way-back.ts';
import {
  approve,
  closeAs,
  decide,
  gateOpen,
  plan,
  status,
  stepOf,
  timeSkipping,
  until,
  waits,
  withIncident,
  type Incident,
} from '../helpers/workflow-env.ts';

// Recover 5: the test pull, the watch and full trust, each path of them, and each clock.

let env: TestWorkflowEnvironment;
beforeAll(async () => {
  env = await timeSkipping();
});
afterAll(async () => {
  await env?.teardown();
});

const callsOf = ({ host }: Back, name: string): number => host.calls.get(name) ?? 0;
const since =
  (incident: Incident, name: string, round: number) =>
  async (now = status(incident)) =>
    (await now).steps.find((step) => step.name === name && step.round === round);

describe('the test pull', () => {
  test('is asked about with what waits, opens once approved, and lets the peer in under a watch', async () => {
    await back(env, async (of) => {
      const { incident } = of;
      const gate = await gateOpen(incident, 'testPull');
      expect(gate.summary).toContain('at most 1000 facts and 15m');
      expect(gate.summary).toContain('under a watch of 24h');
      expect(await plan(incident, 'testPull')).toMatchObject({ counts: { keep: 1, suppress: 1 } });
      expect(callsOf(of, 'holdDoorOpen')).toBe(0);
      await approve(incident, 'testPull');
      const { now } = await waits(incident, 'watch', 'The peer is in, and watched since');
      expect(now).toMatchObject({ phase: 'watch', state: 'running', round: 1 });
      expect(stepOf(now, 'testPull')).toMatchObject({ outcome: 'verified', way: 'http' });
      for (const name of ['holdDoorOpen', 'showArrivals', 'letPeerIn']) expect(callsOf(of, name), name).toBe(1);
      // What waits still was judged before it was let in.
      expect(of.world.calls.get('judgeBacklog')).toBe(2);
    });
  });

  test('rejected: held fenced until it is judged anew', async () => {
    await back(env, async (of) => {
      const { incident } = of;
      const { digest } = await gateOpen(incident, 'testPull');
      await decide(incident, { gate: 'testPull', decision: 'reject', digest, by: 'carol' });
      const { run, why } = await waits(incident, 'testPull');
      expect(why).toContain('rejected by carol');
      expect(callsOf(of, 'holdDoorOpen')).toBe(0);
      await incident.signal('retry', { step: 'testPull', run, by: 'alice' });
      await gateOpen(incident, 'testPull', 2);
      expect(of.world.calls.get('judgeBacklog')).toBe(2);
    });
  });

  test.each([
    { what: 'something bad came', arrives: true, why: '1 bad' },
    { what: 'something bad waits still', arrives: false, why: '1 bad ones wait still' },
  ])('not passed where $what: held fenced', async ({ arrives, why }) => {
    await back(env, async (of) => {
      const { incident, world } = of;
      await gateOpen(incident, 'testPull');
      if (arrives) world.results.set('judgeArrivals', { outcome: 'unverified', detail: '1 bad' });
      else world.stubborn.set('fact-y', 'suppress');
      await approve(incident, 'testPull');
      const held = await waits(incident, 'testPull', 'not passed');
      expect(held.why).toContain(why);
      expect(callsOf(of, 'letPeerIn')).toBe(0);
      expect(held.now.phase).toBe('testPull');
    });
  });

  test('whose host worker fails is fenced again at once, and held', async () => {
    await back(env, async (of) => {
      const { incident, host, world } = of;
      await gateOpen(incident, 'testPull');
      const fenced = world.calls.get('fenceInbound') ?? 0;
      host.failing.set('holdDoorOpen', 'HostRefused');
      await approve(incident, 'testPull');
      const held = await waits(incident, 'testPull', 'not passed');
      expect(held.why).toContain('did not hold the door to its end');
      // Before it opens, and after that.
      expect(world.calls.get('fenceInbound')).toBe(fenced + 2);
      expect(callsOf(of, 'letPeerIn')).toBe(0);
    });
  });

  test('without a host worker nothing is judged and nothing is opened', async () => {
    const world = fakeWorld({ keys: newKeys, facts: new Map([['fact-c', 'keep']]) });
    await withIncident(env, world, async (incident) => {
      const { digest } = await gateOpen(incident, 'reregister');
      await decide(incident, { gate: 'reregister', decision: 'approve', digest, by: 'bob', fingerprint: newKeys.fingerprint });
      const { why } = await waits(incident, 'testPull');
      expect(why).toContain('no host worker serves this incident');
      expect((await closeAs(incident, 'expelled')).outcome).toBe('expelled');
    });
  });
});

describe('the watch', () => {
  // A clock for each test: one that is left waiting for something would stop it for the others.
  let clock: TestWorkflowEnvironment;
  beforeEach(async () => {
    clock = await timeSkipping();
  });
  afterEach(async () => {
    await clock?.teardown();
  });

  test('of weeks costs few events; then full trust is asked for, and restores what is meant to be', async () => {
    await back(
      clock,
      async (of) => {
        const { incident, world, host } = of;
        await approve(incident, 'testPull');
        await clock.sleep('725h');
        const gate = await gateOpen(incident, 'restore');
        expect(gate.summary).toContain('close as restored: full trust');
        const now = await status(incident);
        expect(stepOf(now, 'watch')).toMatchObject({ outcome: 'verified', phase: 'watch' });
        // A look a day says that it goes on.
        expect(stepOf(now, 'watch')?.detail).toMatch(/(30|31) looks, no tripwire/);
        const { events } = await incident.fetchHistory();
        expect(events?.length).toBeLessThan(800);
        const { digest } = gate;
        await incident.signal('approve', { gate: 'restore', digest, by: 'bob' });
        const { outcome, residual } = await incident.result();
        expect(outcome).toBe('restored');
        expect(residual.map(({ what }) => what)).not.toContain('fenceInbound');
        for (const name of ['endHolds', 'restoreOnHost', 'reinstatePeers']) expect(host.calls.get(name), name).toBe(1);
        expect(world.announced.join()).toContain('watch-over');
        // Before the door, before it was let in, read back then, and at the end.
        expect(world.calls.get('liftFences')).toBe(4);
      },
      {},
      { watch: '30d' },
    );
  });

  test('that is tripped fences at once and goes through the page again, and may come to its end in the next round', async () => {
    await back(clock, async (of) => {
      const { incident, world } = of;
      await gateOpen(incident, 'testPull');
      world.trips.push({ wire: 'badFact', why: 'an instruction came', ids: ['fact-z'] });
      const fenced = world.calls.get('fenceInbound') ?? 0;
      await approve(incident, 'testPull');
      const { digest } = await gateOpen(incident, 'reregister', 2);
      const now = await status(incident);
      expect(now.round).toBe(2);
      expect(now.steps.find(({ name, round }) => name === 'watch' && round === 1)).toMatchObject({
        outcome: 'unverified',
        detail: 'tripwire touched: badFact: an instruction came',
      });
      // Before the door, before it was let in, and by the trip.
      expect(world.calls.get('fenceInbound')).toBe(fenced + 3);
      expect(now.warnings.join()).toContain('was tripped at');
      expect(world.announced.join()).toContain('trip: A tripwire was touched, and the peer is fenced again (round 2)');
      for (const name of ['resolvePeer', 'captureLocal', 'collectFacts', 'assess', 'verifyKeys'])
        expect(await since(incident, name, 2)(), name).toBeDefined();
      world.waiting = new Map([['fact-v', 'keep']]);
      await decide(incident, { gate: 'reregister', decision: 'approve', digest, by: 'bob', fingerprint: newKeys.fingerprint });
      await approve(incident, 'testPull');
      await clock.sleep('25h');
      const restore = await gateOpen(incident, 'restore');
      await incident.signal('approve', { gate: 'restore', digest: restore.digest, by: 'bob' });
      expect((await incident.result()).outcome).toBe('restored');
    });
  });

  test('is not begun where the peer could not be let in to the end: fenced again, and tried again', async () => {
    await back(clock, async (of) => {
      const { incident, host, world } = of;
      await gateOpen(incident, 'testPull');
      host.answers.set('letPeerIn', { done: 0, detail: '0 of 1 rows let in' });
      const fenced = world.calls.get('fenceInbound') ?? 0;
      await approve(incident, 'testPull');
      const { run, why } = await waits(incident, 'watch', 'is not let in, and is fenced');
      expect(why).toContain('0 of 1 rows let in');
      expect(world.calls.get('fenceInbound')).toBe(fenced + 3);
      expect(world.calls.get('watchPeer')).toBeUndefined();
      host.answers.delete('letPeerIn');
      await incident.signal('retry', { step: 'watch', run, by: 'alice' });
      await waits(incident, 'watch', 'The peer is in');
    });
  });

  test('is not begun where letting in fails in the middle: fenced again', async () => {
    await back(clock, async (of) => {
      const { incident, host, world } = of;
      await gateOpen(incident, 'testPull');
      host.failing.set('letPeerIn', 'HostRefused');
      const fenced = world.calls.get('fenceInbound') ?? 0;
      await approve(incident, 'testPull');
      await until(incident, ({ state }) => state === 'parked', 'parked');
      expect(world.calls.get('fenceInbound')).toBe(fenced + 3);
      expect(world.calls.get('watchPeer')).toBeUndefined();
    });
  });

  test('that can not look at all shuts the door', async () => {
    await back(clock, async (of) => {
      const { incident, world } = of;
      await gateOpen(incident, 'testPull');
      world.failing.set('watchPeer', { type: 'StigmemIdentity', times: 1 });
      await approve(incident, 'testPull');
      await gateOpen(incident, 'reregister', 2);
      expect((await status(incident)).warnings.join()).toContain('blind: nothing could be looked at');
    });
  });
});
