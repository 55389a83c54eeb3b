import { describe, expect, it } from 'vitest';
import { readPlanFacts } from '../../src/notify/plan-facts.ts';
import { comparePlans } from '../../activities/facts/remake.ts';
import { heldResidual } from '../../activities/facts/plans.ts';
import { writersOf } from '../../activities/facts/by-key.ts';
import { JudgedFact } from '../../src/contract/schemas.ts';
import { valueId, type DerivedFact, type SeenFact, type SeenTombstone } from '../../src/policy/facts.ts';
import { kindRules } from '../../src/policy/rules-kind.ts';
import { fact, judge, judgeOne, longBefore, marker, ours, peerNode, quarantined, turnedAt } from '../helpers/policy-facts.ts';

// What kind of bad fact it is: what the plan says of it, and that nothing changes for a benign one.

const bad = { interpretAs: 'instruction' } as const;
const soup = valueId({ type: 'string', v: 'soup', interpret_as: 'content' });
const host = { ways: { host: true } } as const;
const kindsOf = ({ rule }: JudgedFact): string[] => rule.split('+').filter((name) => kindRules.some((kind) => kind.name === name));
const derived = (over: Partial<DerivedFact> = {}): DerivedFact => ({
  id: 'd1',
  from: 'f1',
  source: 'stigmem://ours.test/agent/a',
  entity: 'stigmem://ours.test/svc/x',
  relation: 'memory:because',
  scope: 'company',
  receivedFrom: null,
  ...over,
});

