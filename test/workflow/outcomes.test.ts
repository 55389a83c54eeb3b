import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { IncidentResult, Status } from '../../src/contract/schemas.ts';
import { fakeWorld } from '../helpers/fake-activities.ts';
import {
  amend,
  approve,
  closeAs,
  decide,
  devServer,
  gateOpen,
  status,
  until,
  withIncident,
  type Incident,
} from '../helpers/workflow-env.ts';

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('outcomes');
});
afterAll(async () => {
  await env?.stop();
});

const mutations = [
  'fenceInbound',
  'fenceOutbound',
  'blockRelays',
  'revokeTokens',
  'revokeKeys',
  'lowerTrust',
  'pausePromotion',
  'undoFacts',
  'notifyPeer',
  'restoreTrust',
  'resumePromotion',
  'liftFences',
];

async function closed(incident: Incident, outcome: 'expelled' | 'dismissed') {
  const result = await closeAs(incident, outcome);
  expect(IncidentResult.parse(result)).toEqual(result);
  const now = await status(incident);
  expect(Status.parse(now)).toEqual(now);
  expect(now).toMatchObject({
    phase: 'closed',
    state: 'closed',
    outcome,
    waitingFor: [],
    residual: result.residual,
    evidence: { head: result.evidenceHead },
  });
  return { result, now };
}

describe('duplicate', () => {
  test('hands its alerts over, changes nothing on the node, and says who holds the peer', async () => {
    const world = fakeWorld({ heldBy: 'peer-compromise:other' });
    const input = { peer: 'node:peer', alerts: [{ name: 'one' }, { name: 'two' }] };
    await withIncident(
      env,
      world,
      async (incident) => {
        expect(await incident.result()).toMatchObject({ outcome: 'duplicate', residual: [] });
        expect(world.calls.get('handOverAlerts')).toBe(1);
        for (const name of mutations) expect(world.calls.get(name), name).toBeUndefined();
        const now = await status(incident);
        expect(now.warnings).toEqual(['peer-compromise:other holds this peer; our 2 alerts were handed over to it.']);
        expect(now).toMatchObject({ phase: 'closed', state: 'closed', outcome: 'duplicate' });
      },
      { input },
    );
  });

  test('hands over what came while it handed over, too', async () => {
    const world = fakeWorld({ heldBy: 'peer-compromise:other' });
    let goOn = (): void => undefined;
    world.held.set('handOverAlerts', new Promise((resolve) => (goOn = resolve)));
    await withIncident(env, world, async (incident) => {
      await until(incident, ({ steps }) => steps.some(({ name }) => name === 'resolvePeer'), 'resolved');
      await incident.signal('alert', { name: 'meanwhile' });
      await until(incident, ({ alerts }) => alerts.count === 1, 'the alert');
      goOn();
      expect(await incident.result()).toMatchObject({ outcome: 'duplicate' });
      expect((await status(incident)).warnings.join()).toContain('our 1 alerts were handed over');
    });
  });

  test('whose holder closes before it takes the alerts holds the peer itself', async () => {
    const world = fakeWorld({ heldBy: 'peer-compromise:other' });
    world.gone = true;
    await withIncident(env, world, async (incident) => {
      await approve(incident, 'retract');
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect(world.calls.get('claimPeer')).toBe(2);
      await closed(incident, 'expelled');
    });
  });

  test('waits until the holder has taken the alerts; skipped, it says that it has not', async () => {
    const world = fakeWorld({ heldBy: 'peer-compromise:other' });
    world.failing.set('handOverAlerts', { type: 'StigmemUnavailable', times: Infinity });
    await withIncident(env, world, async (incident) => {
      const { run } = await until(incident, ({ state }) => state === 'parked', 'parked');
      await incident.signal('skip', { step: 'resolvePeer', run, by: 'bob', note: 'told them' });
      expect(await incident.result()).toMatchObject({ outcome: 'duplicate' });
      expect((await status(incident)).warnings.join()).toContain('NOT handed over');
    });
  });
});

test('a drill claims nobody, and says that it is one', async () => {
  const world = fakeWorld({ heldBy: 'peer-compromise:other' });
  await withIncident(
    env,
    world,
    async (incident) => {
      await approve(incident, 'retract');
      const now = await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect(now.mode).toBe('drill');
      expect(now.warnings.join()).toContain('DRILL: the node is read, nothing on it is changed');
      await closed(incident, 'expelled');
      expect(world.calls.get('claimPeer')).toBeUndefined();
      expect(world.calls.get('releasePeer')).toBeUndefined();
    },
    { input: { peer: 'node:peer', mode: 'drill' } },
  );
});

test('alerts that join later are held against the audit, each once; notes stand on record', async () => {
  const world = fakeWorld();
  await withIncident(
    env,
    world,
    async (incident) => {
      await gateOpen(incident, 'retract');
      await incident.signal('alert', { name: 'second' });
      await incident.signal('alert', { name: 'third', at: '2026-11-23T01:00:00Z', detail: 'x' });
      await incident.signal('note', { by: 'alice', text: 'phoned their operator' });
      await approve(incident, 'retract');
      const now = await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect(now.alerts).toEqual({ count: 3, corroborated: 1 });
      expect(now.notes).toEqual([expect.objectContaining({ by: 'alice', text: 'phoned their operator' })]);
      await incident.signal('alert', { name: 'fourth' });
      await closed(incident, 'expelled');
      expect(world.calls.get('holdAlerts')).toBe(2);
    },
    { input: { peer: 'node:peer', alerts: [{ name: 'first' }] } },
  );
});

