import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Coverage } from '../contract/schemas.ts';
import type { Policy } from '../contract/policy.ts';
import { canonicalJson } from '../contract/canonical.ts';
import { Fact, QuarantineEntry } from '../stigmem/wire.ts';

/** One fact of the peer as it was collected. Everything but what our node stamped is the sender's claim. */
export const SeenFact = z.object({
  id: z.string(),
  entity: z.string(),
  relation: z.string(),
  source: z.string(),
  receivedFrom: z.string().nullable(),
  originNodeId: z.string().nullable(),
  /** The entity it is said to have come from; only the host's listing has it. */
  originEntityUri: z.string().nullable().optional(),
  /** null while it waits in quarantine: its value and scope are shown to nobody over HTTP. */
  fact: Fact.nullable(),
  quarantine: QuarantineEntry.nullable(),
  /** By our own node's clock; null when neither its note of receipt nor its stamp could be read. */
  arrivedAt: z.string().nullable(),
  /** Not delivered but written here: the entity of the peer whose API key did it. */
  writtenBy: z.string().optional(),
  /** When it had expired before it was collected, as the node counts: an override before its own end. */
  expiredAt: z.string().nullable().optional(),
});
export type SeenFact = z.infer<typeof SeenFact>;

/** A live fact that is not the peer's on the triple of one that is: ours, or an innocent peer's. */
export const OtherFact = z.object({
  id: z.string(),
  entity: z.string(),
  relation: z.string(),
  scope: z.string(),
  source: z.string(),
  receivedFrom: z.string().nullable(),
  /** Is it missing from the default query right now? null: not asked. */
  hidden: z.boolean().nullable(),
  /** {@link valueId} of what it says; absent where that was not shown. */
  says: z.string().optional(),
});
export type OtherFact = z.infer<typeof OtherFact>;

/** What was built on a fact of the peer, as far as it says so itself. */
export const DerivedFact = z.object({
  id: z.string(),
  from: z.string(),
  source: z.string(),
  entity: z.string(),
  relation: z.string().default(''),
  scope: z.string().default(''),
  receivedFrom: z.string().nullable().default(null),
});
export type DerivedFact = z.infer<typeof DerivedFact>;

/** A tombstone that the peer signed or brought: it hides an entity on our node. */
export const SeenTombstone = z.object({
  id: z.string(),
  entity: z.string(),
  scope: z.string(),
  signedBy: z.string(),
  receivedFrom: z.string().nullable(),
  createdAt: z.string(),
  reason: z.string().nullable(),
});
export type SeenTombstone = z.infer<typeof SeenTombstone>;

/** All that a judgement rests on: collected once, sealed, judged from there. */
export interface Collection {
  readonly facts: readonly SeenFact[];
  readonly others: readonly OtherFact[];
  /** Retractions of ours that are there already: fact id of the peer to the id of our retraction. */
  readonly retracted: ReadonlyMap<string, string>;
  /** Fact id to the ids of the audit events that let it out of quarantine. */
  readonly promoted: ReadonlyMap<string, readonly string[]>;
  readonly derived: readonly DerivedFact[];
  /** Known to the host worker alone. */
  readonly tombstones: readonly SeenTombstone[];
  /** Sources that local writers use. */
  readonly localSources: ReadonlySet<string>;
  /** When the fence went up, by our node's clock; null when that is not known. */
  readonly fencedAt: string | null;
  /** Ids of facts that perhaps are the peer's and that nobody can read. */
  readonly unread: readonly string[];
  readonly complete: boolean;
  readonly coverage: readonly Coverage[];
}

/** Who the peer is and what it was granted. */
export interface PeerNames {
  readonly nodeIds: ReadonlySet<string>;
  readonly entityUris: ReadonlySet<string>;
  /** Empty: not known, and then nothing is called never granted. */
  readonly allowedScopes: ReadonlySet<string>;
}

