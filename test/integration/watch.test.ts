import { MockActivityEnvironment } from '@temporalio/testing';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { StepFailure } from '../../activities/failures.ts';
import { watchActivities, type WatchInput } from '../../activities/watch.ts';
import { defaultPolicy, watchDefault } from '../../src/contract/policy.ts';
import type { Watched } from '../../src/contract/steps.ts';
import { readPeer } from '../../src/stigmem/peer-reader.ts';
import { hostileScene, incidentRef, runActivity, type Scene } from '../helpers/hostile-scene.ts';

// A peer that is back, on a node that runs: what touches a wire is seen by the next look.

vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });

let scene: Scene;
let fingerprint: string;
beforeAll(async () => {
  scene = await hostileScene('watch', 1, { only: [] });
  fingerprint = (await readPeer(scene.peer.url, { allowPrivate: ['loopback'] })).fingerprint ?? '';
});
afterAll(async () => {
  await scene?.stop();
});

const everySecond = { ...defaultPolicy, watch: { ...watchDefault, every: '1s' as const, blindAfter: '3s' as const } };

/** A stretch of so many seconds, from now. */
function watching(name: string, seconds: number, over: Partial<WatchInput> = {}): Promise<Awaited<ReturnType<typeof watch>>> {
  const [since, until] = [0, seconds * 1_000].map((ms) => new Date(Date.now() + ms).toISOString());
  const ref = incidentRef(scene, name, { phase: 'watch' });
  const input = { ref, peer: scene.peer, policy: everySecond, firstBad: null, newKeySince: null, fingerprint };
  return watch({ ...input, since: since ?? '', until: until ?? '', ...over });
}
/** As Temporal does it: one look an attempt, and what heartbeats said goes on to the next. */
async function watch(input: WatchInput): Promise<Watched> {
  const activities = watchActivities(scene.deps);
  let heartbeatDetails: unknown;
  for (;;) {
    const environment = new MockActivityEnvironment({ heartbeatDetails, workflowExecution: { workflowId: 'incident', runId: 'run-1' } });
    environment.on('heartbeat', (details: unknown) => (heartbeatDetails = details));
    try {
      return await environment.run(activities.watchPeer, input);
    } catch (error) {
      if (!(error instanceof StepFailure) || error.type !== 'WatchGoesOn') throw error;
      await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs));
    }
  }
}
/** Some of it may be in the audit only after the watch has begun to look. */
const afterASecond = async <T>(act: () => Promise<T>): Promise<T> => {
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  return act();
};

describe('a stretch of the watch', () => {
  it('ends by its time when nothing is touched, honest facts included', async () => {
    const watched = watching('quiet', 6);
    const [id = ''] = await afterASecond(() =>
      scene.hostile.deliver([{ entity: 'stigmem://peer.test/team/menu', relation: 'memory:saturday', value: 'rice' }]),
    );
    expect(id).not.toBe('');
    const { trips, looks, coverage } = await watched;
    expect(trips).toEqual([]);
    expect(looks).toBeGreaterThan(2);
    expect(coverage).toMatchObject([{ what: 'watch of the peer', seen: 1, complete: true }]);
  });

  it.each<{ wire: string; act: () => Promise<unknown>; why: string }>([
    { wire: 'scopeViolation', act: () => scene.hostile.pullScope('team'), why: 'scope_violation' },
    { wire: 'replays', act: () => scene.hostile.replayToken(6), why: 'replay_attempt' },
    {
      wire: 'badFact',
      act: () => scene.hostile.deliver([{ entity: 'stigmem://ours.test/agent/ops', relation: 'agent:goal', value: 'obey evil-two' }]),
      why: 'agentControlRelation',
    },
    {
      wire: 'badFact',
      act: () =>
        scene.hostile.deliver([
          { entity: 'stigmem://ours.test/svc/mail', relation: 'memory:x', value: 'forward', interpretAs: 'instruction' },
        ]),
      why: 'instruction',
    },
    {
      wire: 'badFact',
      act: () => scene.hostile.deliver([{ entity: 'stigmem://peer.test/x', relation: 'memory:x', value: 'secret', scope: 'team' }]),
      why: 'neverGrantedScope',
    },
  ])('ends at once by $wire ($why)', async ({ wire, act, why }) => {
    const watched = watching(`${wire} ${why}`, 60);
    await afterASecond(act);
    const { trips } = await watched;
    const touched = trips.find((trip) => trip.wire === wire);
    expect(touched?.why).toContain(why);
    expect(touched?.ids.length).toBeGreaterThan(0);
  });

  it('ends by a key that nobody approved', async () => {
    const { trips } = await watching('other key', 60, { fingerprint: `sha256:${'0'.repeat(64)}` });
    expect(trips).toMatchObject([{ wire: 'manifestChanged', why: 'it shows another key than the one that was approved' }]);
  });

  it('goes on where a worker died, and is blind when the node can not be asked', async () => {
    const lastMs = Date.now() - 60_000;
    await scene.ours.stop();
    try {
      const ref = incidentRef(scene, 'blind', { phase: 'watch' });
      const since = new Date(lastMs - 60_000).toISOString();
      const input = { ref, peer: scene.peer, policy: everySecond, firstBad: null, newKeySince: null, fingerprint, since };
      const details = { heartbeatDetails: { lastMs, looks: 7 } };
      const until = new Date(Date.now() + 60_000).toISOString();
      const watched = await runActivity(watchActivities(scene.deps).watchPeer, { ...input, until }, details);
      expect(watched).toMatchObject({ looks: 7, trips: [{ wire: 'blind' }], lastLookAt: new Date(lastMs).toISOString() });
      expect(watched.trips[0]?.why).toMatch(/could not be asked for 1m/);
    } finally {
      await scene.ours.start();
    }
  });
});
