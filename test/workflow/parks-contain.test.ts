import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { approve, decide, devServer, gateOpen, status, stepOf, until, waits, withIncident } from '../helpers/workflow-env.ts';

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('parks-contain');
});
afterAll(async () => {
  await env?.stop();
});

describe('a step of contain', () => {
  test('parks alone: the others go on', async () => {
    const world = fakeWorld();
    world.failing.set('fenceOutbound', { type: 'StigmemUnauthorized', times: Infinity });
    await withIncident(env, world, async (incident) => {
      await waits(incident, 'fenceOutbound');
      const now = await until(incident, ({ steps }) => steps.length === 8, 'the others');
      expect(now.steps.filter(({ phase }) => phase === 'contain').map(({ name }) => name)).toEqual([
        'fenceInbound',
        'blockRelays',
        'revokeTokens',
        'revokeKeys',
        'lowerTrust',
        'pausePromotion',
      ]);
      expect(now.phase).toBe('contain');
    });
  });

  test('stays skipped when an attempt that was under way then fails', async () => {
    const world = fakeWorld();
    world.failing.set('fenceOutbound', { type: 'StigmemRejected', times: Infinity });
    await withIncident(env, world, async (incident) => {
      const { run } = await until(incident, ({ state }) => state === 'parked', 'parked');
      let goOn = (): void => undefined;
      world.held.set('fenceOutbound', new Promise((resolve) => (goOn = resolve)));
      await incident.signal('skip', { step: 'fenceOutbound', run, by: 'alice', note: 'firewalled' });
      const { digest } = await gateOpen(incident, 'skip');
      await incident.signal('retry', { step: 'fenceOutbound', run, by: 'bob' });
      const underWay = async () => (await incident.describe()).raw.pendingActivities?.map(({ activityType }) => activityType?.name);
      await expect.poll(underWay).toContain('fenceOutbound');
      await incident.signal('approve', { gate: 'skip', digest, by: 'bob' });
      await until(incident, ({ steps }) => steps.some(({ name }) => name === 'fenceOutbound'), 'skipped');
      goOn();
      const now = await until(incident, ({ phase }) => phase === 'retract', 'retract');
      expect(now.state).not.toBe('parked');
      expect(stepOf(now, 'fenceOutbound')).toMatchObject({ outcome: 'unverified', detail: 'skipped by alice: firewalled' });
    });
  });

  test('is skipped only through gate skip: rejected, it stays parked; approved, it is residual risk', async () => {
    const world = fakeWorld();
    world.failing.set('fenceOutbound', { type: 'StigmemRejected', times: Infinity });
    await withIncident(env, world, async (incident) => {
      const { run } = await waits(incident, 'fenceOutbound');
      const skip = { step: 'fenceOutbound', run, by: 'alice', note: 'firewalled' };
      await incident.signal('skip', skip);
      const { digest, summary } = await gateOpen(incident, 'skip');
      expect(summary).toBe('skip fenceOutbound: firewalled (asked by alice)');
      expect(await decide(incident, { gate: 'skip', decision: 'reject', digest, by: 'bob' })).toMatchObject({ accepted: true });
      await until(incident, ({ waitingFor }) => waitingFor.every(({ kind }) => kind === 'step'), 'the gate shut');
      expect((await status(incident)).phase).toBe('contain');
      await incident.signal('skip', skip);
      await gateOpen(incident, 'skip', 2);
      await approve(incident, 'skip');
      await gateOpen(incident, 'retract');
      const now = await status(incident);
      expect(stepOf(now, 'fenceOutbound')).toMatchObject({ outcome: 'unverified', detail: 'skipped by alice: firewalled' });
      expect(now.residual).toContainEqual({ what: 'fenceOutbound', why: 'unverified: skipped by alice: firewalled', count: 1 });
    });
  });

  test('that succeeds meanwhile makes the gate moot', async () => {
    const world = fakeWorld();
    world.failing.set('fenceOutbound', { type: 'StigmemRejected', times: Infinity });
    await withIncident(env, world, async (incident) => {
      const { run } = await waits(incident, 'fenceOutbound');
      await incident.signal('skip', { step: 'fenceOutbound', run, by: 'alice' });
      const { digest } = await gateOpen(incident, 'skip');
      world.failing.clear();
      await incident.signal('retry', { step: 'fenceOutbound', run, by: 'alice' });
      await gateOpen(incident, 'retract');
      const now = await until(
        incident,
        ({ waitingFor }) => !waitingFor.some((waiting) => waiting.kind === 'gate' && waiting.gate === 'skip'),
        'moot',
      );
      expect(stepOf(now, 'fenceOutbound')).toMatchObject({ outcome: 'verified' });
      expect(await decide(incident, { gate: 'skip', decision: 'approve', digest, by: 'bob' })).toMatchObject({
        refusedBecause: 'not_open',
      });
    });
  });

  test('done counts only after the read-back shows it', async () => {
    const world = fakeWorld();
    world.failing.set('fenceOutbound', { type: 'StigmemUnsupported', times: 2 });
    world.results.set('fenceOutbound', { outcome: 'unverified', detail: 'the setting is not there' });
    await withIncident(env, world, async (incident) => {
      const { run } = await waits(incident, 'fenceOutbound');
      const done = { step: 'fenceOutbound', run, by: 'bob', note: 'by hand' };
      await incident.signal('done', done);
      await until(incident, ({ notes }) => notes.some(({ text }) => text.includes('reading back failed')), 'the read-back fails');
      await incident.signal('done', done);
      await waits(incident, 'fenceOutbound', 'the read-back does not show it: the setting is not there');
      world.results.delete('fenceOutbound');
      await incident.signal('done', done);
      await gateOpen(incident, 'retract');
      expect(stepOf(await status(incident), 'fenceOutbound')).toMatchObject({
        outcome: 'manual',
        way: 'manual',
        detail: 'bob says it is done (by hand); read back: fenceOutbound done',
      });
    });
  });

  test('that a person has to do holds nobody up; retry, done and skip work on it all along', async () => {
    const world = fakeWorld();
    const manual = {
      outcome: 'unverified',
      way: 'manual',
      detail: 'no route',
      manual: { why: 'no route for this', how: 'UPDATE by hand' },
    } as const;
    for (const step of ['revokeKeys', 'lowerTrust', 'pausePromotion']) world.results.set(step, manual);
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      const { run, now, how } = await waits(incident, 'revokeKeys', 'no route for this');
      expect(how).toBe('UPDATE by hand');
      expect(now).toMatchObject({ state: 'waiting', phase: 'retract' });
      expect(now.residual.map(({ what }) => what)).toEqual(['revokeKeys', 'lowerTrust', 'pausePromotion']);
      await incident.signal('done', { step: 'revokeKeys', run, by: 'bob' });
      await waits(incident, 'revokeKeys', 'the read-back does not show it');
      world.results.clear();
      await incident.signal('done', { step: 'revokeKeys', run, by: 'bob' });
      await incident.signal('retry', { step: 'lowerTrust', run, by: 'bob' });
      await incident.signal('skip', { step: 'pausePromotion', run, by: 'alice', note: 'nobody promotes' });
      await approve(incident, 'skip');
      const after = await until(incident, ({ waitingFor }) => waitingFor.length === 1, 'only the gate waits');
      expect(['revokeKeys', 'lowerTrust', 'pausePromotion'].map((step) => stepOf(after, step)?.outcome)).toEqual([
        'manual',
        'verified',
        'unverified',
      ]);
      expect(after.residual.map(({ what }) => what)).toEqual(['pausePromotion']);
    });
  });
});
