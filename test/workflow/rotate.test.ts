import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { VerifiedKeys } from '../../src/contract/steps.ts';
import { sha256Id } from '../../src/contract/canonical.ts';
import { defaultPolicy } from '../../src/contract/policy.ts';
import { fakeWorld, type FakeWorld } from '../helpers/fake-activities.ts';
import { fakeHost, withHostWorker } from '../helpers/fake-host.ts';
import {
  approve,
  closeAs,
  decide,
  devServer,
  gateOpen,
  plan,
  status,
  stepOf,
  until,
  waits,
  withIncident,
  type Incident,
} from '../helpers/workflow-env.ts';

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('rotate');
});
afterAll(async () => {
  await env?.stop();
});

const fingerprint = `sha256:${'a'.repeat(64)}`;
const wrong = `sha256:${'b'.repeat(64)}`;
const keys: VerifiedKeys = {
  nodeId: 'node:peer',
  entityUri: 'stigmem://peer.test/node/self',
  publicKey: 'bmV3',
  keyId: 'key-2',
  fingerprint,
  expiresAt: '2027-11-24T00:00:00Z',
  chain: 'afterFirstBad',
  remarks: ['the chain from the old key is whole, signed after the first bad time'],
};

/** Nothing to undo: the incident goes straight to asking for new keys. */
function quiet(change: Partial<FakeWorld> = {}): FakeWorld {
  return fakeWorld({ facts: new Map([['fact-c', 'keep']]), ...change });
}

async function rotated(incident: Incident, world: FakeWorld): Promise<void> {
  const { run } = await waits(incident, 'verifyKeys');
  world.keys = keys;
  await incident.signal('retry', { step: 'verifyKeys', run, by: 'alice' });
}

describe('waiting for new keys', () => {
  test('asks by retries of one activity, which leave nothing in history, and goes on by itself', async () => {
    const world = quiet();
    await withIncident(env, world, async (incident) => {
      const { now } = await waits(incident, 'verifyKeys', 'at least once an hour');
      expect(now).toMatchObject({ phase: 'rotate', state: 'running' });
      expect(stepOf(now, 'requestRotation')).toMatchObject({ outcome: 'verified' });
      const { run } = now;
      await incident.signal('retry', { step: 'verifyKeys', run, by: 'alice' });
      await until(incident, () => (world.calls.get('verifyKeys') ?? 0) >= 2, 'asked again');
      const { events } = await incident.fetchHistory();
      const failed = (events ?? []).filter(({ activityTaskFailedEventAttributes: of }) => of !== null && of !== undefined);
      expect(failed).toHaveLength(0);
      world.keys = keys;
      await incident.signal('retry', { step: 'verifyKeys', run, by: 'alice' });
      await gateOpen(incident, 'reregister');
      expect(stepOf(await status(incident), 'verifyKeys')).toMatchObject({ outcome: 'verified', phase: 'rotate' });
    });
  });

  test('reminds, and says when it is overdue', async () => {
    const policy = { ...defaultPolicy, rotation: { remindEvery: '1s', escalateAfter: '2s' } };
    const world = quiet({ policy });
    await withIncident(env, world, async (incident) => {
      await until(incident, () => world.announced.some((said) => said.startsWith('rotation-overdue')), 'overdue', 20_000);
      expect(world.announced[0]).toContain('rotation: The peer');
      expect((await status(incident)).warnings.join()).toContain('has not delivered new keys within 2s');
    });
  });

  test('a decision to close ends it', async () => {
    await withIncident(env, quiet(), async (incident) => {
      await waits(incident, 'verifyKeys');
      const { outcome, residual } = await closeAs(incident, 'expelled');
      expect(outcome).toBe('expelled');
      // Asking is nothing that could be left half done.
      expect(residual.map(({ what }) => what)).toEqual(['verifyUndone']);
    });
  });

  test('left out only behind gate skip; then nothing can be bound, until people ask again', async () => {
    const world = quiet();
    await withIncident(env, world, async (incident) => {
      const { run } = await waits(incident, 'verifyKeys');
      await incident.signal('skip', { step: 'verifyKeys', run, by: 'alice', note: 'called them' });
      await approve(incident, 'skip');
      const { now } = await waits(incident, 'rebindPeer', 'No new keys of the peer are verified');
      expect(stepOf(now, 'verifyKeys')).toMatchObject({ outcome: 'unverified' });
      world.keys = keys;
      await incident.signal('retry', { step: 'rebindPeer', run, by: 'alice' });
      await gateOpen(incident, 'reregister');
    });
  });

  test('a switch to a new run goes on waiting there', async () => {
    const world = quiet();
    await withIncident(env, world, async (incident) => {
      const first = (await waits(incident, 'verifyKeys')).run;
      for (let sent = 0; sent < 2_050; sent += 50) await Promise.all(Array.from({ length: 50 }, () => incident.signal('sudo', {})));
      const latest = env.client.workflow.getHandle<typeof import('../../workflows/index.ts').PeerCompromise>(incident.workflowId);
      const next = await until(latest, ({ run }) => run !== first, 'the next run', 60_000);
      expect(next.phase).toBe('rotate');
      const { run } = await waits(latest, 'verifyKeys');
      world.keys = keys;
      await latest.signal('retry', { step: 'verifyKeys', run, by: 'alice' });
      await gateOpen(latest, 'reregister');
    });
  }, 90_000);
});

