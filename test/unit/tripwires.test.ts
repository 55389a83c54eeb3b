import { describe, expect, it } from 'vitest';
import { watchDefault } from '../../src/contract/policy.ts';
import type { JudgedFact } from '../../src/contract/schemas.ts';
import { blindTrip, blindWire, tripsOf, tripwires, type Look, type Watching } from '../../src/policy/tripwires.ts';
import { fact } from '../helpers/policy-facts.ts';

const base = Date.parse('2026-12-01T00:00:00Z');
const events = (type: string, count: number, everyMs = 1_000) =>
  Array.from({ length: count }, (_none, index) => ({
    id: `${type}-${index}`,
    type,
    at: new Date(base + index * everyMs).toISOString(),
    detail: '',
  }));
const arrived = (count: number, everyMs: number) =>
  Array.from({ length: count }, (_none, index) => fact({ id: `f${index}`, arrivedAt: new Date(base + index * everyMs).toISOString() }));
const judged = (action: JudgedFact['action'], rule: string): JudgedFact => ({
  id: 'f1',
  entity: '',
  relation: '',
  scope: '',
  way: 'host',
  reason: '',
  evidence: [],
  contentHash: '',
  ours: '',
  action,
  rule,
});
const key = `sha256:${'a'.repeat(64)}`;
const other = `sha256:${'b'.repeat(64)}`;

function trips(look: Partial<Look>, over: Partial<Watching> = {}): string[] {
  const quiet: Look = { atMs: base, federation: [], local: [], facts: [], judged: [], shows: { wellKnown: key, manifest: key } };
  return tripsOf({ ...quiet, ...look }, { policy: watchDefault, fingerprint: key, baseline: null, ...over }).map(({ wire }) => wire);
}

describe('a quiet peer', () => {
  it('touches nothing, nor does one whose documents can not be read just now', () => {
    expect(trips({})).toEqual([]);
    expect(trips({ shows: { wellKnown: null, manifest: null } })).toEqual([]);
    expect(trips({ facts: arrived(10, 60_000), judged: [judged('keep', 'benign')] })).toEqual([]);
    expect(trips({ federation: events('peer_approved', 9), local: events('fact_write', 99) })).toEqual([]);
  });
});

/** Each wire once touched, and once just not. */
const cases: readonly { wire: string; bad: string[]; good: string[] }[] = [
  { wire: 'scopeViolation', bad: trips({ federation: events('scope_violation', 1) }), good: trips({}) },
  { wire: 'replays', bad: trips({ federation: events('replay_attempt', 6) }), good: trips({ federation: events('replay_attempt', 5) }) },
  {
    wire: 'replays',
    bad: trips({ federation: events('replay_attempt', 7, 700_000) }),
    good: trips({ federation: events('replay_attempt', 7, 900_000) }),
  },
  {
    wire: 'rejectedTokens',
    bad: trips({ federation: events('rejected_token', 4) }),
    good: trips({ federation: events('rejected_token', 4, 30_000) }),
  },
  { wire: 'rejectedFacts', bad: trips({ federation: events('san_mismatch', 1) }), good: trips({}) },
  // These two the node writes to its other audit alone.
  { wire: 'integrityRejected', bad: trips({ local: events('federation_integrity_rejected', 1) }), good: trips({}) },
  { wire: 'clockRejected', bad: trips({ local: events('peer_hlc_anomaly', 1) }), good: trips({}) },
  { wire: 'manifestChanged', bad: trips({ federation: events('manifest_stored', 1) }), good: trips({}) },
  {
    wire: 'manifestChanged',
    bad: trips({ shows: { wellKnown: key, manifest: other } }),
    good: trips({ shows: { wellKnown: other, manifest: other } }, { fingerprint: null }),
  },
  { wire: 'badFact', bad: trips({ judged: [judged('suppress', 'instruction')] }), good: trips({ judged: [judged('keep', 'benign')] }) },
  { wire: 'burst', bad: trips({ facts: arrived(50, 1_000) }), good: trips({ facts: arrived(49, 1_000) }) },
  {
    wire: 'burst',
    bad: trips({ facts: arrived(100, 1_000) }, { baseline: 20 }),
    good: trips({ facts: arrived(99, 1_000) }, { baseline: 20 }),
  },
];

describe.each(cases)('$wire', ({ wire, bad, good }) => {
  it('is touched by what it is about, and by nothing less', () => {
    expect(bad).toEqual([wire]);
    expect(good).toEqual([]);
  });
});

describe('the watch', () => {
  it('has a case for every wire', () => {
    expect(new Set(cases.map(({ wire }) => wire))).toEqual(new Set(tripwires.map(({ name }) => name)));
  });

  it('says all that was touched, with at most 20 ids each', () => {
    expect(trips({ federation: [...events('scope_violation', 1), ...events('replay_attempt', 60)] })).toEqual([
      'scopeViolation',
      'replays',
    ]);
    const [trip] = tripsOf(
      {
        atMs: base,
        federation: events('scope_violation', 60),
        local: [],
        facts: [],
        judged: [],
        shows: { wellKnown: null, manifest: null },
      },
      { policy: watchDefault, fingerprint: null, baseline: null },
    );
    expect(trip?.ids).toHaveLength(20);
  });

  it('that sees nothing for too long fails closed', () => {
    expect(blindTrip(base, base + 899_000, watchDefault)).toBeUndefined();
    expect(blindTrip(base, base + 900_000, watchDefault)).toMatchObject({ wire: blindWire, why: 'the node could not be asked for 15m' });
  });
});