describe('close at every phase', () => {
  const parkAt: Readonly<Record<string, string>> = { identify: 'captureLocal', contain: 'fenceInbound', investigate: 'collectFacts' };
  for (const outcome of ['expelled', 'dismissed'] as const) {
    for (const [phase, step] of Object.entries(parkAt)) {
      test(`${outcome} in ${phase}, while ${step} is parked`, async () => {
        const world = fakeWorld();
        world.failing.set(step, { type: 'StigmemUnavailable', times: Infinity });
        await withIncident(env, world, async (incident) => {
          await until(incident, (now) => now.state === 'parked' && now.phase === phase, 'parked');
          const { result, now } = await closed(incident, outcome);
          const what = result.residual.map((risk) => risk.what);
          // What was never done is no silence: expelled for good with a door open.
          if (outcome === 'expelled') expect(what).toEqual(expect.arrayContaining([step, 'undoFacts', 'verifyUndone']));
          const why = outcome === 'expelled' ? 'not done when the incident was closed: ' : 'not finished when the incident was dismissed, ';
          expect(now.steps.find(({ name }) => name === step)?.detail).toMatch(new RegExp(`^${why}.*${step}: StigmemUnavailable`));
          expect(world.calls.get('liftFences')).toBe(outcome === 'dismissed' ? 1 : undefined);
          expect(world.undone.size).toBe(0);
        });
      });
    }

    test(`${outcome} while a rejected plan holds, while gate skip is open, and in rotate`, async () => {
      const world = fakeWorld();
      await withIncident(env, world, async (incident) => {
        const { digest } = await gateOpen(incident, 'retract');
        await decide(incident, { gate: 'retract', decision: 'reject', digest, by: 'bob' });
        await until(incident, ({ waitingFor }) => waitingFor.some(({ kind }) => kind === 'step'), 'held');
        await closed(incident, outcome);
        expect(world.undone.size).toBe(0);
      });
      const stuck = fakeWorld();
      stuck.failing.set('fenceOutbound', { type: 'StigmemRejected', times: Infinity });
      await withIncident(env, stuck, async (incident) => {
        const { run } = await until(incident, ({ state }) => state === 'parked', 'parked');
        await incident.signal('skip', { step: 'fenceOutbound', run, by: 'alice' });
        await gateOpen(incident, 'skip');
        await closed(incident, outcome);
      });
      await withIncident(env, world, async (incident) => {
        await approve(incident, 'retract');
        await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
        const { now } = await closed(incident, outcome);
        expect(now.residual).toEqual([]);
      });
    });
  }

  test('an amendment that is being looked at when people close is answered', async () => {
    const world = fakeWorld();
    world.failing.set('narrowPlan', { type: 'EvidenceUnavailable', times: Infinity });
    await withIncident(env, world, async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      const answer = amend(incident, { gate: 'retract', digest, keep: [{ factId: 'fact-a', justification: 'x' }], by: 'bob' });
      await until(incident, ({ state }) => state === 'parked', 'parked');
      await closed(incident, 'expelled');
      expect(await answer).toMatchObject({ accepted: false, refusedBecause: 'closed' });
    });
  });

  test('dismissed, when the fences do not come off: it parks, says so, takes no second close, and ends by retry', async () => {
    const world = fakeWorld();
    world.failing.set('liftFences', { type: 'StigmemUnavailable', times: 1 });
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      const { run } = await status(incident);
      await incident.signal('close', { outcome: 'dismissed', run, by: 'alice', reason: 'false alarm' });
      await approve(incident, 'restore');
      const parked = await until(incident, ({ state }) => state === 'parked', 'parked');
      expect(parked).toMatchObject({ phase: 'restore', outcome: null, waitingFor: [{ kind: 'step', step: 'liftFences' }] });
      await incident.signal('close', { outcome: 'expelled', run, by: 'alice', reason: 'or not' });
      await until(incident, ({ refused }) => refused.last.at(-1)?.because === 'closed', 'refused');
      await incident.signal('retry', { step: 'liftFences', run, by: 'bob' });
      expect(await incident.result()).toMatchObject({ outcome: 'dismissed', residual: [] });
      expect(world.calls.get('liftFences')).toBe(2);
    });
  });

  test('dismissed while an attempt at a notice has died and the next is due: the report is not silent about it', async () => {
    const world = fakeWorld();
    world.failing.set('notifyPeer', { type: 'WebhookUnavailable', times: Infinity, of: 'attempt' });
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      const { result } = await closed(incident, 'dismissed');
      const why = expect.stringContaining('not finished when the incident was dismissed, and may have taken effect in part');
      expect(result.residual).toEqual([{ what: 'notifyPeer', why, count: 1 }]);
    });
  });

  test('dismissed, when what contain did stays in part: the rest is residual risk', async () => {
    const world = fakeWorld();
    world.results.set('liftFences', { outcome: 'unverified', detail: 'one row is still fenced' });
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      const { result } = await closed(incident, 'dismissed');
      expect(result.residual).toEqual([{ what: 'liftFences', why: 'unverified: one row is still fenced', count: 1 }]);
    });
  });
});
