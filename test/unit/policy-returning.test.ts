import { describe, expect, it } from 'vitest';
import { defaultPolicy } from '../../src/contract/policy.ts';
import { valueId } from '../../src/policy/facts.ts';
import { judgeReturning, returningRules, type ReturningInput } from '../../src/policy/returning.ts';
import { fact, peerNode } from '../helpers/policy-facts.ts';

// What waits behind the fence is judged before any of it comes in.

const fetched = '2026-12-01T00:00:00.000Z';
const waits = (given: Parameters<typeof fact>[0] = {}) => fact({ timestamp: '2026-11-30T12:00:00Z', ...given, arrivedAt: null });
const wallOf = (iso: string) => `${Date.parse(iso)}.0.node`;

async function judge(seen: ReturnType<typeof fact> | readonly ReturnType<typeof fact>[], over: Partial<ReturningInput> = {}) {
  return judgeReturning({
    facts: [seen].flat(),
    evidenceId: 'sha256:backlog',
    policy: defaultPolicy,
    peer: { nodeIds: new Set([peerNode]), entityUris: new Set(['stigmem://peer.test']), allowedScopes: new Set(['company', 'public']) },
    ourEntityUri: 'stigmem://ours.test',
    localSources: new Set(['stigmem://ours.test/agent/ops']),
    undone: [],
    fetchedMs: Date.parse(fetched),
    firstBadMs: Date.parse('2026-11-23T01:00:00Z'),
    newKeySinceMs: Date.parse('2026-11-28T00:00:00Z'),
    ...over,
  });
}
const first = async (...of: Parameters<typeof judge>) => (await judge(...of))[0];

describe('an honest fact that waits', () => {
  it('would be let in, and nothing about its arrival is made up', async () => {
    expect(await first(waits())).toMatchObject({ action: 'keep', rule: 'benign', way: 'none', evidence: ['sha256:backlog'] });
  });
});

const says = (v: string) => {
  const seen = waits();
  return { ...seen, fact: seen.fact && { ...seen.fact, value: { ...seen.fact.value, v } } };
};
const withHlc = (hlc: string) => {
  const seen = waits();
  return { ...seen, fact: seen.fact && { ...seen.fact, hlc } };
};
const undone = [
  {
    id: 'u1',
    entity: 'stigmem://peer.test/x',
    relation: 'memory:x',
    scope: 'company',
    says: valueId(fact().fact?.value ?? { type: '', interpret_as: '' }),
  },
];
const undoneThere = [{ id: 'u2', entity: 'stigmem://peer.test/team/menu', relation: 'memory:lunch', scope: 'company' }];

const cases = [
  {
    rule: 'writtenWhileCompromised',
    bad: first(waits({ timestamp: '2026-11-25T00:00:00Z' })),
    good: first(waits({ timestamp: '2026-11-22T00:00:00Z' })),
  },
  {
    rule: 'writtenWhileCompromised',
    bad: first(waits(), { newKeySinceMs: null }),
    good: first(waits(), { newKeySinceMs: null, firstBadMs: null }),
  },
  { rule: 'likeUndone', bad: first(waits(), { undone }), good: first(says('bread'), { undone }) },
  {
    rule: 'likeUndone',
    bad: first(says('bread'), { undone: undoneThere }),
    good: first(waits({ relation: 'memory:dinner' }), { undone: undoneThere }),
  },
  { rule: 'stallsPull', bad: first(withHlc(wallOf('2026-12-01T00:06:00Z'))), good: first(withHlc(wallOf('2026-12-01T00:04:00Z'))) },
  { rule: 'stallsPull', bad: first(withHlc(wallOf('2026-10-31T00:00:00Z'))), good: first(withHlc(wallOf('2026-11-02T00:00:00Z'))) },
  {
    rule: 'stallsPull',
    bad: first(waits({ timestamp: '2099-01-01T00:00:00Z' })),
    good: first(waits({ timestamp: '2026-12-01T00:01:00Z' })),
  },
  { rule: 'neverGrantedScope', bad: first(waits({ scope: 'team' })), good: first(waits({ scope: 'public' })) },
  // A matter of time in the incident; nothing is owed to a peer on probation.
  { rule: 'agentControlRelation', bad: first(waits({ relation: 'agent:goal' })), good: first(waits({ relation: 'agents:goal' })) },
];

describe.each(cases)('rule $rule', ({ rule, bad, good }) => {
  it('keeps out what it is about, and nothing else', async () => {
    const [kept, out] = [await good, await bad];
    expect(out).toMatchObject({ action: 'suppress', way: 'host' });
    expect(out?.rule.split('+')).toContain(rule);
    expect(out?.reason).toMatch(/^would not be let in: /);
    expect(kept).toMatchObject({ action: 'keep' });
  });
});

describe('the plan', () => {
  it('is the same in whatever order the peer serves, and names each fact once', async () => {
    const some = ['c', 'a', 'b'].map((id) => waits({ id }));
    expect(await judge(some)).toEqual(await judge(some.toReversed()));
    expect((await judge(some)).map(({ id }) => id)).toEqual(['a', 'b', 'c']);
  });

  it('has a test of each rule', () => {
    expect(cases.map(({ rule }) => rule)).toEqual(expect.arrayContaining(returningRules.map(({ name }) => name)));
  });
});
