import { setImmediate } from 'node:timers/promises';
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
  type PeerNames,
  type RuleContext,
  type SeenFact,
} from './facts.ts';
import type { Finding, Rule } from './rule.ts';
import { judgeDerived, judgeTombstones } from './beside.ts';
import { kindRules } from './rules-kind.ts';
import { isStated, ownTriple, relationsOf, type Relations } from './relations.ts';
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

/** By our own clock, in milliseconds; null where it is not known. */
type Arrivals = ReadonlyMap<SeenFact, number | null>;

const marking = rules.filter(({ marksTurn }) => marksTurn);
const maxReason = 1_500;
const maxEvidence = 20;

/** Judges every fact of the peer. Pure: the same collection and policy give the same plan. */
export function judgeFacts(input: JudgeInput): Judgement {
  const going = judging(input);
  for (;;) {
    const { done, value } = going.next();
    if (done === true) return value;
  }
}

/** The same, with a turn of the event loop now and then: a hundred thousand facts must not hold up heartbeats and other incidents. */
export async function judgeInTurns(input: JudgeInput): Promise<Judgement> {
  const going = judging(input);
  for (;;) {
    const { done, value } = going.next();
    if (done === true) return value;
    await setImmediate();
  }
}

/** Facts between two turns of the event loop. */
const atOnce = 2_000;

