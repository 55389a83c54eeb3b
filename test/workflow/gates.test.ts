import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { gateDigest } from '../../src/contract/canonical.ts';
import { defaultPolicy, type Policy } from '../../src/contract/policy.ts';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { amend, approve, closeAs, decide, gateOpen, plan, status, timeSkipping, until, withIncident } from '../helpers/workflow-env.ts';

// A server for each test: after an update the time-skipping server may stop skipping for good.
let env: TestWorkflowEnvironment;
beforeEach(async () => {
  env = await timeSkipping();
});
afterEach(async () => {
  await env?.teardown();
});

const quorum = (need: number, approvers: string[] | null = null): Policy => ({
  ...defaultPolicy,
  gates: Object.fromEntries(
    Object.entries(defaultPolicy.gates).map(([gate, rules]) => [gate, { ...rules, need, approvers }]),
  ) as Policy['gates'],
});

describe('a decision is about exactly one opening', () => {
  test('the digest is made from gate, opening, plan and run', async () => {
    await withIncident(env, fakeWorld(), async (incident) => {
      const { digest, opening } = await gateOpen(incident, 'retract');
      const { run } = await status(incident);
      const { planHash } = await plan(incident, 'retract');
      expect(digest).toBe(gateDigest({ gate: 'retract', opening, planHash, runId: run }));
    });
  });

  test('what is not about this opening is refused, with the reason, and stands on record', async () => {
    await withIncident(env, fakeWorld({ policy: quorum(2, ['bob', 'carol', 'Dave']) }), async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      const short = digest.slice(0, 'sha256:'.length + 12);
      const wrong = `sha256:${'0'.repeat(64)}`;
      const say = (change: object) => decide(incident, { gate: 'retract', decision: 'approve', digest, by: 'bob', ...change });
      expect(await say({ digest: wrong })).toMatchObject({ accepted: false, refusedBecause: 'stale_digest', have: 0, need: 2, digest });
      expect(await say({ gate: 'nonsense' })).toMatchObject({ accepted: false, refusedBecause: 'unknown_gate' });
      expect(await say({ gate: 'close' })).toMatchObject({ accepted: false, refusedBecause: 'not_open' });
      expect(await say({ by: 'mallory' })).toMatchObject({ accepted: false, refusedBecause: 'not_allowed' });
      expect(await say({ digest: 'sha256:12' })).toMatchObject({ accepted: false, refusedBecause: 'malformed' });
      expect(await say({ extra: 1 })).toMatchObject({
        accepted: false,
        refusedBecause: 'malformed',
        detail: expect.stringContaining('extra'),
      });
      expect(await say({ digest: short })).toMatchObject({ accepted: true, have: 1, need: 2 });
      expect(await say({ by: ' BOB ' })).toMatchObject({ accepted: false, refusedBecause: 'already_counted', have: 1 });
      const before = await status(incident);
      expect(before.refused.count).toBe(7);
      expect(before.refused.last.map(({ because }) => because)).toEqual([
        'stale_digest',
        'unknown_gate',
        'not_open',
        'not_allowed',
        'malformed',
        'malformed',
        'already_counted',
      ]);
      expect(before.phase).toBe('retract');
      expect(await say({ by: 'dave' })).toMatchObject({ accepted: true, have: 2 });
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
    });
  });

  test('who asked to close may not be one of two approvers', async () => {
    await withIncident(env, fakeWorld({ policy: quorum(2) }), async (incident) => {
      const { run } = await status(incident);
      await incident.signal('close', { outcome: 'expelled', run, by: 'alice', reason: 'enough' });
      const { digest } = await gateOpen(incident, 'close');
      const say = (by: string) => decide(incident, { gate: 'close', decision: 'approve', digest, by });
      expect(await say('Alice')).toMatchObject({ accepted: false, refusedBecause: 'not_allowed' });
      expect(await say('bob')).toMatchObject({ accepted: true, have: 1 });
      expect(await say('carol')).toMatchObject({ accepted: true, have: 2 });
      expect(await incident.result()).toMatchObject({ outcome: 'expelled' });
    });
  });
});

