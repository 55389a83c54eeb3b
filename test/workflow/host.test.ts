import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Status } from '../../src/contract/schemas.ts';
import { fakeWorld, newKeys } from '../helpers/fake-activities.ts';
import { fakeHost, withHostWorker } from '../helpers/fake-host.ts';
import { approve, closeAs, gateOpen, status, timeSkipping, until, withIncident } from '../helpers/workflow-env.ts';

let env: TestWorkflowEnvironment;
beforeAll(async () => {
  env = await timeSkipping();
});
afterAll(async () => {
  await env?.teardown();
});

const hostIn = ({ coverage }: Status) => coverage.find(({ what }) => what === 'host worker of the node');
const wayOf = ({ steps }: Status, name: string) => steps.find((step) => step.name === name)?.way;
const open = ({ waitingFor }: Status, gate: string) => waitingFor.find((one) => one.kind === 'gate' && one.gate === gate);
const contained = ['fenceInbound', 'fenceOutbound', 'revokeTokens', 'revokeKeys', 'lowerTrust', 'pausePromotion'];

describe('a host worker', () => {
  test('where nobody polls its queue nothing waits for one, and status says so', async () => {
    await withIncident(env, fakeWorld(), async (incident) => {
      const now = await gateOpen(incident, 'retract').then(() => status(incident));
      expect(hostIn(now)).toMatchObject({ seen: 0, complete: false });
      expect(hostIn(now)?.why).toContain('none polls');
      expect(wayOf(now, 'fenceInbound')).toBe('http');
    });
  });

  test('that died just now costs seconds, then the next way down is taken', async () => {
    await withIncident(env, fakeWorld({ hostQueue: 'nobody-here' }), async (incident) => {
      await gateOpen(incident, 'retract');
      const now = await status(incident);
      expect(hostIn(now)?.why).toContain('nobody took the task');
      expect(wayOf(now, 'fenceInbound')).toBe('http');
    });
  });

  test('does what it can, and the steps say so', async () => {
    const host = fakeHost();
    const shut = { way: 'host' } as const;
    const results = new Map([
      ['fenceInbound', shut],
      ['fenceOutbound', shut],
    ]);
    const world = fakeWorld({ hostQueue: 'host-1', results });
    await withHostWorker(env, 'host-1', host, () =>
      withIncident(env, world, async (incident) => {
        await gateOpen(incident, 'retract');
        const now = await status(incident);
        expect(hostIn(now)).toMatchObject({ seen: 1, complete: true });
        for (const name of contained.slice(2)) expect(wayOf(now, name), name).toBe('host');
        expect(now.peer.peerIds).toContain('second-row');
        expect(host.calls.get('captureHost')).toBe(1);
        expect(host.calls.get('listFacts')).toBe(1);
        // Read back over HTTP by the steps' own activities.
        expect(world.calls.get('fenceInbound')).toBe(1);
        // No route shows keys: the steps' own activities have nothing to do.
        expect(world.calls.get('revokeKeys')).toBeUndefined();
      }),
    );
  });

  test('that does not serve this incident is told, and the fence goes up over HTTP', async () => {
    const host = fakeHost();
    host.failing.set('probeHost', 'HostUnsupported');
    await withHostWorker(env, 'host-2', host, () =>
      withIncident(env, fakeWorld({ hostQueue: 'host-2' }), async (incident) => {
        await gateOpen(incident, 'retract');
        const now = await status(incident);
        expect(hostIn(now)?.why).toContain('probeHost fails');
        expect(wayOf(now, 'fenceInbound')).toBe('http');
      }),
    );
  });

  test('that has a copy of the database open is not believed', async () => {
    await withHostWorker(env, 'host-of-a-copy', fakeHost(), () =>
      withIncident(env, fakeWorld({ hostQueue: 'host-of-a-copy' }), async (incident) => {
        await gateOpen(incident, 'retract');
        const now = await status(incident);
        expect(hostIn(now)?.why).toContain('not the one that our node serves from');
        expect(wayOf(now, 'revokeKeys')).toBe('http');
      }),
    );
  });

  test('that fails at one operation is a warning, and that step goes over HTTP', async () => {
    const host = fakeHost();
    host.failing.set('lowerTrustRules', 'HostRefused');
    await withHostWorker(env, 'host-3', host, () =>
      withIncident(env, fakeWorld({ hostQueue: 'host-3' }), async (incident) => {
        await gateOpen(incident, 'retract');
        const now = await status(incident);
        expect(now.warnings.join()).toContain('The host worker did not do lowerTrustRules');
        expect(wayOf(now, 'lowerTrust')).toBe('http');
        expect(wayOf(now, 'revokeKeys')).toBe('host');
      }),
    );
  });

  test('that comes after the peer was contained does it again in its way', async () => {
    const host = fakeHost();
    const world = fakeWorld();
    let letGo = (): void => undefined;
    world.held.set('pausePromotion', new Promise((resolve) => (letGo = resolve)));
    await withHostWorker(env, 'host-4', host, () =>
      withIncident(env, world, async (incident) => {
        const before = await until(incident, (now) => wayOf(now, 'revokeKeys') !== undefined, 'contained');
        expect(wayOf(before, 'revokeKeys')).toBe('http');
        world.hostQueue = 'host-4';
        letGo();
        await gateOpen(incident, 'retract');
        const now = await status(incident);
        for (const name of contained.slice(2)) expect(wayOf(now, name), name).toBe('host');
        expect(host.calls.get('revokePeers')).toBe(2);
      }),
    );
  });

  test('has to suppress what was approved for it, once', async () => {
    const host = fakeHost();
    const world = fakeWorld({ hostQueue: 'host-5', facts: new Map([['fact-a', 'suppress']]), keys: newKeys });
    await withHostWorker(env, 'host-5', host, () =>
      withIncident(env, world, async (incident) => {
        await approve(incident, 'retract', 'bob');
        // With keys: an activity that waits for its next attempt would stop the server's clock for the tests that follow.
        await gateOpen(incident, 'reregister');
        expect(host.calls.get('suppressFacts')).toBe(1);
        expect(host.calls.get('listFacts')).toBe(2);
      }),
    );
  });

  test('lifts approved tombstones, once, and none before people approved', async () => {
    const host = fakeHost();
    const world = fakeWorld({ hostQueue: 'host-lift', facts: new Map([['tombstone-a', 'lift']]), keys: newKeys });
    await withHostWorker(env, 'host-lift', host, () =>
      withIncident(env, world, async (incident) => {
        await until(incident, ({ waitingFor }) => waitingFor.some((one) => one.kind === 'gate'), 'gate');
        expect(host.calls.get('liftTombstones')).toBeUndefined();
        await approve(incident, 'retract', 'bob');
        await gateOpen(incident, 'reregister');
        expect(host.calls.get('liftTombstones')).toBe(1);
        expect(host.calls.get('suppressFacts')).toBeUndefined();
      }),
    );
  });

  test('alone undoes what it did: a dismissed incident waits for it', async () => {
    // A clock of its own: an incident that is terminated while it waits for the peer's keys stops the one of its server.
    const own = await timeSkipping();
    const host = fakeHost();
    const world = fakeWorld({ hostQueue: 'host-6' });
    await withIncident(own, world, async (incident) => {
      await withHostWorker(own, 'host-6', host, () => gateOpen(incident, 'retract'));
      const closing = closeAs(incident, 'dismissed');
      const stuck = await until(
        incident,
        ({ waitingFor }) => waitingFor.some((one) => one.kind === 'step' && one.step === 'restoreTrust'),
        'parked',
      );
      expect(JSON.stringify(stuck.waitingFor)).toContain('undone by it alone');
      expect(host.calls.get('restoreOnHost')).toBeUndefined();
      expect(open(stuck, 'restore')).toBeUndefined();
      await withHostWorker(own, 'host-6', host, () => closing);
      expect(host.calls.get('restoreOnHost')).toBe(1);
      expect(host.calls.get('reinstatePeers')).toBe(1);
    });
    await own.teardown();
  });
});
