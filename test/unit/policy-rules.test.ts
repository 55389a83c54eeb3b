import { describe, expect, it } from 'vitest';
import { rules } from '../../src/policy/rules.ts';
import { fact, judge, judgeOne, longBefore, marker, ours, quarantined, turnedAt } from '../helpers/policy-facts.ts';

const shortlyBefore = '2026-11-23T00:55:00.000Z';
const after = '2026-11-23T01:30:00.000Z';
const foreign = { source: 'stigmem://ours.test/agent/ops' };

describe('an honest fact of the peer', () => {
  it('is kept, and it says why', () => {
    expect(judgeOne(fact())).toMatchObject({ action: 'keep', rule: 'benign', way: 'none' });
    expect(judgeOne(fact()).reason).toContain(longBefore);
  });
});

/** Each rule once as it fires and once as it does not. */
describe.each([
  { rule: 'neverGrantedScope', bad: judgeOne(fact({ scope: 'team' })), good: judgeOne(fact({ scope: 'public' })) },
  { rule: 'instruction', bad: judgeOne(fact({ interpretAs: 'instruction' })), good: judgeOne(fact()) },
  {
    rule: 'instruction',
    bad: judgeOne(quarantined({ status: 'pending', why: 'instruction_federation_inbound' })),
    good: judgeOne(quarantined({ status: 'pending' })),
  },
  {
    rule: 'forgedMetaFact',
    bad: judgeOne(fact({ relation: 'stigmem:received_from' })),
    good: judgeOne(fact({ relation: 'memory:received_from' })),
  },
  {
    rule: 'impossibleTime',
    bad: judgeOne(fact({ timestamp: '2099-01-01T00:00:00Z' })),
    good: judgeOne(fact({ timestamp: '2026-11-23T00:04:00Z' })),
  },
  {
    rule: 'impossibleTime',
    bad: judgeOne(fact({ timestamp: '2001-01-01T00:00:00Z' })),
    good: judgeOne(fact({ timestamp: '2026-11-01T00:00:00Z' })),
  },
  {
    rule: 'impossibleTime',
    bad: judgeOne(fact({ timestamp: 'zzz' })),
    good: judgeOne(fact({ timestamp: '2026-11-23T00:00:00.123456+00:00' })),
  },
  {
    rule: 'impossibleTime',
    bad: judgeOne(fact({ timestamp: '5' })),
    good: judgeOne(fact({ timestamp: '2001-01-01T00:00:00Z', arrivedAt: null })),
  },
  {
    rule: 'sensitiveScope',
    bad: judgeOne(fact({ scope: 'team' }), {
      peer: { nodeIds: new Set(['stigmem:node:peer']), entityUris: new Set(), allowedScopes: new Set(['team']) },
    }),
    good: judgeOne(fact()),
  },
  { rule: 'agentControlRelation', bad: judgeOne(fact({ relation: 'agent:goal' })), good: judgeOne(fact({ relation: 'agents:goal' })) },
  {
    rule: 'promotedFromQuarantine',
    bad: judgeOne(quarantined({ status: 'promoted' })),
    good: judgeOne(quarantined({ status: 'pending' })),
  },
  {
    rule: 'unnormalisedEntity',
    bad: judgeOne(fact({ entity: 'stigmem://PEER.test/a/b' })),
    good: judgeOne(fact({ entity: 'stigmem://peer.test/a/b' })),
  },
  { rule: 'unnormalisedEntity', bad: judgeOne(fact({ entity: '' })), good: judgeOne(fact({ entity: 'svc:pay' })) },
  {
    rule: 'afterFence',
    bad: judgeOne(fact({ arrivedAt: after }), { with: { fencedAt: turnedAt } }),
    good: judgeOne(fact({ arrivedAt: turnedAt }), { with: { fencedAt: turnedAt } }),
  },
  {
    rule: 'afterFirstSuspicious',
    bad: judgeOne(fact({ arrivedAt: after }), {}, [marker()]),
    good: judgeOne(fact({ arrivedAt: shortlyBefore }), {}, [marker()]),
  },
  {
    rule: 'afterFirstSuspicious',
    bad: judgeOne(fact({ arrivedAt: after }), { firstBad: { at: turnedAt, from: 'operator' } }),
    good: judgeOne(fact({ arrivedAt: after }), { firstBad: { at: turnedAt, from: 'audit' } }),
  },
  {
    rule: 'closeToFirstSuspicious',
    bad: judgeOne(fact({ ...foreign, arrivedAt: shortlyBefore }), {}, [marker()]),
    good: judgeOne(fact({ ...foreign }), {}, [marker()]),
  },
  {
    rule: 'foreignSource',
    bad: judgeOne(fact({ ...foreign, arrivedAt: shortlyBefore }), {}, [marker()]),
    good: judgeOne(fact({ arrivedAt: shortlyBefore }), {}, [marker()]),
  },
  {
    rule: 'aboutOurs',
    bad: judgeOne(fact({ entity: 'stigmem://ours.test/svc/pay', arrivedAt: shortlyBefore }), {}, [marker()]),
    good: judgeOne(fact({ entity: 'stigmem://ours.test/svc/pay' }), {}, [marker()]),
  },
  {
    rule: 'afterFirstSuspicious',
    bad: judgeOne(fact({ arrivedAt: '2026-11-23T00:59:59.100Z' }), {}, [marker()]),
    good: judgeOne(fact({ arrivedAt: '2026-11-23T00:59:58.500Z' }), {}, [marker()]),
  },
  {
    rule: 'shadowsOurs',
    bad: judgeOne(fact({ arrivedAt: shortlyBefore }), { with: { others: [ours()] } }, [marker()]),
    good: judgeOne(fact({ arrivedAt: shortlyBefore }), {}, [marker()]),
  },
])('$rule', ({ rule, bad, good }) => {
  it('undoes what it is about', () => {
    expect(bad.rule.split('+')).toContain(rule);
    expect(bad.action).not.toBe('keep');
    expect(bad.evidence[0]).toBe('sha256:collection');
  });

  it('is silent, or not enough, about what it is not about', () => {
    expect(good.rule.split('+').includes(rule) && good.action !== 'keep').toBe(false);
  });
});