describe('gates fail closed', () => {
  test('an opening that expires voids its votes and opens the next one; people are reminded and nothing is ever approved by silence', async () => {
    const world = fakeWorld({ policy: quorum(2) });
    await withIncident(env, world, async (incident) => {
      const first = await gateOpen(incident, 'retract');
      await incident.signal('approve', { gate: 'retract', digest: first.digest, by: 'bob' });
      await until(incident, ({ waitingFor }) => waitingFor.some((waiting) => waiting.kind === 'gate' && waiting.have === 1), 'one vote');
      await env.sleep('25h');
      const second = await gateOpen(incident, 'retract', 2);
      expect(second.have).toBe(0);
      expect(second.digest).not.toBe(first.digest);
      await incident.signal('approve', { gate: 'retract', digest: first.digest, by: 'carol' });
      await until(incident, ({ refused }) => refused.last.at(-1)?.because === 'stale_digest', 'refused');
      await env.sleep('10d');
      const later = await gateOpen(incident, 'retract');
      expect(later.opening).toBeGreaterThanOrEqual(11);
      expect(world.undone.size).toBe(0);
      expect(world.reminders.filter(({ why }) => why === 'waiting').length).toBeGreaterThan(40);
      expect(world.reminders.filter(({ why }) => why === 'expired').length).toBeGreaterThanOrEqual(10);
    });
  });

  test('a reminder that can not be sent keeps nobody from deciding', async () => {
    const world = fakeWorld();
    world.failing.set('remind', { type: 'EvidenceUnavailable', times: Infinity });
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      await env.sleep('5h');
      expect((await status(incident)).warnings.join()).toContain('Reminder for gate retract could not be sent');
      await approve(incident, 'retract');
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
    });
  });

  test('reject retract: nothing is undone and it holds; retry asks again under a new digest', async () => {
    const world = fakeWorld();
    await withIncident(env, world, async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      await incident.signal('reject', { gate: 'retract', digest, by: 'bob' });
      const held = await until(
        incident,
        ({ waitingFor }) => waitingFor.some((waiting) => waiting.kind === 'step' && waiting.step === 'undoFacts'),
        'held',
      );
      expect(held.state).toBe('waiting');
      await incident.signal('approve', { gate: 'retract', digest, by: 'carol' });
      await until(incident, ({ refused }) => refused.last.at(-1)?.because === 'not_open', 'refused');
      await env.sleep('3d');
      expect(world.undone.size).toBe(0);
      await incident.signal('retry', { step: 'undoFacts', run: held.run, by: 'bob' });
      const again = await gateOpen(incident, 'retract', 2);
      expect(again.digest).not.toBe(digest);
      await approve(incident, 'retract');
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect(world.undone.get('fact-a')).toBe(1);
    });
  });

  test('reject close and restore: dropped, the incident goes on', async () => {
    await withIncident(env, fakeWorld(), async (incident) => {
      const { run } = await status(incident);
      for (const [outcome, gate] of [
        ['expelled', 'close'],
        ['dismissed', 'restore'],
      ] as const) {
        await incident.signal('close', { outcome, run, by: 'alice', reason: 'test' });
        const { digest } = await gateOpen(incident, gate);
        await decide(incident, { gate, decision: 'reject', digest, by: 'bob' });
        await until(
          incident,
          ({ waitingFor }) => !waitingFor.some((waiting) => waiting.kind === 'gate' && waiting.gate === gate),
          `${gate} shut`,
        );
      }
      expect((await closeAs(incident, 'expelled')).outcome).toBe('expelled');
    });
  });
});

