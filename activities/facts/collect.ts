import { z } from 'zod';
import type { Coverage } from '../../src/contract/schemas.ts';
import type { PeerRef } from '../../src/contract/steps.ts';
import { isOfPeer, tripleKey, type Collection, type DerivedFact, type OtherFact, type SeenFact } from '../../src/policy/facts.ts';
import { collectPeerFacts, type PeerFact } from '../../src/stigmem/peer-facts.ts';
import { collectAudit } from '../../src/stigmem/paging.ts';
import { SCOPES, type Fact } from '../../src/stigmem/wire.ts';
import { cancelSignal, type Deps } from '../deps.ts';
import { beat } from '../heartbeat.ts';
import { fencedAt } from './fence-time.ts';
import { writtenWithKeysOf } from './read-peer.ts';
import { answered, isLocal, scopeOf } from './shape.ts';
import { spreadCoverage } from './spread.ts';

/** Beyond this many triples the neighbours of the rest are not asked for, and coverage says so. */
const maxTripleQueries = 1_500;
const everything = { include_contradicted: true, include_expired: true, include_low_trust: true, limit: 500 } as const;
/** The second one is written for instructions only, and is the one that the audit routes show. */
const promotions = new Set(['quarantine_promote', 'instruction_promoted']);
/** Not delivered by federation, so not in the plan: said, with its count, and left to people. */
export const byKeyCoverage = 'facts written here with an API key issued to the peer';
const notLive = new Set(['pending', 'rejected']);

/**
 * Everything the peer delivered and what stands around it, from our own node. Changes nothing.
 * @param before - an earlier collection: when a fact arrived does not change, so that is not asked for again
 */
export async function collect(deps: Deps, peer: PeerRef | null, before?: Collection): Promise<Collection> {
  const signal = cancelSignal();
  const onPage = ({ asked, seen }: { asked: number; seen: number }) => beat({ asked, seen });
  const nodeIds = new Set(peer?.nodeIds ?? []);
  const cache = new Map<string, Fact>();
  const arrived = new Map(before?.facts.map(({ id, arrivedAt }) => [id, arrivedAt]));
  const arrivalsOf = ({ id }: { readonly id: string }) => (arrived.get(id) ?? null) === null;
  const found = await collectPeerFacts(deps.node, { nodeIds: [...nodeIds], signal, onPage, cache, arrivalsOf });
  const facts = found.items.map((item) => seen(item, arrived.get(item.id) ?? null));
  // The node counts its facts: when the pages showed all of them, what stands around a fact is known without asking.
  const allSeen = found.scopes.every((scope) => scope.counted === scope.seen);
  const around: Around = allSeen ? { skipped: 0, blind: [] } : await readAround(deps, facts, cache);
  const everyFact = [...cache.values()];
  const others = [...(await withVisibility(deps, othersOf(facts, everyFact, nodeIds))), ...around.blind];
  const audit = await collectAudit(deps.node, { signal, onPage });
  const promoted = new Map<string, string[]>();
  for (const { event_type: type, fact_id: id, id: event } of audit.items) {
    if (promotions.has(type) && id !== null) promoted.set(id, [...(promoted.get(id) ?? []), event]);
  }
  const byKey = writtenWithKeysOf(audit.items, peer?.entityUri ?? '');
  const { derived, retracted } = lineage(facts, everyFact, nodeIds);
  const whyAround = allSeen
    ? 'every fact the node counts was seen'
    : `asked for each entity, relation and scope of the peer's facts; ${around.skipped} not asked`;
  const coverage: Coverage[] = [
    { what: 'facts of the peer', seen: facts.length, complete: found.complete, why: found.why },
    { what: 'facts of others on the same entity, relation and scope', seen: others.length, complete: around.skipped === 0, why: whyAround },
    {
      what: "the peer's facts that were promoted from quarantine",
      seen: facts.filter(({ quarantine }) => quarantine?.quarantine_status === 'promoted').length,
      complete: found.complete,
      why: `by the quarantine list, which keeps who and when; ${promoted.size} of them have an event in the audit: the node writes quarantine_promote without a tenant, so its own audit routes do not show it`,
    },
    {
      what: "facts derived from the peer's",
      seen: derived.length,
      complete: false,
      why: `${allSeen ? 'among all facts' : 'among the facts seen'}, those that say so; a fact need not say what it was derived from`,
    },
    {
      what: byKeyCoverage,
      seen: byKey.size,
      complete: audit.complete && peer?.entityUri !== '',
      why: 'fact_write events of its entity in the audit; keys of other entities it was given are not known',
    },
    ...(await spreadCoverage(deps, peer, facts, everyFact)),
  ];
  return {
    facts,
    others,
    retracted,
    promoted,
    derived,
    localSources: new Set(everyFact.filter((fact) => isLocal(fact) && !byKey.has(fact.id)).map(({ source }) => source)),
    fencedAt: await fencedAt(deps, peer),
    unread: found.unread.map(({ id }) => id),
    complete: found.complete,
    coverage,
  };
}