describe('gate reregister', () => {
  test('takes the fingerprint that people bring, shows it nowhere, and alarms at another', async () => {
    const world = quiet();
    await withIncident(env, world, async (incident) => {
      await rotated(incident, world);
      const { digest, summary, how } = await gateOpen(incident, 'reregister');
      expect(how).toContain('--fingerprint sha256:…');
      expect(summary).toContain('signed after the first bad time');
      const asked = await plan(incident, 'reregister');
      expect(asked.items).toMatchObject([{ id: 'node:peer', action: 'rebind', way: 'manual', evidence: [sha256Id('keys')] }]);
      for (const shown of [asked, await status(incident)]) expect(JSON.stringify(shown)).not.toContain('aaaa');
      const vote = { gate: 'reregister', decision: 'approve', digest, by: 'bob' };
      expect(await decide(incident, vote)).toMatchObject({ accepted: false, refusedBecause: 'fingerprint_mismatch' });
      expect(await decide(incident, { ...vote, fingerprint: wrong })).toMatchObject({ refusedBecause: 'fingerprint_mismatch', have: 0 });
      await until(incident, () => world.reminders.some(({ why }) => why === 'mismatch'), 'the alarm');
      const alarmed = await status(incident);
      expect(alarmed.warnings.join()).toContain('bob brought a fingerprint');
      expect(alarmed.refused.last.map(({ because }) => because)).toContain('fingerprint_mismatch');
      expect(await decide(incident, { ...vote, fingerprint })).toMatchObject({ accepted: true, have: 1 });
      const { now } = await waits(incident, 'testPull', 'is not judged, so nothing is let in');
      expect(now.phase).toBe('testPull');
      expect(stepOf(now, 'judgeBacklog')).toMatchObject({ outcome: 'unverified', detail: expect.stringContaining('no host worker') });
      expect(stepOf(now, 'rebindPeer')).toMatchObject({ outcome: 'verified', phase: 'reregister' });
    });
  });

  test('the host worker binds a known node_id, and the step reads it back', async () => {
    const host = fakeHost();
    const world = quiet({ hostQueue: 'host-keys' });
    await withHostWorker(env, 'host-keys', host, () =>
      withIncident(env, world, async (incident) => {
        await rotated(incident, world);
        const { digest } = await gateOpen(incident, 'reregister');
        expect((await plan(incident, 'reregister')).items).toMatchObject([{ action: 'rebind', way: 'host' }]);
        await decide(incident, { gate: 'reregister', decision: 'approve', digest, by: 'bob', fingerprint });
        await gateOpen(incident, 'testPull');
        const now = await status(incident);
        expect(stepOf(now, 'judgeBacklog')).toMatchObject({ outcome: 'verified', phase: 'testPull' });
        expect(now.coverage.map(({ what }) => what)).toContain('facts that wait behind the fence');
        // One that can't say what waits is no host worker for this, and nothing is made up.
        host.failing.set('fetchBacklog', 'HostRefused');
        const { digest: opening } = await gateOpen(incident, 'testPull');
        await decide(incident, { gate: 'testPull', decision: 'reject', digest: opening, by: 'bob' });
        const { run } = await waits(incident, 'testPull', 'rejected by bob');
        await incident.signal('retry', { step: 'testPull', run, by: 'alice' });
        await waits(incident, 'testPull', 'see warnings');
        expect(stepOf(await status(incident), 'judgeBacklog')).toMatchObject({ outcome: 'unverified', way: 'none' });
        host.failing.clear();
        expect(host.calls.get('rebindPeer')).toBe(1);
        expect(world.calls.get('registerPeer')).toBeUndefined();
      }),
    );
  });

  test('rejected: held fenced; retry verifies anew and asks again', async () => {
    const world = quiet();
    await withIncident(env, world, async (incident) => {
      await rotated(incident, world);
      const { digest } = await gateOpen(incident, 'reregister');
      await decide(incident, { gate: 'reregister', decision: 'reject', digest, by: 'bob' });
      const { run } = await waits(incident, 'rebindPeer', 'rejected by bob');
      const before = world.calls.get('verifyKeys');
      await incident.signal('retry', { step: 'rebindPeer', run, by: 'alice' });
      const again = await gateOpen(incident, 'reregister', 2);
      expect(again.digest).not.toBe(digest);
      expect(world.calls.get('verifyKeys')).toBe((before ?? 0) + 1);
      expect(world.calls.get('registerPeer')).toBeUndefined();
    });
  });

  test('a key that changed since it was approved is not bound: people are asked about the one of now', async () => {
    const world = quiet();
    await withIncident(env, world, async (incident) => {
      await rotated(incident, world);
      const { digest } = await gateOpen(incident, 'reregister');
      world.keys = { ...keys, publicKey: 'YW5vdGhlcg', fingerprint: wrong };
      await decide(incident, { gate: 'reregister', decision: 'approve', digest, by: 'bob', fingerprint });
      const second = await gateOpen(incident, 'reregister', 2);
      expect(stepOf(await status(incident), 'rebindPeer')).toBeUndefined();
      expect(
        await decide(incident, { gate: 'reregister', decision: 'approve', digest: second.digest, by: 'bob', fingerprint: wrong }),
      ).toMatchObject({ accepted: true });
      await waits(incident, 'testPull');
    });
  });
});
