import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { defaultPolicy } from '../../src/contract/policy.ts';
import { fakeWorld } from '../helpers/fake-activities.ts';
import {
  approve,
  closeAs,
  decide,
  devServer,
  gateOpen,
  plan,
  status,
  until,
  withIncident,
  type Incident,
} from '../helpers/workflow-env.ts';

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('switch');
});
afterAll(async () => {
  await env?.stop();
});

describe('continue-as-new that a flood forces while a gate is open', () => {
  const policy = { ...defaultPolicy, gates: { ...defaultPolicy.gates, retract: { ...defaultPolicy.gates.retract, need: 2 } } };

  async function flood(incident: Incident, signal: string, payload: object): Promise<void> {
    const { run } = await status(incident);
    for (let sent = 0; sent < 2_100; sent += 100) await Promise.all(Array.from({ length: 100 }, () => incident.signal(signal, payload)));
    let now = await until(incident, (seen) => seen.run !== run, 'the next run', 60_000);
    // What was handed over may be so large that the server suggests the next switch at once.
    for (let last = ''; last !== now.run; now = await status(incident)) {
      last = now.run;
      await new Promise((resolve) => setTimeout(resolve, 3_000));
    }
  }

  test('carries votes and records, shows a new digest, refuses the old one, and ends well', async () => {
    const world = fakeWorld({ policy });
    await withIncident(env, world, async (incident) => {
      const first = await gateOpen(incident, 'retract');
      await incident.signal('approve', { gate: 'retract', digest: first.digest, by: 'bob' });
      await incident.signal('note', { by: 'alice', text: 'before' });
      const { run } = await status(incident);
      await flood(incident, 'sudo', {});
      // Its history goes into the evidence before retention deletes it.
      const sealing = env.client.workflow.getHandle(`cordon-seal:${run}:${run}`);
      await expect.poll(async () => (await sealing.describe()).status.name, { timeout: 20_000 }).toBe('COMPLETED');
      const { digest, opening, have } = await gateOpen(incident, 'retract');
      expect({ opening, have }).toEqual({ opening: first.opening, have: 1 });
      expect(digest).not.toBe(first.digest);
      expect(await plan(incident, 'retract')).toMatchObject({ digest, counts: { retract: 2, keep: 1 } });
      const say = (by: string, given: string) => decide(incident, { gate: 'retract', decision: 'approve', digest: given, by });
      expect(await say('carol', first.digest)).toMatchObject({ accepted: false, refusedBecause: 'stale_digest', have: 1, digest });
      expect(await say('bob', digest)).toMatchObject({ accepted: false, refusedBecause: 'already_counted' });
      expect(await say('carol', digest)).toMatchObject({ accepted: true, have: 2, need: 2 });
      const now = await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect(now.notes).toEqual([expect.objectContaining({ text: 'before' })]);
      expect(now.refused.count).toBe(2_102);
      for (const name of ['resolvePeer', 'fenceInbound', 'assess', 'notifyPeer']) expect(world.calls.get(name), name).toBe(1);
      expect([...world.undone]).toEqual([
        ['fact-a', 1],
        ['fact-b', 1],
      ]);
      await closeAs(incident, 'expelled');
    });
  }, 120_000);

  test('does not ask again for what was approved, when the plan was just being made again', async () => {
    const world = fakeWorld();
    world.failing.set('remakePlan', { type: 'StigmemUnavailable', times: Infinity });
    await withIncident(env, world, async (incident) => {
      await approve(incident, 'retract');
      await until(incident, ({ state }) => state === 'parked', 'parked');
      await flood(incident, 'sudo', {});
      world.failing.delete('remakePlan');
      const { run } = await until(incident, ({ state }) => state === 'parked', 'parked again');
      await incident.signal('retry', { step: 'assess', run, by: 'bob' });
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate', 60_000);
      expect([...world.undone]).toEqual([
        ['fact-a', 1],
        ['fact-b', 1],
      ]);
      await closeAs(incident, 'expelled');
    });
  }, 120_000);

  test('of the longest alerts is handed over all the same; a rejected plan still holds, a manual step and a request to close still wait', async () => {
    const world = fakeWorld();
    world.results.set('revokeKeys', { outcome: 'unverified', way: 'manual', manual: { why: 'no route', how: 'by hand' } });
    await withIncident(env, world, async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      await decide(incident, { gate: 'retract', decision: 'reject', digest, by: 'bob' });
      const before = await status(incident);
      await incident.signal('close', { outcome: 'expelled', run: before.run, by: 'alice', reason: 'test' });
      await gateOpen(incident, 'close');
      await flood(incident, 'alert', { name: '界'.repeat(200), detail: '界'.repeat(4_000) });
      const now = await until(incident, ({ waitingFor }) => waitingFor.length === 3, 'all three');
      expect(now.waitingFor.map((waiting) => (waiting.kind === 'gate' ? waiting.gate : waiting.step)).toSorted()).toEqual([
        'close',
        'revokeKeys',
        'undoFacts',
      ]);
      expect(now.alerts.count).toBe(2_100);
      expect(now.coverage).toContainEqual(expect.objectContaining({ what: 'alerts kept', seen: 500, complete: false }));
      world.results.clear();
      await incident.signal('done', { step: 'revokeKeys', run: now.run, by: 'bob' });
      await incident.signal('retry', { step: 'undoFacts', run: now.run, by: 'bob' });
      await approve(incident, 'retract', 'carol');
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect((await status(incident)).steps.find(({ name }) => name === 'revokeKeys')?.outcome).toBe('manual');
      await approve(incident, 'close', 'carol');
      expect(await incident.result()).toMatchObject({ outcome: 'expelled', residual: [] });
    });
  }, 120_000);
});
