import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { planHash } from '../../src/contract/canonical.ts';
import { JudgedFact } from '../../src/contract/schemas.ts';
import { comparePlans } from '../../activities/facts/remake.ts';
import { survivesNormalisation } from '../../src/policy/entity.ts';
import { contentHash } from '../../src/policy/facts.ts';
import { fact, judge, judgeOne, ours, peerNode, quarantined, turnedAt, type Given } from '../helpers/policy-facts.ts';

const bad = { interpretAs: 'instruction' } as const;

describe('counter-statements against the cards of what the host worker suppresses', () => {
  const host = { ways: { host: true } } as const;
  const counters = (...judged: Parameters<typeof judge>): readonly string[] =>
    judge(...judged).judged.flatMap(({ id, counter }) => (counter === true ? [id] : []));

  it('are one for an entity and scope, however many facts stand on it', () => {
    const on = (id: string, relation: string) => fact({ ...bad, id, relation });
    expect(counters([on('a', 'memory:x'), on('b', 'memory:y'), on('c', 'memory:x')], host)).toEqual(['a']);
    expect(counters([on('a', 'memory:x'), fact({ ...bad, id: 'b', scope: 'public' })], host)).toEqual(['a', 'b']);
  });

  it('are none where a fact of ours stands beside it, none that POST would put elsewhere, and none over HTTP', () => {
    expect(counters([fact(bad)], { ...host, with: { others: [ours()] } })).toEqual([]);
    expect(counters([fact({ ...bad, entity: 'stigmem://OURS.test/svc/Pay' })], host)).toEqual([]);
    expect(counters([fact(bad)])).toEqual([]);
  });

  it('are for 500 entities at most, well within the hourly quota', () => {
    const many = (n: number) => Array.from({ length: n }, (_, at) => fact({ ...bad, id: `f${at}`, entity: `stigmem://peer.test/e/${at}` }));
    expect(counters(many(500), host)).toHaveLength(500);
    expect(counters(many(501), host)).toHaveLength(500);
  });
});

describe('the way a fact is undone', () => {
  it.each([
    ['retract', judgeOne(fact(bad)), 'no live fact'],
    ['hold', judgeOne(fact(bad), { with: { others: [ours()] } }), 'hidden'],
    ['hold', judgeOne(fact({ ...bad, entity: 'stigmem://OURS.test/svc/Pay' })), 'normalise'],
    ['hold', judgeOne(fact({ ...bad, entity: 'stigmem://ours.test/svc/pày' })), 'normalise'],
    ['hold', judgeOne(fact({ ...bad, relation: 'x'.repeat(3_000) })), 'POST does not take'],
    ['hold', judgeOne(fact({ ...bad, scope: 'galaxy' })), 'POST does not take'],
    ['hold', judgeOne(fact({ ...bad, confidence: 0 })), 'retraction itself'],
    ['hold', judgeOne(fact(bad), { with: { retracted: new Map([['f1', 'r1']]) } }), 'retracted already by r1'],
    ['hold', judgeOne(quarantined({ ...bad, status: 'rejected' })), 'rejected in quarantine already'],
    ['reject', judgeOne(quarantined({ status: 'pending', why: 'instruction_federation_inbound' })), 'pending'],
    ['suppress', judgeOne(fact(bad), { ways: { host: true }, with: { others: [ours()] } }), 'host'],
  ])('is %s', (action, judged, why) => {
    expect(judged.action).toBe(action);
    expect(judged.reason).toContain(why);
    if (action === 'hold') expect(judged.reason).toMatch(/fact_validity_overrides .*VALUES \('f1', '2000-01-01/);
    expect(JudgedFact.parse(judged)).toEqual(judged);
  });

  it('says what it does to a fact of ours that a pending one may hide, whatever its scope', () => {
    expect(
      judgeOne(quarantined({ status: 'pending', why: 'instruction_federation_inbound' }), { with: { others: [ours({ scope: 'public' })] } })
        .ours,
    ).toContain('o1');
  });

  it('never puts an id that is no plain word into the SQL of a hold', () => {
    const judged = judgeOne(fact({ ...bad, id: "x'); DROP TABLE facts; --" }), { with: { others: [ours()] } });
    expect(judged.reason).not.toContain('DROP TABLE');
  });

  it('keeps the operation to do by hand whole, however long the reasons are', () => {
    const judged = judgeOne(fact({ ...bad, relation: `agent:${'y'.repeat(5_000)}`, source: `stigmem://${'z'.repeat(5_000)}/a/b` }));
    expect(judged.reason).toContain("'<you>')");
  });
});

describe('survivesNormalisation', () => {
  it('holds only for what lower case and white space rules leave alone for sure', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), (text) => {
        if (!survivesNormalisation(text)) return;
        expect(text).toBe(text.toLowerCase().trim().replace(/\s+/g, '-'));
        expect(text).toMatch(/^[!-~]+$/);
      }),
    );
    expect(survivesNormalisation('stigmem://ours.test/svc/pay')).toBe(true);
    expect(survivesNormalisation('a b')).toBe(false);
    expect(survivesNormalisation('')).toBe(false);
  });
});

