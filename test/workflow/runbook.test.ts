import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { approve, closeAs, gateOpen, plan, status, timeSkipping, waits, withIncident } from '../helpers/workflow-env.ts';

let env: TestWorkflowEnvironment;
beforeAll(async () => {
  env = await timeSkipping();
});
afterAll(async () => {
  await env?.teardown();
});

test('goes through the page to the retract gate, undoes what was approved, asks for new keys, and is expelled behind its gate', async () => {
  const world = fakeWorld();
  await withIncident(env, world, async (incident) => {
    const gate = await gateOpen(incident, 'retract');
    expect(gate).toMatchObject({ opening: 1, have: 0, need: 1, summary: 'retract 2, keep 1' });
    expect(world.undone.size).toBe(0);
    expect(await plan(incident)).toMatchObject({ gate: 'retract', counts: { retract: 2, keep: 1 } });

    expect(await approve(incident, 'retract')).toMatchObject({ accepted: true, have: 1, need: 1 });
    const { now: asking } = await waits(incident, 'verifyKeys');
    expect(asking).toMatchObject({ phase: 'rotate', state: 'running' });
    expect([...world.undone]).toEqual([
      ['fact-a', 1],
      ['fact-b', 1],
    ]);

    const result = await closeAs(incident, 'expelled');
    expect(result).toMatchObject({ outcome: 'expelled', report: 'files/report.md' });
    expect(world.calls.get('liftFences')).toBeUndefined();
    const closed = await status(incident);
    expect(closed).toMatchObject({ phase: 'closed', state: 'closed', outcome: 'expelled', waitingFor: [] });
    expect(closed.steps.map(({ name, outcome }) => `${name} ${outcome}`)).toEqual([
      'resolvePeer verified',
      'captureLocal verified',
      'fenceInbound verified',
      'fenceOutbound verified',
      'blockRelays verified',
      'revokeTokens verified',
      'revokeKeys verified',
      'lowerTrust verified',
      'pausePromotion verified',
      'readPeer verified',
      'collectFacts verified',
      'assess verified',
      'notifyPeer verified',
      'notifyDownstream verified',
      'notifyLocal verified',
      'undoFacts verified',
      'verifyUndone verified',
      'requestRotation verified',
      'seal verified',
    ]);
  });
});

test('is dismissed behind the restore gate, and lifts what containment did, the fences last', async () => {
  const world = fakeWorld();
  await withIncident(env, world, async (incident) => {
    await gateOpen(incident, 'retract');
    const result = await closeAs(incident, 'dismissed');
    expect(result.outcome).toBe('dismissed');
    const { steps } = await status(incident);
    expect(steps.filter(({ phase }) => phase === 'restore').map(({ name }) => name)).toEqual([
      'restoreTrust',
      'resumePromotion',
      'liftFences',
    ]);
    expect(world.undone.size).toBe(0);
  });
});