/** What a rule may look at beside the fact itself. */
export interface RuleContext {
  readonly policy: Policy;
  readonly peer: PeerNames;
  readonly ourEntityUri: string;
  readonly localSources: ReadonlySet<string>;
  readonly promoted: ReadonlyMap<string, readonly string[]>;
  readonly fencedAtMs: number | null;
  /** Ids of facts that came in a burst, with the words for it. */
  readonly bursts: ReadonlyMap<string, string>;
  readonly othersOn: (fact: SeenFact) => readonly OtherFact[];
  /** How many more facts of the peer state something on its triple. */
  readonly theirsOn: (fact: SeenFact) => number;
  readonly derivedFrom: (fact: SeenFact) => readonly DerivedFact[];
  /** Our own retraction of it, if there is one. */
  readonly retractedBy: (fact: SeenFact) => string | undefined;
  /** Arrival in milliseconds, or null; each of a hundred thousand is parsed once. */
  readonly arrivedMs: (fact: SeenFact) => number | null;
  /** When the peer turned: said by an operator, or the first arrival that no honest node could have sent. */
  readonly turnedAtMs: number | null;
  /** First suspicious event in the audit; weaker, since set-up and outages write such events too. */
  readonly auditBadAtMs: number | null;
}

/** Entity, relation and scope as one key. */
export function tripleKey(entity: string, relation: string, scope: string): string {
  return JSON.stringify([entity, relation, scope]);
}

/** Is it the peer's: delivered by it, or said to have come from it through somebody else? */
export function isOfPeer(fact: Pick<SeenFact, 'receivedFrom' | 'originNodeId'>, nodeIds: ReadonlySet<string>): boolean {
  const { receivedFrom, originNodeId } = fact;
  return (receivedFrom !== null && nodeIds.has(receivedFrom)) || (originNodeId !== null && nodeIds.has(originNodeId));
}

/** Did it expire by what its writer said, and not by an override on our node? Over HTTP the two can't be told apart. */
export function hasOwnEnd({ expiredAt, fact }: Pick<SeenFact, 'expiredAt' | 'fact'>): boolean {
  return typeof expiredAt === 'string' && fact?.valid_until === expiredAt;
}

/** What a fact says, whoever says it and whatever type they give it: text or string is the same to a reader. */
export function valueId(value: Fact['value']): string {
  return idOf(value.v ?? null);
}

/** Arrival in milliseconds, or null. */
export function arrivalMs({ arrivedAt }: Pick<SeenFact, 'arrivedAt'>): number | null {
  return instantMs(arrivedAt);
}

/** Milliseconds of an ISO 8601 instant; null for anything else. Date.parse alone takes `5` for a date. */
export function instantMs(text: string | null): number | null {
  if (text === null || !/^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(text)) return null;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? null : ms;
}

/**
 * What an approval is about: the fact as the node gave it, without what the node works out anew at each query
 * (contradicted depends on the page, effective confidence and trust on the hour, redaction on the route). The value
 * stands in by its content id, which the node holds against the row on every read (routes/cid_integrity.py).
 */
export function contentHash(seen: SeenFact): string {
  const { id, entity, relation, source, receivedFrom, originNodeId, fact, quarantine } = seen;
  // What is undefined is left out.
  return idOf({
    cid: fact?.cid ?? undefined,
    confidence: fact?.confidence,
    entity,
    hlc: fact?.hlc,
    id,
    originNodeId,
    quarantine: quarantine?.quarantine_status ?? null,
    receivedFrom,
    relation,
    scope: fact?.scope,
    source,
    timestamp: fact === null ? (quarantine?.timestamp ?? null) : fact.timestamp,
    valid_until: fact?.valid_until,
    value: fact === null || fact.cid !== null ? undefined : fact.sanitizer_redacted ? null : fact.value,
  });
}

/** As sha256Id of the contract does it in the workflow sandbox; outside of it there is a faster way. */
export function idOf(content: unknown): string {
  return `sha256:${createHash('sha256').update(canonicalJson(content)).digest('hex')}`;
}
