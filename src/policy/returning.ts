import { setImmediate } from 'node:timers/promises';
import { durationMs, spanWords } from '../contract/duration.ts';
import type { Policy } from '../contract/policy.ts';
import type { JudgedFact } from '../contract/schemas.ts';
import { idOf, instantMs, tripleKey, valueId, type PeerNames, type RuleContext, type SeenFact } from './facts.ts';
import { contractText, short, type Finding, type Rule } from './rule.ts';
import { rules } from './rules.ts';

/** What a fact said that was undone in this incident. */
export interface UndoneFact {
  readonly id: string;
  readonly entity: string;
  readonly relation: string;
  readonly scope: string;
  /** {@link valueId} of what it said; absent where its value was never seen. */
  readonly says?: string;
}

export interface ReturningInput {
  /** As the peer would deliver them; none has arrived. */
  readonly facts: readonly SeenFact[];
  readonly evidenceId: string;
  readonly policy: Policy;
  readonly peer: PeerNames;
  readonly ourEntityUri: string;
  readonly localSources: ReadonlySet<string>;
  readonly undone: readonly UndoneFact[];
  /** When they were fetched, in milliseconds. */
  readonly fetchedMs: number;
  /** First bad time, and since when the peer has its new key: between the two it was not in its operator's hands. Null: not known. */
  readonly firstBadMs: number | null;
  readonly newKeySinceMs: number | null;
}

interface Waiting extends Pick<ReturningInput, 'fetchedMs' | 'firstBadMs' | 'newKeySinceMs'> {
  readonly undoneOn: ReadonlyMap<string, readonly UndoneFact[]>;
  readonly undoneSays: ReadonlyMap<string, string>;
}

/** A rule about what has not arrived yet; each is enough alone. */
export interface ReturningRule extends Pick<Rule, 'name' | 'serves' | 'why'> {
  readonly judge: (fact: SeenFact, waiting: Waiting) => Finding | undefined;
}

/** As the node counts (settings.py, federation_hlc_max_future_skew_s and …_past_skew_s). */
const aheadMs = durationMs('5m');
const behindMs = durationMs('30d');

export const returningRules: readonly ReturningRule[] = [
  {
    name: 'writtenWhileCompromised',
    serves: 'Run a small test pull and watch quarantine/audit events before restoring full trust.',
    why: "Between the first bad time and its new key the peer was not in its operator's hands; the time it claims is the least it admits.",
    judge: ({ fact }, { firstBadMs, newKeySinceMs }) => {
      const at = instantMs(fact?.timestamp ?? null);
      if (at === null || firstBadMs === null || at < firstBadMs) return undefined;
      if (newKeySinceMs !== null && at >= newKeySinceMs) return undefined;
      return { reason: `it says it was written ${fact?.timestamp ?? ''}, after the first bad time and before the peer had its new key` };
    },
  },
  {
    name: 'likeUndone',
    serves: contractText,
    why: 'Poison that was undone once must not come in again under another id.',
    judge: ({ fact }, { undoneOn, undoneSays }) => {
      if (fact === null) return undefined;
      const says = valueId(fact.value);
      const before = undoneSays.get(says);
      if (before !== undefined) return { reason: `it says what ${short(before)} said, which was undone` };
      const [same] = undoneOn.get(tripleKey(fact.entity, fact.relation, fact.scope)) ?? [];
      return same && { reason: `it is about the same entity, relation and scope as ${short(same.id)}, which was undone` };
    },
  },
  {
    name: 'stallsPull',
    serves: 'Run a small test pull and watch quarantine/audit events before restoring full trust.',
    why: 'The node aborts its whole pull loop, all other peers with it, on a clock out of bounds.',
    judge: ({ fact }, { fetchedMs }) => {
      const wall = Number(/^(\d{12,14})\./.exec(fact?.hlc ?? '')?.[1]);
      if (!Number.isNaN(wall) && wall > fetchedMs + aheadMs) return { reason: `its clock is ${spanWords(wall - fetchedMs)} ahead` };
      if (!Number.isNaN(wall) && wall < fetchedMs - behindMs) return { reason: `its clock is ${spanWords(fetchedMs - wall)} behind` };
      const at = instantMs(fact?.timestamp ?? null);
      if (fact !== null && at === null) return { reason: `its time ${short(fact.timestamp)} can't be read` };
      return at !== null && at > fetchedMs + aheadMs ? { reason: `it is stamped ${spanWords(at - fetchedMs)} ahead` } : undefined;
    },
  },
];

