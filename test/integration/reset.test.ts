import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { lastTask, nextTask, taskBefore, reset, because, approvedAnew } from '../helpers/reset.ts';
import { amend, approve, closeAs, decide, devServer, gateOpen, status, until, withIncident } from '../helpers/workflow-env.ts';

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('reset');
});
afterAll(async () => {
  await env?.stop();
});

describe('a reset to before an approval', () => {
  for (const kind of ['signal', 'update'] as const) {
    test(`given by ${kind}: it is applied again, refused on record, and asked for under a new digest`, async () => {
      const world = fakeWorld();
      await withIncident(env, world, async (incident) => {
        const { digest } = await gateOpen(incident, 'retract');
        const point = await nextTask(incident);
        const vote = { gate: 'retract', digest, by: 'bob' };
        if (kind === 'signal') await incident.signal('approve', vote);
        else expect(await decide(incident, { ...vote, decision: 'approve' })).toMatchObject({ accepted: true });
        await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
        const before = new Map(world.undone);
        const copy = await reset(env, incident, point);
        await until(copy, (now) => because(now).includes('bob stale_digest'), 'refused');
        await approvedAnew(copy, digest, world.undone, before);
      });
    });
  }

  test('twice: what was approved in the first copy is void in the second, which still replays', async () => {
    const world = fakeWorld();
    await withIncident(env, world, async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      const first = await reset(env, incident, await lastTask(incident));
      const inFirst = await gateOpen(first, 'retract');
      expect(inFirst.digest).not.toBe(digest);
      await first.signal('approve', { gate: 'retract', digest: inFirst.digest, by: 'bob' });
      await until(first, ({ phase }) => phase === 'rotate', 'rotate');
      const before = new Map(world.undone);
      const second = await reset(env, first, await lastTask(first));
      await until(second, ({ phase }) => phase === 'rotate', 'rotate again, with what was done in the first copy on record');
      expect(world.undone).toEqual(before);
      const third = await reset(env, first, await taskBefore(first, 'remakePlan'));
      await approvedAnew(third, inFirst.digest, world.undone, before);
    });
  });
});

describe('a reset to after an approval, before the activity that acts', () => {
  test('retract: the approval of the old run does nothing, people are asked again', async () => {
    const world = fakeWorld();
    await withIncident(env, world, async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      await incident.signal('approve', { gate: 'retract', digest, by: 'bob' });
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      const before = new Map(world.undone);
      const copy = await reset(env, incident, await taskBefore(incident, 'undoFacts'));
      await approvedAnew(copy, digest, world.undone, before);
    });
  });

  test('retract, when the activity is scheduled already: it refuses to act in another run than the one that was approved', async () => {
    const world = fakeWorld();
    world.failing.set('undoFacts', { type: 'StigmemUnavailable', times: Infinity });
    await withIncident(env, world, async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      await incident.signal('approve', { gate: 'retract', digest, by: 'bob' });
      await until(incident, ({ state }) => state === 'parked', 'parked');
      const point = await lastTask(incident);
      world.failing.clear();
      const copy = await reset(env, incident, point);
      const { run } = await status(copy);
      await copy.signal('retry', { step: 'undoFacts', run, by: 'bob' });
      await approvedAnew(copy, digest, world.undone, new Map());
    });
  });

  test('dismissed: nothing is lifted without a new approval', async () => {
    const world = fakeWorld();
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      await closeAs(incident, 'dismissed');
      const lifts = ['restoreTrust', 'resumePromotion', 'liftFences'];
      const called = () => lifts.map((name) => world.calls.get(name));
      expect(called()).toEqual([1, 1, 1]);
      const copy = await reset(env, incident, await taskBefore(incident, 'restoreTrust'));
      const { summary } = await gateOpen(copy, 'restore');
      expect(summary).toContain('close as dismissed');
      expect(called()).toEqual([1, 1, 1]);
      expect(await approve(copy, 'restore', 'carol')).toMatchObject({ accepted: true });
      expect(await copy.result()).toMatchObject({ outcome: 'dismissed' });
      expect(called()).toEqual([2, 2, 2]);
    });
  });

  test('expelled: what is sealed under the void approval is no end; approved anew, it is sealed anew', async () => {
    const world = fakeWorld();
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      await closeAs(incident, 'expelled');
      const copy = await reset(env, incident, await taskBefore(incident, 'seal'));
      await gateOpen(copy, 'close');
      expect(await status(copy)).toMatchObject({ outcome: null, state: 'waiting' });
      const sealed = world.calls.get('seal') ?? 0;
      expect(await approve(copy, 'close', 'carol')).toMatchObject({ accepted: true });
      expect(await copy.result()).toMatchObject({ outcome: 'expelled' });
      expect(world.calls.get('seal')).toBe(sealed + 1);
    });
  });

  test('expelled, at its very end: people are asked before it closes again', async () => {
    await withIncident(env, fakeWorld(), async (incident) => {
      await gateOpen(incident, 'retract');
      await closeAs(incident, 'expelled');
      const copy = await reset(env, incident, await taskBefore(incident, 'releasePeer'));
      expect(await approve(copy, 'close', 'carol')).toMatchObject({ accepted: true });
      expect(await copy.result()).toMatchObject({ outcome: 'expelled' });
    });
  });

  test('expelled, when the history of the run is being sealed: the copy replays and ends', async () => {
    await withIncident(env, fakeWorld(), async (incident) => {
      await gateOpen(incident, 'retract');
      await closeAs(incident, 'expelled');
      const copy = await reset(env, incident, await lastTask(incident));
      expect(await copy.result()).toMatchObject({ outcome: 'expelled' });
    });
  });
});

