import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { failureTypes, type FailureType } from '../../src/contract/failures.ts';
import type { Step } from '../../src/contract/names.ts';
import { fakeWorld } from '../helpers/fake-activities.ts';
import {
  approve,
  closeAs,
  devServer,
  gateOpen,
  status,
  stepOf,
  timeSkipping,
  until,
  waits,
  withIncident,
} from '../helpers/workflow-env.ts';

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('parks');
});
afterAll(async () => {
  await env?.stop();
});

/** These end the incident: nothing that time or people at this incident could mend. */
const ending: readonly FailureType[] = ['PeerNotFound', 'InvalidInput'];
const parking = (Object.keys(failureTypes) as FailureType[]).filter((type) => !ending.includes(type));

const because = (now: Awaited<ReturnType<typeof status>>) => now.refused.last.map(({ because: why }) => why);

describe('a failing step parks, whatever fails', () => {
  for (const type of parking) {
    test(`${type}: says what is stuck, why and what to do; goes on by a retry`, async () => {
      const world = fakeWorld();
      world.failing.set('captureLocal', { type, times: 1 });
      await withIncident(env, world, async (incident) => {
        const parked = await waits(incident, 'captureLocal');
        expect(parked.now).toMatchObject({ state: 'parked', phase: 'identify' });
        expect(parked.why).toBe(`captureLocal: ${type} as the test asked`);
        expect(parked.how).toMatch(
          /^[A-Z].{15,}\. It tries again by itself within \d+[smh].*; or: cordon retry\|done\|skip <incident> captureLocal --by <you>\.$/,
        );
        expect(world.calls.get('fenceInbound')).toBeUndefined();
        await incident.signal('retry', { step: 'captureLocal', run: parked.run, by: 'bob' });
        await gateOpen(incident, 'retract');
        expect(world.calls.get('captureLocal')).toBe(2);
        expect((await status(incident)).state).toBe('waiting');
      });
    });
  }

  for (const step of [
    'resolvePeer',
    'readPeer',
    'collectFacts',
    'assess',
    'fenceInbound',
    'notifyPeer',
    'undoFacts',
    'verifyUndone',
  ] as const satisfies readonly Step[]) {
    test(`at ${step}, and by itself when the fault ends`, async () => {
      const world = fakeWorld();
      world.failing.set(step, { type: 'StigmemUnavailable', times: 2 });
      const skipping = await timeSkipping();
      try {
        await withIncident(skipping, world, async (incident) => {
          if (step === 'undoFacts' || step === 'verifyUndone') {
            const { digest } = await gateOpen(incident, 'retract');
            await incident.signal('approve', { gate: 'retract', digest, by: 'bob' });
          }
          expect((await waits(incident, step)).now.state).toBe('parked');
          await skipping.sleep('2m');
          await until(incident, (now) => stepOf(now, step)?.outcome === 'verified' && now.state !== 'parked', `${step} done`);
          expect(world.calls.get(step)).toBe(3);
        });
      } finally {
        await skipping.teardown();
      }
    });
  }

  test('at seal, and by itself when the fault ends', async () => {
    const world = fakeWorld();
    world.failing.set('seal', { type: 'EvidenceUnavailable', times: 1 });
    await withIncident(env, world, async (incident) => {
      const { run } = await gateOpen(incident, 'retract').then(() => status(incident));
      await incident.signal('close', { outcome: 'expelled', run, by: 'alice', reason: 'test' });
      await approve(incident, 'close');
      const parked = await waits(incident, 'seal');
      expect(parked.now).toMatchObject({ state: 'parked', phase: 'closed', outcome: 'expelled' });
      // The first wait is fifteen seconds, by a real clock.
      expect(await incident.result()).toMatchObject({ outcome: 'expelled' });
      expect(await status(incident)).toMatchObject({ state: 'closed', waitingFor: [] });
      expect(world.calls.get('seal')).toBe(2);
    });
  });

  for (const type of ending) {
    test(`${type} ends the incident, in the activity's words`, async () => {
      const world = fakeWorld();
      world.failing.set('resolvePeer', { type, times: 1 });
      await withIncident(env, world, async (incident) => {
        await expect(incident.result()).rejects.toMatchObject({
          cause: { type, message: `resolvePeer: ${type} as the test asked`, nonRetryable: true },
        });
      });
    });
  }
});