/** Our node stamps a fact's HLC as it comes in (federation_ingest.py, ingest_fact): near enough where the note of receipt can't be read. */
function seen(item: PeerFact, arrivedBefore: string | null): SeenFact {
  const { id, entity, relation, source, receivedFrom, originNodeId, fact, quarantine, arrivedAt } = item;
  return {
    id,
    entity,
    relation,
    source,
    receivedFrom,
    originNodeId,
    fact,
    quarantine,
    arrivedAt: arrivedAt ?? arrivedBefore ?? stampedAt(fact),
  };
}

function stampedAt(fact: Fact | null): string | null {
  const wall = Number(/^(\d{12,14})\./.exec(fact?.hlc ?? '')?.[1]);
  return Number.isNaN(wall) ? null : new Date(wall).toISOString();
}

interface Around {
  /** Triples that were not asked for. */
  readonly skipped: number;
  /** Stands for whatever the node would not show: a triple that can't be seen is one that must not be retracted on. */
  readonly blind: readonly OtherFact[];
}

async function readAround(deps: Deps, facts: readonly SeenFact[], cache: Map<string, Fact>): Promise<Around> {
  const triples = new Map(facts.map((fact) => [tripleKey(fact.entity, fact.relation, fact.fact?.scope ?? ''), fact]));
  const asked = [...triples.values()].slice(0, maxTripleQueries);
  const unasked = [...triples.values()].slice(maxTripleQueries);
  const blind = unasked.map((fact) => unseen(fact, 'not asked for'));
  for (const seenFact of asked) {
    const { entity, relation, fact } = seenFact;
    const scope = fact === null ? undefined : scopeOf(fact.scope);
    const page = await answered(() =>
      deps.node.factsPage({ entity, relation, ...everything, ...(scope ? { scope } : {}) }, cancelSignal()),
    );
    if (typeof page === 'string') blind.push(unseen(seenFact, page));
    else for (const one of page.facts) cache.set(one.id, one);
    beat();
  }
  return { skipped: unasked.length, blind };
}

function unseen({ entity, relation, fact }: SeenFact, why: string): OtherFact {
  return { id: `unknown: ${why}`, entity, relation, scope: fact?.scope ?? '', source: '', receivedFrom: null, hidden: null };
}

function othersOf(facts: readonly SeenFact[], everyFact: readonly Fact[], nodeIds: ReadonlySet<string>): Fact[] {
  const triples = new Set(
    facts.flatMap(({ entity, relation, fact }) =>
      fact ? [tripleKey(entity, relation, fact.scope)] : SCOPES.map((scope) => tripleKey(entity, relation, scope)),
    ),
  );
  const now = new Date().toISOString();
  return everyFact.filter(
    (fact) =>
      triples.has(tripleKey(fact.entity, fact.relation, fact.scope)) &&
      !isOfPeer({ receivedFrom: fact.received_from, originNodeId: fact.origin_node_id }, nodeIds) &&
      fact.confidence > 0 &&
      !notLive.has(fact.quarantine_status ?? '') &&
      (fact.valid_until === null || fact.valid_until > now),
  );
}

/** The default query shows a triple's facts or hides them all: one question for each triple. */
async function withVisibility(deps: Deps, others: readonly Fact[]): Promise<OtherFact[]> {
  const shown = new Map<string, Set<string>>();
  const result: OtherFact[] = [];
  for (const { id, entity, relation, scope, source, received_from: receivedFrom } of others) {
    const key = tripleKey(entity, relation, scope);
    const known = scopeOf(scope);
    if (!shown.has(key) && known !== undefined) {
      const page = await answered(() => deps.node.factsPage({ entity, relation, scope: known, limit: 500 }, cancelSignal()));
      // What the node shows to nobody is hidden.
      shown.set(key, new Set(typeof page === 'string' ? [] : page.facts.map((fact) => fact.id)));
      beat();
    }
    const visible = shown.get(key);
    result.push({ id, entity, relation, scope, source, receivedFrom, hidden: visible === undefined ? null : !visible.has(id) });
  }
  return result;
}

const Origins = z.array(z.looseObject({ fact_id: z.string().nullish(), hash: z.string().nullish() })).catch([]);

/** What says it was derived from a fact of the peer: our own retractions, and what others built on it. */
function lineage(
  facts: readonly SeenFact[],
  everyFact: readonly Fact[],
  nodeIds: ReadonlySet<string>,
): { derived: DerivedFact[]; retracted: Map<string, string> } {
  const ids = new Map<string, string>();
  for (const { id, fact } of facts) {
    ids.set(id, id);
    if (typeof fact?.cid === 'string') ids.set(fact.cid, id);
  }
  const derived: DerivedFact[] = [];
  const retracted = new Map<string, string>();
  for (const fact of everyFact) {
    if (isOfPeer({ receivedFrom: fact.received_from, originNodeId: fact.origin_node_id }, nodeIds)) continue;
    for (const origin of Origins.parse(fact['derived_from'] ?? [])) {
      const from = ids.get(origin.fact_id ?? '') ?? ids.get(origin.hash ?? '');
      if (from === undefined) continue;
      if (fact.confidence === 0 && fact.received_from === null) retracted.set(from, fact.id);
      else derived.push({ id: fact.id, from, source: fact.source, entity: fact.entity });
    }
  }
  return { derived, retracted };
}
