import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { gates as gateNames } from '../../src/contract/names.ts';
import { defaultPolicy, type Policy } from '../../src/contract/policy.ts';
import { digestOf, isDecided, openGate, reduceVote, type OpenGate } from '../../workflows/gates.ts';

const runs = { current: 'run-one', recorded: 'run-one' };
const at = '2026-11-23T01:00:00Z';
const plan = { planHash: `sha256:${'a'.repeat(64)}`, counts: { retract: 1 }, summary: 'retract 1' };
const fingerprint = `sha256:${'f'.repeat(64)}`;

function policyOf(need: number, approvers: string[] | null = null): Policy {
  const gate = { ...defaultPolicy.gates.retract, need, approvers };
  return { ...defaultPolicy, gates: { ...defaultPolicy.gates, retract: gate, reregister: gate } };
}

const open = openGate(defaultPolicy, 0, { gate: 'retract', plan }, 0);
const digest = digestOf(open, runs.current);
const vote = { gate: 'retract', digest, by: 'bob' };

describe('a vote', () => {
  test('with another fingerprint than the one expected is refused; with it, it counts; a reject needs none', () => {
    const asked: OpenGate = openGate(defaultPolicy, 0, { gate: 'reregister', plan, expectFingerprint: fingerprint }, 0);
    const gates = { reregister: asked };
    const given = { gate: 'reregister', digest: digestOf(asked, runs.current), by: 'bob' };
    const because = (decision: 'approve' | 'reject', typed?: string) =>
      reduceVote(gates, policyOf(2), runs, decision, { ...given, ...(typed === undefined ? {} : { fingerprint: typed }) }, at).verdict
        .refusedBecause;
    expect(because('approve')).toBe('fingerprint_mismatch');
    expect(because('approve', `sha256:${'e'.repeat(64)}`)).toBe('fingerprint_mismatch');
    expect(because('approve', fingerprint)).toBeUndefined();
    expect(because('reject')).toBeUndefined();
  });

  test('for an opening that is decided or held is not open', () => {
    const decided = reduceVote({ retract: open }, policyOf(1), runs, 'approve', vote, at).gates;
    expect(reduceVote(decided, policyOf(1), runs, 'reject', { ...vote, by: 'carol' }, at).verdict.refusedBecause).toBe('not_open');
    expect(reduceVote({ retract: { ...open, held: true } }, policyOf(1), runs, 'approve', vote, at).verdict.refusedBecause).toBe(
      'not_open',
    );
  });

  test('of the run a reset was copied from is answered as stale, and what it counts is known by its run', () => {
    const copied = { current: 'run-two', recorded: 'run-one' };
    const { gates, verdict } = reduceVote({ retract: open }, policyOf(1), copied, 'approve', vote, at);
    expect(verdict.refusedBecause).toBe('stale_digest');
    expect(gates.retract?.votes).toMatchObject([{ by: 'bob', run: 'run-one' }]);
  });
});

test('no sequence of votes decides without a quorum of different people, and one reject decides', () => {
  const someone = fc.constantFrom('ann', ' ANN ', 'bob', 'Bob', 'carol', 'mallory');
  const step = fc.record({
    by: someone,
    decision: fc.constantFrom('approve' as const, 'reject' as const),
    gate: fc.constantFrom(...gateNames, 'nonsense'),
    isStale: fc.boolean(),
  });
  const policy = policyOf(2, ['ann', 'bob', 'carol']);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      let gates = { retract: open };
      const approvers = new Set<string>();
      let isRejected = false;
      for (const { by, decision, gate, isStale } of steps) {
        const given = { gate, digest: isStale ? `sha256:${'0'.repeat(64)}` : digest, by };
        const next = reduceVote(gates, policy, runs, decision, given, at);
        if (next.verdict.refusedBecause === undefined) {
          expect(by.trim().toLowerCase()).not.toBe('mallory');
          if (decision === 'approve') approvers.add(by.trim().toLowerCase());
          else isRejected = true;
        }
        gates = { retract: next.gates.retract ?? open };
      }
      const decided = isDecided(gates.retract, policy);
      expect(decided).toBe(isRejected ? 'rejected' : approvers.size >= 2 ? 'approved' : undefined);
    }),
  );
});