describe('what belongs to a step that is done parks as well', () => {
  test('a claim that can not be made holds the incident before any change', async () => {
    const world = fakeWorld();
    world.failing.set('claimPeer', { type: 'StigmemUnavailable', times: 1 });
    await withIncident(env, world, async (incident) => {
      const { run } = await waits(incident, 'resolvePeer');
      expect(world.calls.get('captureLocal')).toBeUndefined();
      await incident.signal('retry', { step: 'resolvePeer', run, by: 'bob', note: 'Temporal is up again' });
      await gateOpen(incident, 'retract');
      expect(world.calls.get('claimPeer')).toBe(2);
      expect(stepOf(await status(incident), 'resolvePeer')).toMatchObject({ outcome: 'verified' });
    });
  });

  test('a plan that can not be made again keeps its approval', async () => {
    const world = fakeWorld();
    world.failing.set('remakePlan', { type: 'EvidenceUnavailable', times: 1 });
    await withIncident(env, world, async (incident) => {
      await approve(incident, 'retract');
      const { run } = await waits(incident, 'assess');
      await incident.signal('retry', { step: 'assess', run, by: 'bob' });
      const { now } = await waits(incident, 'verifyKeys');
      expect(now.state).toBe('running');
      expect([...world.undone.values()]).toEqual([1, 1]);
    });
  });

  test('alerts that came later and can not be held against the audit', async () => {
    const world = fakeWorld();
    world.failing.set('holdAlerts', { type: 'StigmemUnavailable', times: 1 });
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      await incident.signal('alert', { name: 'late' });
      await approve(incident, 'retract');
      const { run } = await waits(incident, 'captureLocal');
      await incident.signal('retry', { step: 'captureLocal', run, by: 'bob' });
      await waits(incident, 'verifyKeys');
      expect(world.calls.get('holdAlerts')).toBe(2);
    });
  });

  test('the policy in force can not be skipped: without it anybody would be an approver', async () => {
    const world = fakeWorld();
    world.failing.set('openRun', { type: 'ConfigInvalid', times: 2 });
    await withIncident(env, world, async (incident) => {
      const { run } = await waits(incident, 'resolvePeer');
      await incident.signal('skip', { step: 'resolvePeer', run, by: 'bob', note: 'hurry' });
      await until(incident, ({ notes }) => notes.some(({ text }) => text.includes('can not be skipped')), 'said so');
      await waits(incident, 'resolvePeer');
      expect(world.calls.get('resolvePeer')).toBeUndefined();
      await incident.signal('retry', { step: 'resolvePeer', run, by: 'bob' });
      await gateOpen(incident, 'retract');
      expect(stepOf(await status(incident), 'resolvePeer')).toMatchObject({ outcome: 'verified' });
    });
  });
});

test('a step outside contain is skipped by one word, and is residual risk', async () => {
  const world = fakeWorld();
  world.failing.set('notifyPeer', { type: 'WebhookUnavailable', times: Infinity });
  await withIncident(env, world, async (incident) => {
    const { run } = await waits(incident, 'notifyPeer');
    await approve(incident, 'retract');
    await incident.signal('skip', { step: 'notifyPeer', run, by: 'alice', note: 'phoned' });
    const now = await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
    expect(now.residual).toContainEqual({ what: 'notifyPeer', why: 'unverified: skipped by alice: phoned', count: 1 });
  });
});

describe('two peers that match', () => {
  test('park; a retry whose note names one goes on, and one that names none asks again', async () => {
    const world = fakeWorld();
    const asked: string[] = [];
    world.resolve = ({ peer }) => {
      asked.push(peer);
      if (peer === 'http://127.0.0.1:8802') return 'PeerAmbiguous';
      return peer === 'node:peer' ? undefined : 'PeerNotFound';
    };
    await withIncident(env, world, async (incident) => {
      const { run, how } = await waits(incident, 'resolvePeer', 'PeerAmbiguous');
      expect(how).toMatch(/which peer is meant.*--note <its node_id>/);
      await incident.signal('retry', { step: 'resolvePeer', run, by: 'bob', note: 'node:typo' });
      await waits(incident, 'resolvePeer', 'PeerNotFound');
      await incident.signal('retry', { step: 'resolvePeer', run, by: 'bob' });
      await waits(incident, 'resolvePeer', 'PeerAmbiguous');
      await incident.signal('retry', { step: 'resolvePeer', run, by: 'bob', note: 'node:peer' });
      await gateOpen(incident, 'retract');
      expect(asked).toEqual(['http://127.0.0.1:8802', 'node:typo', 'http://127.0.0.1:8802', 'node:peer']);
    });
  });

  test('an outage is no such question: what a note says there is no name of a peer', async () => {
    const world = fakeWorld();
    const asked: string[] = [];
    world.resolve = ({ peer }) => {
      asked.push(peer);
      return asked.length === 1 ? 'StigmemUnavailable' : undefined;
    };
    await withIncident(env, world, async (incident) => {
      const { run } = await waits(incident, 'resolvePeer');
      await incident.signal('retry', { step: 'resolvePeer', run, by: 'bob', note: 'the node is back' });
      await gateOpen(incident, 'retract');
      expect(asked).toEqual(['http://127.0.0.1:8802', 'http://127.0.0.1:8802']);
    });
  });
});

test('words about another run or a step that does not wait are refused, with the reason', async () => {
  const world = fakeWorld();
  world.failing.set('notifyPeer', { type: 'WebhookUnavailable', times: Infinity });
  await withIncident(env, world, async (incident) => {
    const { run } = await waits(incident, 'notifyPeer');
    const foreign = '00000000-0000-0000-0000-000000000000';
    for (const word of ['retry', 'done', 'skip']) {
      await incident.signal(word, { step: 'notifyPeer', run: foreign, by: 'mallory' });
      await incident.signal(word, { step: 'notifyLocal', run, by: 'bob' });
      await incident.signal(word, { step: 'nonsense', run, by: 'bob' });
      await incident.signal(word, { step: 'notifyPeer', run: run.slice(0, 7), by: 'bob' });
    }
    await incident.signal('close', { outcome: 'expelled', run: foreign, by: 'mallory', reason: 'x' });
    const now = await until(incident, ({ refused }) => refused.count === 13, 'refusals');
    const counts = Object.fromEntries([...new Set(because(now))].map((why) => [why, because(now).filter((other) => other === why).length]));
    expect(counts).toEqual({ stale_run: 4, not_open: 6, malformed: 3 });
    expect(stepOf(now, 'notifyPeer')).toBeUndefined();
    await incident.signal('skip', { step: 'notifyPeer', run: run.slice(0, 8), by: 'bob' });
    await until(incident, (seen) => stepOf(seen, 'notifyPeer') !== undefined, 'a short run id counts');
    expect(await closeAs(incident, 'expelled')).toMatchObject({ outcome: 'expelled' });
  });
});
