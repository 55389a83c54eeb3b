import { durationMs } from '../contract/duration.ts';
import type { Policy } from '../contract/policy.ts';
import type { JudgedFact } from '../contract/schemas.ts';
import type { FirstBad } from '../contract/steps.ts';
import {
  arrivalMs,
  contentHash,
  instantMs,
  isOfPeer,
  tripleKey,
  type Collection,
  type DerivedFact,
  type OtherFact,
  type PeerNames,
  type RuleContext,
  type SeenFact,
} from './facts.ts';
import type { Finding, Rule } from './rule.ts';
import { judgeDerived, judgeTombstones } from './beside.ts';
import { kindRules } from './rules-kind.ts';
import { rules } from './rules.ts';
import { chooseWay, oursWords, type WaysThere } from './way.ts';

export interface JudgeInput {
  readonly collection: Collection;
  /** Evidence id of the collection; every judgement names it. */
  readonly evidenceId: string;
  readonly policy: Policy;
  readonly peer: PeerNames;
  readonly ourEntityUri: string;
  /** What is known so far; only an operator's word and the audit's count here, arrivals are looked at anew. */
  readonly firstBad: FirstBad | null;
  readonly ways: WaysThere;
}

export interface Judgement {
  /** Sorted by id: the peer's facts, what others derived from those that are undone, and the peer's tombstones. */
  readonly judged: readonly JudgedFact[];
  readonly firstSuspicious: FirstBad | null;
}

const maxReason = 1_500;
const maxEvidence = 20;

/** Judges every fact of the peer. Pure: the same collection and policy give the same plan. */
export function judgeFacts(input: JudgeInput): Judgement {
  const { collection, peer, firstBad } = input;
  const isByEntity = ({ originEntityUri: uri }: SeenFact): boolean => typeof uri === 'string' && peer.entityUris.has(uri);
  const facts = collection.facts.filter((fact) => isOfPeer(fact, peer.nodeIds) || isByEntity(fact) || fact.writtenBy !== undefined);
  const relations = relationsOf(collection, facts);
  const { othersOn } = relations;
  const untimed = contextOf(input, facts, relations, null);
  // A key may have been lent, and may do what a delivery may not: it does not tell when the peer's node turned.
  const delivered = facts.filter(({ writtenBy }) => writtenBy === undefined);
  const marked = earliest(delivered, (fact) => rules.some((rule) => rule.marksTurn && rule.judge(fact, untimed) !== undefined));
  const turnedBy = marked === null ? null : startOfDelivery(delivered, marked);
  const saidMs = firstBad?.from === 'operator' ? instantMs(firstBad.at) : null;
  const context = contextOf(input, facts, relations, lower(turnedBy, saidMs));
  // Where nothing marks a turn, the earliest fact that would be undone at all is what there is.
  const suspiciousMs = turnedBy ?? earliest(facts, (fact) => isUndone(findingsOf(fact, context)));
  const judged = facts.map((fact) => judgeOne(fact, context, input));
  const undone = new Set(judged.flatMap(({ id, action }) => (action === 'keep' ? [] : [id])));
  const beside = [...judgeDerived(undone, input), ...judgeTombstones(input)];
  const byHost = withFewCounters(judged.sort(byId), new Set(facts.filter((fact) => othersOn(fact).length > 0).map(({ id }) => id)));
  return {
    judged: beside.length === 0 ? byHost : [...byHost, ...beside].sort(byId),
    firstSuspicious: suspiciousMs === null ? null : { at: new Date(suspiciousMs).toISOString(), from: 'arrival' },
  };
}

function byId(a: JudgedFact, b: JudgedFact): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/** The order within one delivery is the attacker's choice: what came in the same go as the first bad fact came with it. */
const sameDelivery = { gapMs: 1_000, atMostMs: 15_000 } as const;