describe('a reset to before', () => {
  test('an amendment: it is void, and the plan stands as it was until people amend it again', async () => {
    for (const kind of ['signal', 'update'] as const) {
      const world = fakeWorld();
      await withIncident(env, world, async (incident) => {
        const { digest } = await gateOpen(incident, 'retract');
        const point = await nextTask(incident);
        const keep = [{ factId: 'fact-a', justification: 'checked' }];
        if (kind === 'signal') await incident.signal('amend', { gate: 'retract', digest, keep, by: 'bob' });
        else expect(await amend(incident, { gate: 'retract', digest, keep, by: 'bob' })).toMatchObject({ accepted: true });
        await gateOpen(incident, 'retract', 2);
        const narrowed = world.calls.get('narrowPlan');
        const copy = await reset(env, incident, point);
        await until(copy, (now) => because(now).includes('bob stale_digest'), 'refused');
        expect(world.calls.get('narrowPlan')).toBe(narrowed);
        const open = await gateOpen(copy, 'retract');
        expect(open).toMatchObject({ opening: 1, summary: 'retract 2, keep 1' });
        // The fake node still holds the amended plan; the new amendment is about the other fact.
        expect(
          await amend(copy, { gate: 'retract', digest: open.digest, keep: [{ factId: 'fact-b', justification: 'checked' }], by: 'bob' }),
        ).toMatchObject({ accepted: true });
        await until(copy, ({ phase }) => phase === 'rotate', 'rotate');
        expect(world.undone.size).toBe(0);
        expect(await closeAs(copy, 'expelled')).toMatchObject({ outcome: 'expelled' });
      });
    }
  });

  test('a skip and its approval: the door stays a question', async () => {
    const world = fakeWorld();
    world.failing.set('fenceOutbound', { type: 'StigmemRejected', times: Infinity });
    await withIncident(env, world, async (incident) => {
      const parked = await until(incident, ({ state, steps }) => state === 'parked' && steps.length === 8, 'parked');
      const point = await nextTask(incident);
      await incident.signal('skip', { step: 'fenceOutbound', run: parked.run, by: 'alice', note: 'firewalled' });
      await approve(incident, 'skip');
      await gateOpen(incident, 'retract');
      const copy = await reset(env, incident, point);
      const now = await until(copy, (seen) => because(seen).includes('alice stale_run'), 'refused');
      expect(because(now)).toContain('bob not_open');
      expect(now.waitingFor.map((waiting) => (waiting.kind === 'gate' ? waiting.gate : waiting.step))).toEqual(['fenceOutbound']);
      await copy.signal('skip', { step: 'fenceOutbound', run: now.run, by: 'alice', note: 'firewalled' });
      await approve(copy, 'skip', 'carol');
      await gateOpen(copy, 'retract');
      const result = await closeAs(copy, 'expelled');
      expect(result.residual).toContainEqual(
        expect.objectContaining({ what: 'fenceOutbound', why: expect.stringContaining('skipped by alice') }),
      );
    });
  });

  for (const [outcome, gate] of [
    ['expelled', 'close'],
    ['dismissed', 'restore'],
  ] as const) {
    test(`a request to close as ${outcome} and its approval: both are void`, async () => {
      const world = fakeWorld();
      await withIncident(env, world, async (incident) => {
        await gateOpen(incident, 'retract');
        const point = await lastTask(incident);
        await closeAs(incident, outcome);
        const sealed = world.calls.get('seal');
        const copy = await reset(env, incident, point);
        const now = await until(
          copy,
          (seen) => because(seen).includes('alice stale_run') && because(seen).includes('bob not_open'),
          'refused',
        );
        expect(now).toMatchObject({ outcome: null, phase: 'retract', state: 'waiting' });
        expect(now.waitingFor.some((waiting) => waiting.kind === 'gate' && waiting.gate === gate)).toBe(false);
        expect(world.calls.get('seal')).toBe(sealed);
        expect(await closeAs(copy, outcome)).toMatchObject({ outcome });
      });
    });

    test(`only the approval to close as ${outcome}: the request stands, the gate asks again`, async () => {
      const world = fakeWorld();
      await withIncident(env, world, async (incident) => {
        const { run } = await status(incident);
        await gateOpen(incident, 'retract');
        await incident.signal('close', { outcome, run, by: 'alice', reason: 'test' });
        const { digest } = await gateOpen(incident, gate);
        const point = await nextTask(incident);
        await incident.signal('approve', { gate, digest, by: 'bob' });
        await incident.result();
        const lifted = world.calls.get('liftFences');
        const copy = await reset(env, incident, point);
        await until(copy, (seen) => because(seen).includes('bob stale_digest'), 'refused');
        expect((await gateOpen(copy, gate)).digest).not.toBe(digest);
        expect(world.calls.get('liftFences')).toBe(lifted);
        expect(await approve(copy, gate, 'carol')).toMatchObject({ accepted: true });
        expect(await copy.result()).toMatchObject({ outcome });
      });
    });
  }

  test('the policy is known, with a retry that named the old run: the copy replays and goes on', async () => {
    const world = fakeWorld();
    world.failing.set('openRun', { type: 'ConfigInvalid', times: 2 });
    await withIncident(env, world, async (incident) => {
      for (const step of ['resolvePeer', 'resolvePeer']) {
        const { run, waitingFor } = await until(incident, ({ state }) => state === 'parked', 'parked');
        expect(waitingFor[0]).toMatchObject({ step });
        await incident.signal('retry', { step, run, by: 'bob' });
        await until(incident, (now) => now.state !== 'parked' || world.calls.get('openRun') === 2, 'tried again');
      }
      await gateOpen(incident, 'retract');
      const copy = await reset(env, incident, await lastTask(incident));
      await gateOpen(copy, 'retract');
      expect(await closeAs(copy, 'expelled')).toMatchObject({ outcome: 'expelled' });
    });
  });
});
