import { z } from 'zod';
import type { Coverage } from '../../src/contract/schemas.ts';
import type { PeerRef } from '../../src/contract/steps.ts';
import { tripleKey, valueId, type Collection, type DerivedFact, type OtherFact, type SeenFact } from '../../src/policy/facts.ts';
import { collectPeerFacts, type PeerFact } from '../../src/stigmem/peer-facts.ts';
import { collectAudit } from '../../src/stigmem/paging.ts';
import { atItsPace } from '../../src/stigmem/pace.ts';
import type { FactsQuery } from '../../src/stigmem/requests.ts';
import { SCOPES, type Fact, type FactsPage } from '../../src/stigmem/wire.ts';
import { cancelSignal, type Deps } from '../deps.ts';
import { beat } from '../heartbeat.ts';
import { byKeyCoverage, readByKey, writersOf, writtenWithKeysOf, type Written } from './by-key.ts';
import { fencedAt } from './fence-time.ts';
import type { Listed } from './host-listing.ts';
import { inLanes, readLanes } from './lanes.ts';
import { answered, expiredAt, isCounter, isLocal, notLive, scopeOf, stampedAt } from './shape.ts';
import { readersCoverage, spreadCoverage, tombstoneCoverage } from './spread.ts';

/** Beyond this many questions the neighbours of the rest are not asked for, and coverage says so. */
const maxAroundQueries = 20_000;
/** So that they are asked within the node's hourly limit of reads. */
const maxVisibilityQueries = 3_000;
const everything = { include_contradicted: true, include_expired: true, include_low_trust: true, limit: 500 } as const;
/** The second one is written for instructions only, and is the one that the audit routes show. */
const promotions = new Set(['quarantine_promote', 'instruction_promoted']);

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
  const audited = await readAudit(deps, peer);
  const delivered = new Set(found.items.map(({ id }) => id));
  const byKey = await readByKey(deps, new Map([...audited.byKey].filter(([id]) => !delivered.has(id))), cache);
  const facts = [...found.items.map((item) => seen(item, arrived.get(item.id) ?? null)), ...byKey.facts];
  const ids = new Set(facts.map(({ id }) => id));
  // The node counts its facts: when the pages showed all of them, what stands around a fact is known without asking.
  const allSeen = found.scopes.every((scope) => scope.counted === scope.seen);
  const around: Around = allSeen ? { skipped: 0, blind: [] } : await readAround(deps, facts, cache);
  const everyFact = [...cache.values()];
  const others = [...(await withVisibility(deps, othersOf(facts, everyFact, ids))), ...around.blind];
  const { derived, retracted } = lineage(facts, everyFact, ids);
  const whyAround = allSeen
    ? 'every fact the node counts was seen'
    : `asked for each entity, relation and scope of the peer's facts; ${around.skipped} not asked`;
  const coverage: Coverage[] = [
    { what: 'facts of the peer', seen: found.items.length, complete: found.complete, why: found.why },
    { what: 'facts of others on the same entity, relation and scope', seen: others.length, complete: around.skipped === 0, why: whyAround },
    {
      what: "facts derived from the peer's",
      seen: derived.length,
      complete: false,
      why: `${allSeen ? 'among all facts' : 'among the facts seen'}, those that say so; a fact need not say what it was derived from`,
    },
    ...auditCoverage(audited, facts, found.complete),
    byKeyCoverage(byKey.facts.length, audited.complete && byKey.unread.length === 0, 'fact_write events of its entity in the audit'),
    { what: tombstoneCoverage, seen: 0, complete: false, why: 'not knowable over HTTP: no route lists tombstones; the host worker does' },
    await readersCoverage(deps, peer, facts),
    ...spreadCoverage(
      facts,
      everyFact.filter(({ id }) => !ids.has(id)),
    ),
  ];
  return {
    facts,
    others,
    retracted,
    promoted: audited.promoted,
    derived,
    tombstones: [],
    localSources: new Set(everyFact.filter((fact) => isLocal(fact) && !audited.byKey.has(fact.id)).map(({ source }) => source)),
    fencedAt: await fencedAt(deps, peer),
    unread: [...found.unread.map(({ id }) => id), ...byKey.unread],
    complete: found.complete,
    coverage,
  };
}