/** Where the delivery began that brought a fact at `atMs`: back over arrivals that follow each other closely. */
function startOfDelivery(facts: readonly SeenFact[], atMs: number): number {
  const earlier = facts
    .map(arrivalMs)
    .filter((at): at is number => at !== null && at < atMs && at >= atMs - sameDelivery.atMostMs)
    .toSorted((a, b) => b - a);
  let start = atMs;
  for (const at of earlier) {
    if (start - at > sameDelivery.gapMs) break;
    start = at;
  }
  return start;
}

interface Found {
  readonly rule: Rule;
  readonly finding: Finding;
}

function judgeOne(seen: SeenFact, context: RuleContext, { collection, evidenceId, ways }: JudgeInput): JudgedFact {
  const { id, entity, relation } = seen;
  const found = findingsOf(seen, context);
  const others = context.othersOn(seen);
  const evidence = [evidenceId, ...new Set(found.flatMap(({ finding }) => finding.evidence ?? []))].slice(0, maxEvidence);
  const base = { id, entity, relation, scope: seen.fact?.scope ?? '', evidence, contentHash: contentHash(seen) };
  if (!isUndone(found)) {
    const words = found.map(({ finding }) => finding.reason).join('; ');
    const only = found.length === 0 ? 'no rule finds anything' : `${words}; that alone is not enough`;
    const reason = `benign: ${arrivalWords(seen, context)}; ${only}`.slice(0, maxReason);
    const rule = found.length === 0 ? 'benign' : names(found);
    return { ...base, action: 'keep', way: 'none', rule, reason, ours: oursWords(others, 'stays as it is') };
  }
  const { action, way, why, ours, counter } = chooseWay(seen, { others, retractedBy: collection.retracted.get(id) }, ways);
  const kinds = findingsOf(seen, context, kindRules);
  const words = [...found, ...kinds].map(({ finding }) => finding.reason).join('; ');
  // The way comes last and is never cut: it holds the operation to do by hand.
  const reason = `${words.slice(0, maxReason - why.length)}. ${action}: ${why}`;
  return { ...base, action, way, rule: names([...found, ...kinds]), reason, ours, ...(counter === undefined ? {} : { counter }) };
}

/** Each is a write of the node's hourly quota: with more, what is suppressed at once would not be over for hours. */
const mostCounters = 500;

/**
 * One counter-statement makes an entity's card contradictory, however many facts stand on it; none is needed where a live
 * fact of others shares a relation with one of them.
 */
function withFewCounters(judged: readonly JudgedFact[], besideOthers: ReadonlySet<string>): JudgedFact[] {
  const wants = judged.some(({ counter }) => counter === true);
  if (!wants) return [...judged];
  const places = judged.map(({ entity, scope }) => tripleKey(entity, '', scope));
  const contradicted = new Set(places.filter((_place, at) => besideOthers.has(judged[at]?.id ?? '')));
  const first = new Map<string, number>();
  for (const [at, place] of places.entries()) {
    if (judged[at]?.counter === true && first.size < mostCounters && !contradicted.has(place) && !first.has(place)) first.set(place, at);
  }
  return judged.map((fact, at) => {
    if (fact.counter === undefined || first.get(places[at] ?? '') === at) return fact;
    const { counter: _one, ...rest } = fact;
    return rest;
  });
}

function arrivalWords({ arrivedAt }: SeenFact, { turnedAtMs }: RuleContext): string {
  if (arrivedAt === null) return 'when it arrived is not known';
  return turnedAtMs === null
    ? `it arrived ${arrivedAt}, and nothing tells that the peer turned`
    : `it arrived ${arrivedAt}, before the peer turned`;
}

function findingsOf(fact: SeenFact, context: RuleContext, of: readonly Rule[] = rules): Found[] {
  return of.flatMap((rule) => {
    const finding = rule.judge(fact, context);
    return finding === undefined ? [] : [{ rule, finding }];
  });
}

/** One rule that is enough alone, or what it says together with when it came. */
function isUndone(found: readonly Found[]): boolean {
  const has = (weight: Rule['weight']) => found.some(({ rule }) => rule.weight === weight);
  return has('alone') || (has('content') && has('time'));
}

function names(found: readonly Found[]): string {
  return found.map(({ rule }) => rule.name).join('+');
}