describe('a bad fact from which others derived', () => {
  it('names what was derived, which stands in the plan for its owner and is never undone by itself', () => {
    const given = { ...host, with: { derived: [derived(), derived({ id: 'd2', receivedFrom: 'stigmem:node:innocent' })] } };
    const { judged } = judge([fact(bad)], given);
    expect(judged.map(({ id, action }) => [id, action])).toEqual([
      ['d1', 'hold'],
      ['d2', 'hold'],
      ['f1', 'suppress'],
    ]);
    const [local, foreign, theirs] = judged;
    expect(kindsOf(theirs as JudgedFact)).toEqual(['othersDerived']);
    expect(theirs?.reason).toContain('"d1" by "stigmem://ours.test/agent/a"');
    expect(local).toMatchObject({ rule: 'derivedFromBad', way: 'manual', derivedFrom: 'f1' });
    expect(local?.reason).toMatch(/written here by "stigmem:\/\/ours\.test\/agent\/a".*Its owner decides.*VALUES \('d1'/);
    expect(foreign?.reason).toContain('received from "stigmem:node:innocent"');
    for (const one of judged) expect(JudgedFact.parse(one)).toEqual(one);
  });

  it('is another matter when it is kept: nothing is said of what was derived from a benign fact', () => {
    const { judged } = judge([fact()], { with: { derived: [derived()] } });
    expect(judged).toMatchObject([{ id: 'f1', action: 'keep', rule: 'benign' }]);
  });

  it('asks nobody for a new decision by a derivation that comes later, and counts it apart from what the peer wrote', async () => {
    const before = judge([fact(bad)], host).judged;
    const after = judge([fact(bad)], { ...host, with: { derived: [derived()] } }).judged;
    const { go, next } = comparePlans(before, after);
    expect(next).toEqual([]);
    expect(heldResidual(go)).toMatchObject([{ what: 'facts of others that were derived from bad ones', count: 1 }]);
    async function* lines() {
      yield* after;
    }
    expect(await readPlanFacts(lines())).toMatchObject({ affected: 1, examples: ['f1'] });
  });
});

describe('a bad fact that others say as well', () => {
  it('is undone alone where a local writer says the very same: that stays, and is named', () => {
    const judged = judgeOne(fact(bad), { ...host, with: { others: [ours({ says: soup })] } });
    expect(judged.action).toBe('suppress');
    expect(kindsOf(judged)).toEqual(['confirmedHere', 'contradicted']);
    expect(judged.reason).toContain('a local writer says the same ("o1" by "stigmem://ours.test/agent/a")');
  });

  it('is not confirmed by another value, by a value nobody was shown, or by one on another scope', () => {
    for (const other of [
      ours({ says: valueId({ type: 'text', v: 'stew', interpret_as: 'content' }) }),
      ours(),
      ours({ says: soup, scope: 'public' }),
    ])
      expect(kindsOf(judgeOne(fact(bad), { ...host, with: { others: [other] } }))).not.toContain('confirmedHere');
  });

  it('is said to have come from another peer too, as a row of its own that stays', () => {
    const other = ours({ says: soup, receivedFrom: 'stigmem:node:innocent' });
    const judged = judgeOne(fact(bad), { ...host, with: { others: [other] } });
    expect(kindsOf(judged)).toEqual(['saidByOtherPeer', 'contradicted']);
    expect(judged.reason).toContain('"o1" received from "stigmem:node:innocent"');
  });

  it.each([
    ['relayed by the peer', { receivedFrom: peerNode, origin: 'stigmem:node:innocent' }],
    ['relayed by another', { receivedFrom: 'stigmem:node:innocent', origin: peerNode }],
  ])('names both peers where the one row came by two: %s', (_how, given) => {
    const judged = judgeOne(fact({ ...bad, ...given }), host);
    expect(kindsOf(judged)).toEqual(['twoPeers']);
    expect(judged.reason).toContain(peerNode);
    expect(judged.reason).toContain('stigmem:node:innocent');
    expect(judged.reason).toContain('undoes what both delivered');
  });
});

describe('a bad fact that is out of sight already', () => {
  const end = '2026-11-23T00:30:00.000Z';
  const swept: SeenFact = { ...fact(bad), expiredAt: end };
  const expired: SeenFact = { ...swept, fact: swept.fact && { ...swept.fact, valid_until: end } };

  it('is suppressed all the same when it has expired, so that nobody shows it again; over HTTP there is nothing to do', () => {
    expect(kindsOf(judgeOne(expired, host))).toEqual(['expired']);
    expect(judgeOne(expired, host)).toMatchObject({ action: 'suppress', reason: expect.stringContaining('its own end') });
    // Its card has it no more: no write is spent on that.
    expect(judgeOne(expired, host).counter).toBeUndefined();
    expect(judgeOne(swept, host)).toMatchObject({
      action: 'suppress',
      counter: true,
      reason: expect.stringContaining('an override let it expire'),
    });
    const held = judgeOne(expired);
    expect(held).toMatchObject({ action: 'hold', way: 'manual' });
    expect(held.reason).toContain('it has expired already');
  });

  it.each([
    ['a fact of ours', { with: { others: [ours()] } }, [], '1 fact of others'],
    ['a retraction of ours', { with: { retracted: new Map([['f1', 'r1']]) } }, [], 'our retraction "r1"'],
    ['another fact of its own peer', {}, [fact({ id: 'f2' })], '1 fact of its own peer'],
  ])('is undone all the same when it is contradicted by %s', (_what, given, beside, words) => {
    const judged = judgeOne(fact(bad), { ...host, ...given }, beside);
    expect(judged.action).toBe('suppress');
    expect(kindsOf(judged)).toEqual(['contradicted']);
    expect(judged.reason).toContain(`${words}, and recalled all the same`);
  });

  it('is not contradicted by a retraction of its own peer, which states nothing', () => {
    expect(kindsOf(judgeOne(fact(bad), host, [fact({ id: 'f2', confidence: 0 })]))).toEqual([]);
  });

  it.each([host, {}])('is rejected and never retracted while it waits in quarantine: %o', (given) => {
    const judged = judgeOne(quarantined({ status: 'pending', why: 'instruction_federation_inbound' }), given);
    expect(judged).toMatchObject({ action: 'reject', way: 'http' });
    expect(kindsOf(judged)).toEqual(['inQuarantine']);
  });
});

it('nothing about a benign fact changes, whatever kind it is', () => {
  const benign: SeenFact = { ...fact({ origin: 'stigmem:node:innocent' }), expiredAt: longBefore };
  const given = { with: { others: [ours({ says: soup })], derived: [derived()], retracted: new Map([['f1', 'r1']]) } };
  const judged = judgeOne(benign, given);
  expect(judged).toMatchObject({ action: 'keep', way: 'none', rule: 'shadowsOurs' });
  expect(kindsOf(judged)).toEqual([]);
});

describe("a fact that the peer's own API key wrote here", () => {
  const byKey = (over: Parameters<typeof fact>[0] = {}): SeenFact => ({
    ...fact({ id: 'k1', entity: 'stigmem://ours.test/svc/pay', receivedFrom: null, origin: null, ...over }),
    writtenBy: 'stigmem://peer.test',
  });

  it('stands in the plan and is undone like others once the peer has turned, and near that', () => {
    for (const at of [turnedAt, '2026-11-23T00:55:00.000Z']) {
      const judged = judgeOne(byKey({ arrivedAt: at }), host, [marker()]);
      expect(judged).toMatchObject({ action: 'suppress', way: 'host' });
      expect(judged.rule).toContain('writtenWithItsKey');
      expect(judged.reason).toContain('written here with an API key of "stigmem://peer.test"');
      expect(judgeOne(byKey({ arrivedAt: at }), {}, [marker()]).action).toBe('retract');
    }
  });

  it('is kept where nothing tells that the peer had turned, in a scope too that only its key was granted', () => {
    const peer = { nodeIds: new Set([peerNode]), entityUris: new Set(['stigmem://peer.test']), allowedScopes: new Set(['public']) };
    expect(judgeOne(byKey(), { ...host, peer })).toMatchObject({ action: 'keep', rule: 'writtenWithItsKey+aboutOurs' });
    expect(judgeOne(byKey({ arrivedAt: longBefore }), host, [marker()])).toMatchObject({ action: 'keep' });
  });

  it('does not tell by itself when the peer turned: a key may be lent', () => {
    const { judged } = judge([byKey({ ...bad, arrivedAt: longBefore }), fact({ arrivedAt: turnedAt })], host);
    expect(judged.map(({ id, action }) => [id, action])).toEqual([
      ['f1', 'keep'],
      ['k1', 'suppress'],
    ]);
  });

  it("is never looked for under our own node's entity, or while that is not known", () => {
    const peer = { nodeId: peerNode, url: '', entityUri: 'stigmem://peer.test', peerIds: [], nodeIds: [peerNode], allowedScopes: [] };
    expect(writersOf(peer, 'stigmem://ours.test')).toEqual(['stigmem://peer.test', peerNode]);
    expect(writersOf({ ...peer, entityUri: 'stigmem://OURS.test/agent/a' }, 'stigmem://ours.test')).toEqual([peerNode]);
    expect(writersOf(peer, '')).toEqual([]);
    expect(writersOf(null, 'stigmem://ours.test')).toEqual([]);
  });
});

describe("the peer's tombstones", () => {
  const tombstone = (over: Partial<SeenTombstone> = {}): SeenTombstone => ({
    id: 't1',
    entity: 'stigmem://ours.test/svc/pay',
    scope: '*',
    signedBy: 'stigmem://peer.test',
    receivedFrom: null,
    createdAt: turnedAt,
    reason: 'gone',
    ...over,
  });
  const one = (given: SeenTombstone, over: Parameters<typeof judge>[1] = host): JudgedFact | undefined =>
    judge([], { ...over, with: { tombstones: [given] } }).judged[0];

  it('are lifted by the host worker, and held without it', () => {
    expect(one(tombstone())).toMatchObject({ id: 't1', action: 'lift', way: 'host', rule: 'tombstone' });
    expect(one(tombstone(), {})).toMatchObject({ action: 'hold', way: 'manual' });
    expect(one(tombstone())?.reason).toContain('hides "stigmem://ours.test/svc/pay" ("gone")');
  });

  it('are kept where a signer hides what is its own, unless it passes itself off as one of us', () => {
    expect(one(tombstone({ entity: 'stigmem://peer.test/person/x' }))).toMatchObject({ action: 'keep' });
    expect(one(tombstone({ entity: 'stigmem://else.test/x', signedBy: 'stigmem://else.test', receivedFrom: peerNode }))).toMatchObject({
      action: 'keep',
    });
    expect(one(tombstone({ entity: 'stigmem://else.test/x', receivedFrom: peerNode }))).toMatchObject({ action: 'lift' });
    expect(one(tombstone({ signedBy: 'stigmem://ours.test', receivedFrom: peerNode }))).toMatchObject({ action: 'lift' });
  });

  it('are asked about anew when they change', () => {
    const [before, after] = [
      judge([], { ...host, with: { tombstones: [tombstone()] } }).judged,
      judge([], { ...host, with: { tombstones: [tombstone({ scope: 'company' })] } }).judged,
    ];
    expect(comparePlans(before, before)).toMatchObject({ go: [{ id: 't1' }], next: [] });
    expect(comparePlans(before, after)).toMatchObject({ go: [], next: [{ id: 't1' }] });
  });
});