function* judging(input: JudgeInput): Generator<void, Judgement> {
  const { collection, peer, firstBad } = input;
  const isByEntity = ({ originEntityUri: uri }: SeenFact): boolean => typeof uri === 'string' && peer.entityUris.has(uri);
  const facts = collection.facts.filter((fact) => isOfPeer(fact, peer.nodeIds) || isByEntity(fact) || fact.writtenBy !== undefined);
  const relations = relationsOf(collection, facts);
  const { othersOn } = relations;
  const arrivals: Arrivals = new Map(facts.map((fact) => [fact, arrivalMs(fact)]));
  const untimed = contextOf(input, arrivals, relations);
  // A key may have been lent, and may do what a delivery may not: it does not tell when the peer's node turned.
  const delivered: Arrivals = new Map([...arrivals].filter(([{ writtenBy }]) => writtenBy === undefined));
  const marked = yield* earliest(delivered, (fact) => marking.some((rule) => rule.judge(fact, untimed) !== undefined));
  const turnedBy = marked === null ? null : startOfDelivery(delivered, marked);
  const saidMs = firstBad?.from === 'operator' ? instantMs(firstBad.at) : null;
  const context = { ...untimed, turnedAtMs: lower(turnedBy, saidMs) };
  // Where nothing marks a turn, the earliest fact that would be undone at all is what there is.
  const suspiciousMs = turnedBy ?? (yield* earliest(arrivals, (fact) => isUndone(findingsOf(fact, context))));
  const once = eachOnce();
  const judged: Judged[] = [];
  for (const fact of facts) {
    if (judged.length % atOnce === 0) yield;
    judged.push(judgeOne(fact, context, input, once));
  }
  const undone = new Set(judged.flatMap(({ fact: { id, action } }) => (action === 'keep' ? [] : [id])));
  const beside = [...judgeDerived(undone, input), ...judgeTombstones(input)];
  judged.sort(({ fact: x }, { fact: y }) => byId(x, y));
  const byHost = withFewCounters(judged, new Set(facts.filter((fact) => othersOn(fact).length > 0).map(({ id }) => id)));
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
function startOfDelivery(arrivals: Arrivals, atMs: number): number {
  const earlier = [...arrivals.values()]
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

/** A judgement before it is settled which entities get a counter-statement. */
interface Judged {
  readonly fact: JudgedFact;
  readonly wantsCounter: boolean;
}

function judgeOne(
  seen: SeenFact,
  context: RuleContext,
  { collection, evidenceId, ways }: JudgeInput,
  once: (text: string) => string,
): Judged {
  const { id, entity, relation } = seen;
  const scope = seen.fact?.scope ?? '';
  const found = findingsOf(seen, context);
  const others = context.othersOn(seen);
  const events = found.flatMap(({ finding }) => finding.evidence ?? []);
  const evidence = events.length === 0 ? [evidenceId] : [evidenceId, ...new Set(events)].slice(0, maxEvidence);
  const hash = contentHash(seen);
  if (!isUndone(found)) {
    const words = found.map(({ finding }) => finding.reason).join('; ');
    const only = found.length === 0 ? 'no rule finds anything' : `${words}; that alone is not enough`;
    const reason = once(`benign: ${arrivalWords(seen, context)}; ${only}`.slice(0, maxReason));
    const rule = found.length === 0 ? 'benign' : once(names(found));
    const ours = oursWords(others, 'stays as it is');
    const fact = { action: 'keep', contentHash: hash, entity, evidence, id, ours, reason, relation, rule, scope, way: 'none' } as const;
    return { fact, wantsCounter: false };
  }
  const { action, way, why, ours, counter = false } = chooseWay(seen, { others, retractedBy: collection.retracted.get(id) }, ways);
  const kinds = findingsOf(seen, context, kindRules);
  const all = kinds.length === 0 ? found : [...found, ...kinds];
  const words = all.map(({ finding }) => finding.reason).join('; ');
  // The way comes last and is never cut: it holds the operation to do by hand.
  const reason = once(`${words.slice(0, maxReason - why.length)}. ${action}: ${why}`);
  const rule = once(names(all));
  return { fact: { action, contentHash: hash, entity, evidence, id, ours, reason, relation, rule, scope, way }, wantsCounter: counter };
}

/** A hundred thousand facts have a few thousand reasons: each is kept once. */
function eachOnce(): (text: string) => string {
  const known = new Map<string, string>();
  return (text) => {
    const same = known.get(text);
    if (same === undefined) known.set(text, text);
    return same ?? text;
  };
}

/** Each is a write of the node's hourly quota: with more, what is suppressed at once would not be over for hours. */
const mostCounters = 500;

/**
 * One counter-statement makes an entity's card contradictory, however many facts stand on it; none is needed where a live
 * fact of others shares a relation with one of them.
 */
function withFewCounters(judged: readonly Judged[], besideOthers: ReadonlySet<string>): JudgedFact[] {
  const placeOf = ({ fact: { entity, scope } }: Judged): string => tripleKey(entity, '', scope);
  const settled = new Set(judged.filter(({ fact }) => besideOthers.has(fact.id)).map(placeOf));
  let counters = 0;
  return judged.map((one) => {
    if (!one.wantsCounter || counters === mostCounters) return one.fact;
    const place = placeOf(one);
    if (settled.has(place)) return one.fact;
    settled.add(place);
    counters += 1;
    return { ...one.fact, counter: true };
  });
}

function arrivalWords({ arrivedAt }: SeenFact, { turnedAtMs }: RuleContext): string {
  if (arrivedAt === null) return 'when it arrived is not known';
  return turnedAtMs === null
    ? `it arrived ${arrivedAt}, and nothing tells that the peer turned`
    : `it arrived ${arrivedAt}, before the peer turned`;
}

function findingsOf(fact: SeenFact, context: RuleContext, of: readonly Rule[] = rules): Found[] {
  const found: Found[] = [];
  for (const rule of of) {
    const finding = rule.judge(fact, context);
    if (finding !== undefined) found.push({ rule, finding });
  }
  return found;
}

/** One rule that is enough alone, or what it says together with when it came. */
function isUndone(found: readonly Found[]): boolean {
  const has = (weight: Rule['weight']) => found.some(({ rule }) => rule.weight === weight);
  return has('alone') || (has('content') && has('time'));
}

function names(found: readonly Found[]): string {
  return found.map(({ rule }) => rule.name).join('+');
}

/** What is known before anything tells when the peer turned. */
function contextOf(input: JudgeInput, arrivals: Arrivals, relations: Relations): RuleContext {
  const { collection, policy, peer, ourEntityUri, firstBad } = input;
  const { triples, derived } = relations;
  return {
    policy,
    peer,
    ourEntityUri,
    othersOn: relations.othersOn,
    theirsOn: (seen) => (triples.get(ownTriple(seen)) ?? 0) - (isStated(seen) ? 1 : 0),
    derivedFrom: ({ id }) => derived.get(id) ?? [],
    retractedBy: ({ id }) => collection.retracted.get(id),
    arrivedMs: (fact) => arrivals.get(fact) ?? null,
    turnedAtMs: null,
    localSources: collection.localSources,
    promoted: collection.promoted,
    fencedAtMs: instantMs(collection.fencedAt),
    bursts: burstsIn(arrivals, policy.burst),
    auditBadAtMs: firstBad?.from === 'audit' ? instantMs(firstBad.at) : null,
  };
}

/** Every fact in any span of `within` in which at least `facts` arrived, by our own clock. */
function burstsIn(arrivals: Arrivals, burst: Policy['burst']): Map<string, string> {
  const withinMs = durationMs(burst.within);
  const words = `it is one of ${burst.facts} or more that arrived within ${burst.within}`;
  const timed: { readonly id: string; readonly at: number }[] = [];
  for (const [{ id }, at] of arrivals) if (at !== null) timed.push({ id, at });
  timed.sort((a, b) => a.at - b.at);
  const found = new Map<string, string>();
  let from = 0;
  for (const [to, last] of timed.entries()) {
    while ((timed[from]?.at ?? last.at) < last.at - withinMs) from += 1;
    if (to - from + 1 < burst.facts) continue;
    for (let index = to; index >= from; index -= 1) {
      const id = timed[index]?.id;
      if (id === undefined || found.has(id)) break;
      found.set(id, words);
    }
  }
  return found;
}

function* earliest(arrivals: Arrivals, isSuspicious: (fact: SeenFact) => boolean): Generator<void, number | null> {
  let least: number | null = null;
  let seen = 0;
  for (const [fact, at] of arrivals) {
    seen += 1;
    if (seen % atOnce === 0) yield;
    if (isSuspicious(fact)) least = lower(least, at);
  }
  return least;
}

function lower(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.min(a, b);
}