/**
 * Judges what waits behind the fence, before any of it comes in: by the rules of the incident, as far as they need no
 * arrival, and by those about a peer that returns. One finding is enough: nothing is owed to a peer on probation. `keep`:
 * would be let in; `suppress`: would not. Sorted by id; the same input gives the same plan. With a
 * turn of the event loop now and then, as judging the incident does.
 */
export async function judgeReturning(input: ReturningInput): Promise<JudgedFact[]> {
  const waiting = waitingOf(input);
  const context = contextOf(input);
  const judged: JudgedFact[] = [];
  for (const seen of input.facts) {
    judged.push(judgeOne(seen, [...findings(seen, context), ...found(seen, waiting)], input.evidenceId));
    if (judged.length % atOnce === 0) await setImmediate();
  }
  return judged.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
}

/** Facts between two turns of the event loop. */
const atOnce = 2_000;

interface Named {
  readonly name: string;
  readonly reason: string;
}

function findings(seen: SeenFact, context: RuleContext): Named[] {
  return rules.flatMap(({ name, weight, judge }) => {
    const finding = weight === 'alone' || weight === 'content' ? judge(seen, context) : undefined;
    return finding === undefined ? [] : [{ name, reason: finding.reason }];
  });
}

function found(seen: SeenFact, waiting: Waiting): Named[] {
  return returningRules.flatMap(({ name, judge }) => {
    const finding = judge(seen, waiting);
    return finding === undefined ? [] : [{ name, reason: finding.reason }];
  });
}

/**
 * What people approve of a fact that has not come yet, so that it is known again once it did: what its sender says, and
 * nothing that our node works out.
 */
function returningHash({ id, entity, relation, source, fact }: SeenFact): string {
  const said = fact && { scope: fact.scope, timestamp: fact.timestamp, confidence: fact.confidence, value: valueId(fact.value) };
  return idOf({ id, entity, relation, source, ...said });
}

const maxReason = 1_500;

function judgeOne(seen: SeenFact, bad: readonly Named[], evidenceId: string): JudgedFact {
  const { id, entity, relation, fact } = seen;
  const place = { id, entity, relation, scope: fact?.scope ?? '', evidence: [evidenceId], contentHash: returningHash(seen) };
  if (bad.length === 0)
    return { ...place, action: 'keep', way: 'none', rule: 'benign', reason: 'would be let in: no rule finds anything', ours: 'not asked' };
  return {
    ...place,
    action: 'suppress',
    way: 'host',
    rule: bad.map(({ name }) => name).join('+'),
    reason: `would not be let in: ${bad.map(({ reason }) => reason).join('; ')}`.slice(0, maxReason),
    ours: 'stays as it is: it is held back from the moment it comes',
  };
}

function waitingOf({ undone, fetchedMs, firstBadMs, newKeySinceMs }: ReturningInput): Waiting {
  const undoneOn = new Map<string, UndoneFact[]>();
  const undoneSays = new Map<string, string>();
  for (const one of undone) {
    const key = tripleKey(one.entity, one.relation, one.scope);
    undoneOn.set(key, [...(undoneOn.get(key) ?? []), one]);
    if (one.says !== undefined && !undoneSays.has(one.says)) undoneSays.set(one.says, one.id);
  }
  return { undoneOn, undoneSays, fetchedMs, firstBadMs, newKeySinceMs };
}

/** Nothing has arrived, so nothing is known of arrivals, of bursts, and of what was built on it. */
function contextOf({ policy, peer, ourEntityUri, localSources }: ReturningInput): RuleContext {
  return {
    policy,
    peer,
    ourEntityUri,
    localSources,
    promoted: new Map(),
    fencedAtMs: null,
    bursts: new Map(),
    othersOn: () => [],
    theirsOn: () => 0,
    derivedFrom: () => [],
    retractedBy: () => undefined,
    arrivedMs: () => null,
    turnedAtMs: null,
    auditBadAtMs: null,
  };
}