describe('people may only narrow a plan', () => {
  test('keeping a fact makes a new opening; the old digest no longer counts', async () => {
    const world = fakeWorld();
    await withIncident(env, world, async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      const answer = await amend(incident, {
        gate: 'retract',
        digest,
        keep: [{ factId: 'fact-a', justification: 'checked by phone' }],
        by: 'bob',
      });
      expect(answer).toMatchObject({ accepted: true });
      const second = await gateOpen(incident, 'retract', 2);
      expect(second.digest).toBe(answer.digest);
      expect(await decide(incident, { gate: 'retract', decision: 'approve', digest, by: 'bob' })).toMatchObject({
        refusedBecause: 'stale_digest',
      });
      await approve(incident, 'retract');
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect([...world.undone.keys()]).toEqual(['fact-b']);
    });
  });

  test('anything but narrowing is refused and changes nothing', async () => {
    await withIncident(env, fakeWorld(), async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      const widen = (change: object) =>
        amend(incident, { gate: 'retract', digest, keep: [{ factId: 'fact-z', justification: 'x' }], by: 'bob', ...change });
      expect(await widen({})).toMatchObject({ accepted: false, refusedBecause: 'would_widen' });
      expect(await widen({ keep: [] })).toMatchObject({ refusedBecause: 'malformed' });
      expect(await widen({ gate: 'close' })).toMatchObject({ refusedBecause: 'malformed' });
      expect(await widen({ digest: `sha256:${'1'.repeat(64)}` })).toMatchObject({ refusedBecause: 'stale_digest' });
      expect(await gateOpen(incident, 'retract')).toMatchObject({ opening: 1, digest });
    });
  });

  test('amending everything away leaves nothing to undo and no gate', async () => {
    await withIncident(env, fakeWorld(), async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      await incident.signal('amend', {
        gate: 'retract',
        digest,
        by: 'bob',
        keep: ['fact-a', 'fact-b'].map((factId) => ({ factId, justification: 'benign' })),
      });
      const held = await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect(held.steps.find(({ name }) => name === 'undoFacts')).toMatchObject({
        outcome: 'verified',
        detail: expect.stringContaining('nothing to undo'),
      });
    });
  });

  test('what comes after the cut is asked about in the next opening', async () => {
    const world = fakeWorld();
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      world.late = new Map([['fact-late', 'retract']]);
      await approve(incident, 'retract');
      const second = await gateOpen(incident, 'retract', 2);
      expect([...world.undone.keys()]).toEqual(['fact-a', 'fact-b']);
      expect(second.summary).toBe('retract 1');
      await approve(incident, 'retract');
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect([...world.undone.keys()]).toEqual(['fact-a', 'fact-b', 'fact-late']);
    });
  });

  test.each(['amend', 'skip'] as const)('what a first opening undid stays told when people %s the rest', async (how) => {
    const world = fakeWorld();
    const residual = [{ what: 'fact-b', why: 'the node refused it', count: 1 }];
    world.results.set('undoFacts', { outcome: 'unverified', detail: '1 of 2 undone', residual });
    await withIncident(env, world, async (incident) => {
      await gateOpen(incident, 'retract');
      world.late = new Map([['fact-late', 'retract']]);
      await approve(incident, 'retract');
      const { digest } = await gateOpen(incident, 'retract', 2);
      if (how === 'amend') {
        await amend(incident, { gate: 'retract', digest, by: 'alice', keep: [{ factId: 'fact-late', justification: 'benign' }] });
      } else {
        await incident.signal('reject', { gate: 'retract', digest, by: 'bob' });
        const { run } = await until(incident, ({ waitingFor }) => waitingFor.some(({ kind }) => kind === 'step'), 'held');
        await incident.signal('skip', { step: 'undoFacts', run, by: 'bob', note: 'enough' });
      }
      const { steps, residual: left } = await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      const undone = steps.find(({ name }) => name === 'undoFacts');
      expect(undone).toMatchObject({ outcome: 'unverified', detail: expect.stringContaining('1 of 2 undone') });
      expect(left).toContainEqual(residual[0]);
      expect(world.calls.get('verifyUndone')).toBe(1);
    });
  });

  test("the node's write quota makes it wait, says where it stands, and goes on by itself", async () => {
    const world = fakeWorld({ pause: { ms: 3_600_000, why: 'The node takes 1,000 writes an hour.' } });
    await withIncident(env, world, async (incident) => {
      const { digest } = await gateOpen(incident, 'retract');
      await incident.signal('approve', { gate: 'retract', digest, by: 'bob' });
      const paced = await until(
        incident,
        ({ waitingFor }) => waitingFor.some((waiting) => waiting.kind === 'step' && waiting.why.includes('1 of 2 facts')),
        'paced',
      );
      expect(paced.state).toBe('running');
      await env.sleep('61m');
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      expect([...world.undone]).toEqual([
        ['fact-a', 1],
        ['fact-b', 1],
      ]);
    });
  });
});

test('a start may only tighten the policy, and a tightened quorum counts', async () => {
  await withIncident(
    env,
    fakeWorld(),
    async (incident) => {
      expect(await gateOpen(incident, 'retract')).toMatchObject({ need: 3 });
    },
    { input: { peer: 'x', policy: { gates: { retract: { need: 3 } } } } },
  );
  const loose = withIncident(env, fakeWorld({ policy: quorum(2) }), (incident) => incident.result(), {
    input: { peer: 'x', policy: { gates: { retract: { need: 1 } } } },
  });
  await expect(loose).rejects.toMatchObject({
    cause: { type: 'InvalidInput', message: expect.stringContaining('policy.gates.retract.need') },
  });
});
