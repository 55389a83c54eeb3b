import { defaultPolicy } from '../../src/contract/policy.ts';
import type { JudgedFact } from '../../src/contract/schemas.ts';
import type { Collection, OtherFact, SeenFact } from '../../src/policy/facts.ts';
import { judgeFacts, type JudgeInput } from '../../src/policy/judge.ts';
import { Fact, QuarantineEntry } from '../../src/stigmem/wire.ts';

export const peerNode = 'stigmem:node:peer';
/** An hour before {@link turnedAt}: honest. */
export const longBefore = '2026-11-23T00:00:00.000Z';
export const turnedAt = '2026-11-23T01:00:00.000Z';

export interface Given {
  readonly id?: string;
  readonly entity?: string;
  readonly relation?: string;
  readonly source?: string;
  readonly scope?: string;
  readonly timestamp?: string;
  readonly confidence?: number;
  readonly interpretAs?: string;
  readonly receivedFrom?: string | null;
  readonly origin?: string | null;
  readonly arrivedAt?: string | null;
}

/** An honest fact of the peer, but for what is given. Stamped when it arrives. */
export function fact(given: Given = {}): SeenFact {
  const {
    id = 'f1',
    entity = 'stigmem://peer.test/team/menu',
    relation = 'memory:lunch',
    source = 'stigmem://peer.test/agent/cook',
  } = given;
  const { receivedFrom = peerNode, origin = peerNode, arrivedAt = longBefore, timestamp = arrivedAt ?? longBefore } = given;
  const wire = {
    id,
    entity,
    relation,
    source,
    timestamp,
    scope: given.scope ?? 'company',
    confidence: given.confidence ?? 0.9,
    value: { type: 'text', v: 'soup', interpret_as: given.interpretAs ?? 'content' },
  };
  return {
    id,
    entity,
    relation,
    source,
    receivedFrom,
    originNodeId: origin,
    quarantine: null,
    arrivedAt,
    fact: Fact.parse({ ...wire, received_from: receivedFrom, origin_node_id: origin }),
  };
}

/** The same in quarantine: pending shows no value and no scope. */
export function quarantined(given: Given & { readonly status: 'pending' | 'promoted' | 'rejected'; readonly why?: string }): SeenFact {
  const seen = fact(given);
  const { id, entity, relation, source, receivedFrom } = seen;
  const row = {
    fact_id: id,
    entity,
    relation,
    source,
    quarantine_status: given.status,
    quarantine_reason: given.why ?? 'trust_below_threshold',
    received_from: receivedFrom,
    timestamp: seen.fact?.timestamp,
  };
  return { ...seen, fact: given.status === 'pending' ? null : seen.fact, quarantine: QuarantineEntry.parse(row) };
}

/** A fact of ours on the triple of {@link fact}. */
export function ours(given: Partial<OtherFact> = {}): OtherFact {
  const base = { id: 'o1', entity: 'stigmem://peer.test/team/menu', relation: 'memory:lunch', scope: 'company' };
  return { ...base, source: 'stigmem://ours.test/agent/a', receivedFrom: null, hidden: true, ...given };
}

export function collection(facts: readonly SeenFact[], over: Partial<Collection> = {}): Collection {
  return {
    facts,
    others: [],
    retracted: new Map(),
    promoted: new Map(),
    derived: [],
    tombstones: [],
    localSources: new Set(),
    fencedAt: null,
    unread: [],
    complete: true,
    coverage: [],
    ...over,
  };
}

export function judge(facts: readonly SeenFact[], over: Partial<JudgeInput> & { readonly with?: Partial<Collection> } = {}) {
  return judgeFacts({
    collection: collection(facts, over.with),
    evidenceId: 'sha256:collection',
    policy: defaultPolicy,
    peer: { nodeIds: new Set([peerNode]), entityUris: new Set(['stigmem://peer.test']), allowedScopes: new Set(['company', 'public']) },
    ourEntityUri: 'stigmem://ours.test',
    firstBad: null,
    ways: { host: false },
    ...over,
  });
}

/** The judgement of the first fact given. */
export function judgeOne(given: SeenFact, over: Parameters<typeof judge>[1] = {}, beside: readonly SeenFact[] = []): JudgedFact {
  const found = judge([given, ...beside], over).judged.find(({ id }) => id === given.id);
  if (found === undefined) throw new Error(`no judgement of ${given.id}`);
  return found;
}

/** Something no honest node could send, on a triple of its own: it tells when the peer turned. */
export function marker(arrivedAt = turnedAt): SeenFact {
  return fact({ id: 'marker', entity: 'stigmem://peer.test/x/marker', interpretAs: 'instruction', arrivedAt });
}