function contextOf(input: JudgeInput, facts: readonly SeenFact[], relations: Relations, turnedAtMs: number | null): RuleContext {
  const { collection, policy, peer, ourEntityUri, firstBad } = input;
  const { triples, derived } = relations;
  return {
    policy,
    peer,
    ourEntityUri,
    turnedAtMs,
    othersOn: relations.othersOn,
    theirsOn: (seen) => (triples.get(ownTriple(seen)) ?? 0) - (isStated(seen) ? 1 : 0),
    derivedFrom: ({ id }) => derived.get(id) ?? [],
    retractedBy: ({ id }) => collection.retracted.get(id),
    localSources: collection.localSources,
    promoted: collection.promoted,
    fencedAtMs: instantMs(collection.fencedAt),
    bursts: burstsIn(facts, policy.burst),
    auditBadAtMs: firstBad?.from === 'audit' ? instantMs(firstBad.at) : null,
  };
}

/** A fact in quarantine shows no scope: whatever shares its entity and relation may be what it hides. */
function othersIndex(others: readonly OtherFact[]): RuleContext['othersOn'] {
  const byTriple = grouped(others, ({ entity, relation, scope }) => tripleKey(entity, relation, scope));
  const byPair = grouped(others, ({ entity, relation }) => tripleKey(entity, relation, ''));
  return ({ entity, relation, fact }) =>
    (fact === null ? byPair.get(tripleKey(entity, relation, '')) : byTriple.get(tripleKey(entity, relation, fact.scope))) ?? [];
}

/** Every fact in any span of `within` in which at least `facts` arrived, by our own clock. */
function burstsIn(facts: readonly SeenFact[], burst: Policy['burst']): Map<string, string> {
  const withinMs = durationMs(burst.within);
  const timed = facts
    .flatMap((fact) => {
      const at = arrivalMs(fact);
      return at === null ? [] : [{ id: fact.id, at }];
    })
    .sort((a, b) => a.at - b.at);
  const found = new Map<string, string>();
  let from = 0;
  for (const [to, last] of timed.entries()) {
    while ((timed[from]?.at ?? last.at) < last.at - withinMs) from += 1;
    if (to - from + 1 < burst.facts) continue;
    for (let index = to; index >= from; index -= 1) {
      const id = timed[index]?.id;
      if (id === undefined || found.has(id)) break;
      found.set(id, `it is one of ${burst.facts} or more that arrived within ${burst.within}`);
    }
  }
  return found;
}

/** What stands around the peer's facts, found once for all of them. */
interface Relations {
  readonly othersOn: RuleContext['othersOn'];
  /** How many live facts of the peer stand on a triple. */
  readonly triples: ReadonlyMap<string, number>;
  readonly derived: ReadonlyMap<string, readonly DerivedFact[]>;
}

function relationsOf({ others, derived }: Collection, facts: readonly SeenFact[]): Relations {
  const triples = new Map<string, number>();
  for (const seen of facts) {
    if (!isStated(seen)) continue;
    const key = ownTriple(seen);
    triples.set(key, (triples.get(key) ?? 0) + 1);
  }
  return { othersOn: othersIndex(others), triples, derived: grouped(derived, ({ from }) => from) };
}

/** Does it state something, as a retraction does not? */
function isStated({ fact }: SeenFact): boolean {
  return fact !== null && fact.confidence > 0;
}

function ownTriple({ entity, relation, fact }: SeenFact): string {
  return tripleKey(entity, relation, fact?.scope ?? '');
}

function grouped<T>(others: readonly T[], keyOf: (other: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const other of others) {
    const group = groups.get(keyOf(other));
    if (group) group.push(other);
    else groups.set(keyOf(other), [other]);
  }
  return groups;
}

function earliest(facts: readonly SeenFact[], isSuspicious: (fact: SeenFact) => boolean): number | null {
  return facts.filter(isSuspicious).reduce<number | null>((least, fact) => lower(least, arrivalMs(fact)), null);
}

function lower(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.min(a, b);
}