/** The same from what the host worker listed: over HTTP only what the database does not say is asked, what agents get to see. */
export async function collectListed(deps: Deps, peer: PeerRef, listed: Listed): Promise<Collection> {
  const { facts, others, complete, coverage, shutAt, ...rest } = listed;
  const audited = await readAudit(deps, peer);
  return {
    ...rest,
    facts,
    others: await withVisibility(deps, others),
    promoted: audited.promoted,
    fencedAt: shutAt ?? (await fencedAt(deps, peer)),
    unread: [],
    complete,
    coverage: [...coverage, ...auditCoverage(audited, facts, complete), await readersCoverage(deps, peer, facts)],
  };
}

interface Audited {
  /** Fact id to the events that let it out of quarantine. */
  readonly promoted: ReadonlyMap<string, readonly string[]>;
  /** Facts that were written here with a key of the peer's entity, by id. */
  readonly byKey: ReadonlyMap<string, Written>;
  readonly complete: boolean;
}

async function readAudit(deps: Deps, peer: PeerRef | null): Promise<Audited> {
  const signal = cancelSignal();
  const audit = await collectAudit(deps.node, { signal, onPage: ({ asked, seen }) => beat({ asked, seen }) });
  const promoted = new Map<string, string[]>();
  for (const { event_type: type, fact_id: id, id: event } of audit.items) {
    if (promotions.has(type) && id !== null) promoted.set(id, [...(promoted.get(id) ?? []), event]);
  }
  const { entity_uri: ours } = await deps.node.wellKnown(signal);
  const byKey = writtenWithKeysOf(audit.items, writersOf(peer, ours ?? ''));
  return { promoted, byKey, complete: audit.complete && peer?.entityUri !== '' };
}

function auditCoverage({ promoted }: Audited, facts: readonly SeenFact[], complete: boolean): Coverage[] {
  return [
    {
      what: "the peer's facts that were promoted from quarantine",
      seen: facts.filter(({ quarantine }) => quarantine?.quarantine_status === 'promoted').length,
      complete,
      why: `by the quarantine list, which keeps who and when; ${promoted.size} of them have an event in the audit: the node writes quarantine_promote without a tenant, so its own audit routes do not show it`,
    },
  ];
}

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
    expiredAt: expiredAt(fact?.valid_until ?? null),
  };
}

interface Around {
  /** Triples that were not asked for. */
  readonly skipped: number;
  /** Stands for whatever the node would not show: a triple that can't be seen is one that must not be retracted on. */
  readonly blind: readonly OtherFact[];
}

/**
 * What stands on the triples of the peer's facts. An entity that fits one page answers for all its triples; of one that
 * does not, each triple is asked for.
 */
async function readAround(deps: Deps, facts: readonly SeenFact[], cache: Map<string, Fact>): Promise<Around> {
  const triples = new Map(facts.map((fact) => [tripleKey(fact.entity, fact.relation, fact.fact?.scope ?? ''), fact]));
  const entities = new Map<string, SeenFact[]>();
  for (const fact of triples.values()) {
    const key = tripleKey(fact.entity, '', fact.fact?.scope ?? '');
    const group = entities.get(key);
    if (group) group.push(fact);
    else entities.set(key, [fact]);
  }
  // In an order of their own, so that what is not asked for today is not asked for when the plan is made again.
  const groups = [...entities].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
  const blind: OtherFact[] = [];
  let left = maxAroundQueries;
  let skipped = 0;
  const ask = async (query: FactsQuery): Promise<FactsPage | string> => {
    left -= 1;
    const page = await answered(() => atItsPace(() => deps.node.factsPage({ ...query, ...everything }, cancelSignal()), cancelSignal()));
    if (typeof page !== 'string') for (const one of page.facts) cache.set(one.id, one);
    beat();
    return page;
  };
  await inLanes(groups, readLanes, async (group) => {
    const [first] = group;
    if (first === undefined) return;
    const scope = first.fact === null ? undefined : scopeOf(first.fact.scope);
    const place = { entity: first.entity, ...(scope ? { scope } : {}) };
    if (group.length > 1 && left > 0) {
      const whole = await ask(place);
      if (typeof whole !== 'string' && whole.cursor === null) return;
    }
    for (const one of group) {
      if (left <= 0) {
        skipped += 1;
        blind.push(unseen(one, 'not asked for'));
        continue;
      }
      const page = await ask({ ...place, relation: one.relation });
      if (typeof page === 'string') blind.push(unseen(one, page));
    }
  });
  return { skipped, blind };
}

