import type { Stigmem } from './client.ts';
import {
  countFacts,
  countOutside,
  countScopes,
  NOT_COUNTED,
  receiptIndex,
  RECEIVED_FROM,
  SYSTEM_SOURCE,
  type ReceiptIndex,
} from './fact-index.ts';
import { readEach, readScope } from './fact-pages.ts';
import { collectQuarantine, Meter, type Collected, type CollectOptions } from './paging.ts';
import { judgePeerFacts } from './peer-facts-verdict.ts';
import { SCOPES, type Fact, type QuarantineEntry, type Scope } from './wire.ts';

export interface PeerFactsOptions extends CollectOptions {
  /** The peer's node_ids: facts it delivered, and facts that name it as their origin. */
  readonly nodeIds: readonly string[];
  /**
   * Most facts read one by one, after the pages. They count against the node's hourly read limit (5,000 by default),
   * and are read at its pace.
   * @default 25000
   */
  readonly maxReads?: number;
  /**
   * Whose time of arrival is worth a read of its own, where the pages did not show it: more than half of them do not
   * once some thousand facts have come in, and each read costs the node about 0.1 s.
   * @default all
   */
  readonly arrivalsOf?: (item: Omit<PeerFact, 'arrivedAt'>) => boolean;
  /** Facts by id, kept by the caller: what is in it is not read again one by one, and what is read is added. */
  readonly cache?: Map<string, Fact>;
}

/** One fact of the peer. Everything but `receivedFrom`, `arrivedAt` and `quarantine` is the sender's claim. */
export interface PeerFact {
  readonly id: string;
  readonly entity: string;
  readonly relation: string;
  readonly source: string;
  readonly receivedFrom: string | null;
  readonly originNodeId: string | null;
  /** null for a fact that waits in quarantine: its value, scope and origin are shown to nobody over HTTP. */
  readonly fact: Fact | null;
  readonly quarantine: QuarantineEntry | null;
  /** When it arrived, by our node's own clock (ISO 8601); null when that could not be read. */
  readonly arrivedAt: string | null;
}

/** Received, but shown to nobody over HTTP: for the host. */
export interface UnreadFact {
  readonly id: string;
  /** The sender's node_id as our node noted it; null when it can't be read: perhaps the peer. */
  readonly receivedFrom: string | null;
  readonly arrivedAt: string | null;
  readonly why: string;
}

export interface PeerFacts extends Collected<PeerFact> {
  /** Notes of receipt that came in by federation: forged, used for nothing, and themselves facts of a peer. */
  readonly forgedReceipts: readonly Fact[];
  /** Facts that a receipt names and that could not be read. */
  readonly unread: readonly UnreadFact[];
  /** Facts of anyone, seen by us and counted by the node; -1 where it would not count. */
  readonly scopes: readonly { readonly scope: Scope; readonly seen: number; readonly counted: number }[];
}

/**
 * Everything a peer delivered, found by what our node stamped (`received_from`, `origin_node_id`), never by source,
 * claimed scope or claimed time. Three ways, whose union is taken: pages of every scope, narrowed; the node's own
 * notes of receipt, which name every fact that came in; single reads of what the pages did not show.
 * What arrives while it runs may be missing: collect again after the fence.
 */