const given: fc.Arbitrary<Given> = fc.record({
  id: fc.uuid(),
  entity: fc.constantFrom('stigmem://peer.test/a/b', 'stigmem://ours.test/a/b', 'stigmem://OURS.test/a/B', 'x'),
  relation: fc.constantFrom('memory:a', 'agent:goal', 'stigmem:received_from'),
  source: fc.constantFrom('stigmem://peer.test/a/b', 'stigmem://ours.test/a/b', 'cron'),
  scope: fc.constantFrom('company', 'public', 'team', 'local'),
  timestamp: fc.constantFrom('2026-11-23T00:00:00Z', '2001-01-01T00:00:00Z', 'zzz'),
  interpretAs: fc.constantFrom('content', 'instruction'),
  receivedFrom: fc.constantFrom(peerNode, 'stigmem:node:innocent', null),
  origin: fc.constantFrom(peerNode, 'stigmem:node:innocent', null),
  arrivedAt: fc.constantFrom('2026-11-22T00:00:00.000Z', '2026-11-23T00:55:00.000Z', turnedAt, null),
});
const many = fc.uniqueArray(given, { selector: ({ id }) => id, maxLength: 20 });

describe('whatever is delivered', () => {
  it("a fact that is not the peer's is never in the plan", () => {
    fc.assert(
      fc.property(many, (all) => {
        const own = new Set(all.filter(({ receivedFrom, origin }) => receivedFrom === peerNode || origin === peerNode).map(({ id }) => id));
        const judged = judge(all.map(fact)).judged;
        expect(new Set(judged.map(({ id }) => id))).toEqual(own);
      }),
    );
  });

  it('an honest fact elsewhere changes no judgement of another', () => {
    fc.assert(
      fc.property(many, (all) => {
        const facts = all.map(fact);
        // Documented exceptions: what marks the turn moves the window, and many make a burst. An honest one does neither.
        const unrelated = fact({ id: 'unrelated', entity: 'stigmem://peer.test/un/related', arrivedAt: '2026-11-21T00:00:00.000Z' });
        expect(judge([...facts, unrelated]).judged.filter(({ id }) => id !== 'unrelated')).toEqual(judge(facts).judged);
      }),
    );
  });

  it('the order of the facts changes nothing', () => {
    fc.assert(
      fc.property(many, (all) => {
        const facts = all.map(fact);
        expect(planHash(judge(facts.toReversed()).judged)).toBe(planHash(judge(facts).judged));
      }),
    );
  });

  it('retract is never proposed where a live fact of others stands, or where POST would change the entity', () => {
    fc.assert(
      fc.property(many, (all) => {
        const others = [ours({ entity: 'stigmem://ours.test/a/b', relation: 'memory:a' })];
        for (const { action, entity, relation, scope } of judge(all.map(fact), { with: { others } }).judged) {
          if (action !== 'retract') continue;
          expect(survivesNormalisation(entity)).toBe(true);
          expect([entity, relation, scope]).not.toEqual(['stigmem://ours.test/a/b', 'memory:a', 'company']);
        }
      }),
    );
  });
});

describe('contentHash', () => {
  it('does not change with what the node works out anew at each query', () => {
    const seen = fact();
    if (seen.fact === null) throw new Error('expected a fact');
    const again = { ...seen, fact: { ...seen.fact, contradicted: true, effective_confidence: 0.1, warnings: ['x'] }, arrivedAt: null };
    expect(contentHash(again)).toBe(contentHash(seen));
  });

  it.each([{ confidence: 0.5 }, { scope: 'public' }, { source: 'x' }, { timestamp: 'zzz' }])('changes with %o', (change) => {
    expect(contentHash(fact(change))).not.toBe(contentHash(fact()));
  });
});

describe('comparePlans', () => {
  const one = (id: string, over: Given = {}) => judgeOne(fact({ id, ...bad, ...over }));
  const keep = (judged: JudgedFact): JudgedFact => ({ ...judged, action: 'keep', way: 'none', justification: 'ours (kept by alice)' });

  it('lets the unchanged go, and asks about the changed and the new', () => {
    const compared = comparePlans([one('a'), one('b')], [one('a'), one('b', { confidence: 0.5 }), one('c')]);
    expect(compared.go.map(({ id }) => id)).toEqual(['a']);
    expect(compared.next.map(({ id }) => id)).toEqual(['b', 'c']);
  });

  it('carries over what people kept while the fact is the same, and asks again when it is not', () => {
    expect(comparePlans([keep(one('a'))], [one('a')])).toMatchObject({ go: [{ action: 'keep' }], next: [] });
    expect(comparePlans([keep(one('a'))], [one('a'), one('c')]).next.map(({ id, action }) => [id, action])).toEqual([
      ['c', 'retract'],
      ['a', 'keep'],
    ]);
    expect(comparePlans([keep(one('a'))], [one('a', { confidence: 0.5 })]).next).toMatchObject([{ id: 'a', action: 'retract' }]);
  });

  it('does nothing to what it does not find again', () => {
    expect(comparePlans([one('a')], []).go).toMatchObject([{ id: 'a', action: 'hold' }]);
  });

  it('asks nobody about what is only kept or held', () => {
    const compared = comparePlans([one('a')], [one('a'), judgeOne(fact({ id: 'n' }))]);
    expect(compared.next).toEqual([]);
    expect(compared.go.map(({ id }) => id)).toEqual(['a', 'n']);
  });
});