describe('rules that are not enough alone', () => {
  it.each([
    ['foreignSource', judgeOne(fact(foreign))],
    ['closeToFirstSuspicious', judgeOne(fact({ arrivedAt: shortlyBefore }), {}, [marker()])],
    ['shadowsOurs', judgeOne(fact(), { with: { others: [ours()] } })],
    ['foreignSource+shadowsOurs', judgeOne(fact(foreign), { with: { others: [ours()] } })],
  ])('%s keeps the fact and says so', (rule, judged) => {
    expect(judged).toMatchObject({ action: 'keep', rule });
    expect(judged.reason).toContain('not enough');
  });

  it('burst never undoes, not even shortly before the peer turned', () => {
    const facts = Array.from({ length: 60 }, (_, index) => fact({ id: `b${index}`, arrivedAt: shortlyBefore }));
    const judged = judge([...facts, marker()]).judged.filter(({ id }) => id !== 'marker');
    expect(new Set(judged.map(({ action }) => action))).toEqual(new Set(['keep']));
    expect(judged.every(({ rule }) => rule.includes('burst'))).toBe(true);
    expect(judge(facts.slice(0, 49)).judged.every(({ rule }) => rule === 'benign')).toBe(true);
  });

  it('a source of local writers is foreign, and so is an unknown authority, once the peer turned', () => {
    const near = { arrivedAt: shortlyBefore };
    expect(judgeOne(fact({ ...near, source: 'cron' }), { with: { localSources: new Set(['cron']) } }, [marker()]).rule).toContain(
      'foreignSource',
    );
    expect(judgeOne(fact({ ...near, source: 'stigmem://other.test/a/b' }), {}, [marker()]).rule).toContain('foreignSource');
    expect(judgeOne(fact({ ...near, source: 'cron' }), {}, [marker()]).action).toBe('keep');
  });

  it('the first bad time of the audit is a centre of the window', () => {
    const firstBad = { at: turnedAt, from: 'audit' } as const;
    expect(judgeOne(fact({ ...foreign, arrivedAt: shortlyBefore }), { firstBad }).action).toBe('retract');
  });
});

describe('the first suspicious arrival', () => {
  it('is the earliest of what no honest node could send, by our own clock', () => {
    expect(judge([marker(after), { ...marker(turnedAt), id: 'earlier' }, fact()]).firstSuspicious).toEqual({
      at: turnedAt,
      from: 'arrival',
    });
  });

  it('is not moved by an old fact that an honest node could have sent', () => {
    const old = fact({ id: 'old', relation: 'agent:goal' });
    const judged = judge([old, fact({ id: 'later', arrivedAt: shortlyBefore }), marker()]);
    expect(judged.firstSuspicious?.at).toBe(turnedAt);
    expect(judged.judged.map(({ id, action }) => [id, action])).toEqual([
      ['later', 'keep'],
      ['marker', 'retract'],
      ['old', 'retract'],
    ]);
  });

  it('is null when nothing is suspicious', () => {
    expect(judge([fact()]).firstSuspicious).toBeNull();
  });
});

it('has every rule once, with its runbook sentence and why it is enough or not', () => {
  expect(new Set(rules.map(({ name }) => name)).size).toBe(rules.length);
  for (const { serves, why } of rules) expect(serves.length * why.length).toBeGreaterThan(0);
  expect(rules.filter(({ marksTurn, weight }) => marksTurn && weight !== 'alone')).toEqual([]);
});