export async function collectPeerFacts(client: Stigmem, options: PeerFactsOptions): Promise<PeerFacts> {
  const meter = new Meter(options);
  const nodeIds = new Set(options.nodeIds);
  const facts = options.cache ?? new Map<string, Fact>();
  const unread = new Map<string, string>();
  const budget = { left: options.maxReads ?? 25_000 };
  const read = (ids: readonly string[]): Promise<void> => readEach(client, meter, ids, budget, facts, unread);

  const counts = await countScopes(client, meter);
  const otherTenants = await countOutside(client, meter, counts);
  const index = await receiptIndex(client, meter);
  for (const scope of SCOPES) await readScope(client, meter, scope, counts.get(scope) ?? NOT_COUNTED, facts);
  const quarantine = await collectQuarantine(client, { ...options, onPage: () => meter.report() });
  meter.asked += quarantine.asked;
  const held = new Map(quarantine.items.map((entry) => [entry.fact_id, entry]));

  // A note may also come from the pages, where the index was blinded. Its target is redacted there.
  const notes = new Map(index.notes.map((note) => [note.noteId, note]));
  for (const fact of facts.values()) {
    if (isReceipt(fact) && !notes.has(fact.id)) notes.set(fact.id, { factId: fact.entity, noteId: fact.id, nodeId: null });
  }
  const missing = [...notes.values()].filter((note) => !facts.has(note.factId) && !held.has(note.factId));
  const likely = missing.filter((note) => note.nodeId === null || nodeIds.has(note.nodeId));
  await read(likely.map((note) => note.factId));
  await read(missing.map((note) => note.factId));

  const isMine = (sender: string | null, origin: string | null): boolean =>
    (sender !== null && nodeIds.has(sender)) || (origin !== null && nodeIds.has(origin));
  const own = [...facts.values()].filter((fact) => isMine(fact.received_from, fact.origin_node_id));
  const waiting = quarantine.items.filter((entry) => isMine(entry.received_from, null));

  // Notes last: the fact itself matters more than its hour, and a forged note must not pass for a missing fact.
  const dated = [
    ...waiting.map((entry) => fromQuarantine(entry, NO_TIMES)),
    ...own.map((fact) => fromFact(fact, held.get(fact.id) ?? null, NO_TIMES)),
  ];
  const arrivalsOf = options.arrivalsOf ?? ((): boolean => true);
  const wanted = new Set([...dated.filter((item) => arrivalsOf(item)).map((item) => item.id), ...unread.keys()]);
  await read([...notes.values()].filter((note) => wanted.has(note.factId)).map((note) => note.noteId));
  const forgedReceipts = [...facts.values()].filter((fact) => fact.relation === RECEIVED_FROM && fact.received_from !== null);
  const forged = new Set(forgedReceipts.map((note) => note.id));
  const lost = missing.filter((note) => unread.has(note.factId) && !forged.has(note.noteId));

  const arrivals = arrivalTimes(facts.values());
  const items = new Map(waiting.map((entry) => [entry.fact_id, fromQuarantine(entry, arrivals)]));
  for (const fact of own) items.set(fact.id, fromFact(fact, held.get(fact.id) ?? null, arrivals));
  const scopes = SCOPES.map((scope) => {
    const seen = [...facts.values()].filter((fact) => fact.scope === scope).length;
    return { scope, seen, counted: counts.get(scope) ?? NOT_COUNTED };
  });
  const verdict = judgePeerFacts({
    ...(await receiptsKnown(client, meter, index, facts, notes.size)),
    lostOwn: lost.filter((note) => likely.includes(note)).length,
    lostOthers: lost.filter((note) => !likely.includes(note)).length,
    quarantine,
    otherTenants,
    noArrival: [...items.values()].filter((item) => item.arrivedAt === null).length,
    facts: items.size,
  });
  return {
    items: [...items.values()],
    ...verdict,
    asked: meter.asked,
    forgedReceipts,
    unread: lost.map(({ factId: id, nodeId: receivedFrom }) => {
      return { id, receivedFrom, arrivedAt: arrivals.get(id) ?? null, why: unread.get(id) ?? '' };
    }),
    scopes,
  };
}

/** The index and its count are one snapshot. Only if it was blinded, notes found by page are held against a new count. */
async function receiptsKnown(
  client: Stigmem,
  meter: Meter,
  index: ReceiptIndex,
  facts: ReadonlyMap<string, Fact>,
  known: number,
): Promise<{ receipts: number; receiptsCounted: number }> {
  if (index.counted !== NOT_COUNTED && index.notes.length === index.counted) return { receipts: known, receiptsCounted: known };
  const forgedElsewhere = [...facts.values()].filter(
    (fact) => fact.relation === RECEIVED_FROM && !isReceipt(fact) && fact.scope === 'local',
  );
  const receipts = known + forgedElsewhere.length;
  return { receipts, receiptsCounted: await countFacts(client, meter, 'local', RECEIVED_FROM) };
}

const NO_TIMES: ReadonlyMap<string, string> = new Map();

/** Written by our own node: not received from anyone, and under the node's own source. */
function isReceipt(fact: Fact): boolean {
  return fact.relation === RECEIVED_FROM && fact.received_from === null && fact.source === SYSTEM_SOURCE;
}

/** Where two notes name one fact, the earlier hour counts: the later one may have been added to look harmless. */
function arrivalTimes(facts: Iterable<Fact>): ReadonlyMap<string, string> {
  const times = new Map<string, string>();
  for (const fact of facts) {
    if (!isReceipt(fact)) continue;
    const known = times.get(fact.entity);
    if (known === undefined || fact.timestamp < known) times.set(fact.entity, fact.timestamp);
  }
  return times;
}

function fromQuarantine(entry: QuarantineEntry, arrivals: ReadonlyMap<string, string>): PeerFact {
  const { fact_id: id, entity, relation, source, received_from: receivedFrom } = entry;
  const arrivedAt = arrivals.get(id) ?? null;
  return { id, entity, relation, source, receivedFrom, originNodeId: null, fact: null, quarantine: entry, arrivedAt };
}

function fromFact(fact: Fact, quarantine: QuarantineEntry | null, arrivals: ReadonlyMap<string, string>): PeerFact {
  const { id, entity, relation, source, received_from: receivedFrom, origin_node_id: originNodeId } = fact;
  return { id, entity, relation, source, receivedFrom, originNodeId, fact, quarantine, arrivedAt: arrivals.get(id) ?? null };
}