function unseen({ entity, relation, fact }: SeenFact, why: string): OtherFact {
  return { id: `unknown: ${why}`, entity, relation, scope: fact?.scope ?? '', source: '', receivedFrom: null, hidden: null };
}

function othersOf(facts: readonly SeenFact[], everyFact: readonly Fact[], ids: ReadonlySet<string>): Fact[] {
  const triples = new Set(
    facts.flatMap(({ entity, relation, fact }) =>
      fact ? [tripleKey(entity, relation, fact.scope)] : SCOPES.map((scope) => tripleKey(entity, relation, scope)),
    ),
  );
  const now = new Date().toISOString();
  return everyFact.filter(
    (fact) =>
      triples.has(tripleKey(fact.entity, fact.relation, fact.scope)) &&
      !ids.has(fact.id) &&
      fact.confidence > 0 &&
      !notLive.has(fact.quarantine_status ?? '') &&
      (fact.valid_until === null || fact.valid_until > now),
  );
}

/** The default query shows a triple's facts or hides them all: one question for each triple. */
async function withVisibility(deps: Deps, others: readonly Fact[]): Promise<OtherFact[]> {
  const triples = new Map(others.map((fact) => [tripleKey(fact.entity, fact.relation, fact.scope), fact]));
  const shown = new Map<string, Set<string>>();
  // The rest is not asked for: whether it is hidden stays open, and that is said.
  await inLanes([...triples].slice(0, maxVisibilityQueries), readLanes, async ([key, { entity, relation, scope: name }]) => {
    const scope = scopeOf(name);
    if (scope === undefined) return;
    const query = { entity, relation, scope, limit: 500 };
    const page = await answered(() => atItsPace(() => deps.node.factsPage(query, cancelSignal()), cancelSignal()));
    // What the node shows to nobody is hidden.
    shown.set(key, new Set(typeof page === 'string' ? [] : page.facts.map((fact) => fact.id)));
    beat();
  });
  return others.map((fact) => {
    const { id, entity, relation, scope, source, received_from: receivedFrom } = fact;
    const visible = shown.get(tripleKey(entity, relation, scope));
    const says = fact.sanitizer_redacted ? {} : { says: valueId(fact.value) };
    return { id, entity, relation, scope, source, receivedFrom, hidden: visible === undefined ? null : !visible.has(id), ...says };
  });
}

const Origins = z.array(z.looseObject({ fact_id: z.string().nullish(), hash: z.string().nullish() })).catch([]);

/** What says it was derived from a fact of the peer: our own retractions, and what others built on it. */
function lineage(
  facts: readonly SeenFact[],
  everyFact: readonly Fact[],
  own: ReadonlySet<string>,
): { derived: DerivedFact[]; retracted: Map<string, string> } {
  const ids = new Map<string, string>();
  for (const { id, fact } of facts) {
    ids.set(id, id);
    if (typeof fact?.cid === 'string') ids.set(fact.cid, id);
  }
  const derived: DerivedFact[] = [];
  const retracted = new Map<string, string>();
  for (const fact of everyFact) {
    if (own.has(fact.id)) continue;
    for (const origin of Origins.parse(fact['derived_from'] ?? [])) {
      const from = ids.get(origin.fact_id ?? '') ?? ids.get(origin.hash ?? '');
      if (from === undefined) continue;
      if (fact.confidence === 0 && fact.received_from === null) retracted.set(from, fact.id);
      else if (!isCounter({ confidence: fact.confidence, receivedFrom: fact.received_from })) derived.push(derivedOf(fact, from));
    }
  }
  return { derived, retracted };
}

function derivedOf({ id, source, entity, relation, scope, received_from: receivedFrom }: Fact, from: string): DerivedFact {
  return { id, from, source, entity, relation, scope, receivedFrom };
}
