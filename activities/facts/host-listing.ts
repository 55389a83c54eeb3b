import { z } from 'zod';
import type { Coverage } from '../../src/contract/schemas.ts';
import type { EvidenceStore } from '../../src/evidence/store.ts';
import { HostFact } from '../../src/host/facts.ts';
import { HostTombstone } from '../../src/host/tombstones.ts';
import { Derived, Recaller } from '../../src/host/traces.ts';
import type { DerivedFact, SeenFact, SeenTombstone } from '../../src/policy/facts.ts';
import type { Fact } from '../../src/stigmem/wire.ts';
import { StepFailure } from '../failures.ts';
import { parsed } from './collection.ts';
import { byKeyCoverage } from './by-key.ts';
import { expiredAt, isCounter, notLive, stampedAt } from './shape.ts';
import { afterCoverage, recallCoverage, tombstoneCoverage } from './spread.ts';

/** One line of what the host worker listed, the database's rows as they are. */
export const HostLine = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('listing'), counted: z.int(), localSources: z.array(z.string()), fencedAt: z.string().nullish() }),
  z.object({ kind: z.literal('fact'), row: HostFact }),
  z.object({ kind: z.literal('other'), row: HostFact }),
  z.object({ kind: z.literal('derived'), derived: Derived }),
  z.object({ kind: z.literal('tombstone'), row: HostTombstone }),
  z.object({ kind: z.literal('recaller'), recaller: Recaller }),
  z.object({ kind: z.literal('after'), id: z.string(), entity: z.string(), source: z.string() }),
]);
export type HostLine = z.infer<typeof HostLine>;

/** What the host worker listed, in the words of a collection. */
export interface Listed {
  readonly facts: readonly SeenFact[];
  /** Live facts of others on the triples of the peer's. */
  readonly others: readonly Fact[];
  readonly retracted: ReadonlyMap<string, string>;
  readonly derived: readonly DerivedFact[];
  readonly tombstones: readonly SeenTombstone[];
  readonly localSources: ReadonlySet<string>;
  /** When the door was shut on the host; null when it is not, or that is not on record there. */
  readonly shutAt: string | null;
  readonly complete: boolean;
  readonly coverage: readonly Coverage[];
}

/** Reads a sealed listing. */
export async function readListing(store: EvidenceStore, id: string): Promise<Listed> {
  const facts: SeenFact[] = [];
  const others: Fact[] = [];
  const derived: DerivedFact[] = [];
  const tombstones: SeenTombstone[] = [];
  const retracted = new Map<string, string>();
  const recallers: Recaller[] = [];
  const content = new Map<string, string>();
  let after = 0;
  let head: Extract<HostLine, { kind: 'listing' }> | undefined;
  for await (const raw of store.lines(id)) {
    const line = parsed(HostLine, raw, id);
    switch (line.kind) {
      case 'listing':
        head = line;
        break;
      case 'fact':
        facts.push(seenOf(line.row));
        content.set(line.row.id, line.row.id);
        if (line.row.cid !== null) content.set(line.row.cid, line.row.id);
        break;
      case 'other':
        if (isLive(line.row)) others.push(factOf(line.row));
        break;
      case 'derived':
        // The peer's own is judged as a fact of the peer.
        if (content.has(line.derived.id)) break;
        for (const said of line.derived.from) {
          const { received_from: receivedFrom, confidence, from: _from, ...rest } = line.derived;
          const from = content.get(said);
          if (from === undefined) continue;
          if (confidence === 0 && receivedFrom === null) retracted.set(from, rest.id);
          else if (!isCounter({ confidence, receivedFrom })) derived.push({ ...rest, from, receivedFrom });
        }
        break;
      case 'tombstone':
        tombstones.push(tombstoneOf(line.row));
        break;
      case 'recaller':
        recallers.push(line.recaller);
        break;
      case 'after':
        after += 1;
        break;
    }
  }
  if (head === undefined) throw new StepFailure('EvidenceUnavailable', `${id} holds no listing of facts`);
  // What came in while it was being listed is more, never less.
  const complete = facts.length >= head.counted;
  return {
    facts,
    others,
    retracted,
    derived,
    tombstones,
    localSources: new Set(head.localSources),
    shutAt: head.fencedAt ?? null,
    complete,
    coverage: [
      {
        what: 'facts of the peer',
        seen: facts.length,
        complete,
        why: `${facts.length} of ${head.counted} by query on the host: what it delivered, what names it as its origin, and what its keys wrote here`,
      },
      { what: 'facts of others on the same entity, relation and scope', seen: others.length, complete: true, why: 'by query on the host' },
      {
        what: "facts derived from the peer's",
        seen: derived.length,
        complete: false,
        why: 'among all facts, those that say so; a fact need not say what it was derived from',
      },
      byKeyCoverage(facts.filter(({ writtenBy }) => writtenBy !== undefined).length, true, 'by query on the host'),
      {
        what: tombstoneCoverage,
        seen: tombstones.length,
        complete: true,
        why: 'by query on the host; they hide anything only while the node runs its tombstones plugin with the filter on',
      },
      {
        what: afterCoverage,
        seen: after,
        complete: true,
        why: 'by query on the host; whether a writer had recalled a fact of the peer is recorded nowhere',
      },
      {
        what: recallCoverage,
        seen: new Set(recallers.map(({ caller }) => caller)).size,
        complete: false,
        why: `who recalled anything in their scopes since the first arrived; recall_audit_log has no fact ids: ${callerWords(recallers)}`,
      },
    ],
  };
}

function callerWords(recallers: readonly Recaller[]): string {
  const words = recallers
    .slice(0, 10)
    .map(({ caller, scope, times, last }) => `${caller ?? 'unknown'} ${times} times in ${scope}, last ${last}`);
  return words.length === 0 ? 'none' : words.join('; ');
}

/** As GET /v1/facts gives it; what the node works out at each query is left at its default. */
function factOf(row: HostFact): Fact {
  return {
    ...row,
    value: { type: row.value_type, v: valueOf(row), interpret_as: row.interpret_as },
    contradicted: false,
    quarantine_garden_id: null,
    effective_confidence: null,
    sanitizer_redacted: false,
    warnings: [],
  };
}

function valueOf({ value_type: type, value_v: text }: HostFact): unknown {
  // A sender may call any text a number. The node answers 500 for such a fact; the evidence takes no NaN.
  if (type === 'number') return text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text;
  if (type === 'boolean') return text === 'true';
  return type === 'null' ? null : text;
}

function seenOf(row: HostFact): SeenFact {
  const {
    id,
    entity,
    relation,
    source,
    timestamp,
    received_from,
    origin_node_id,
    arrived_at,
    written_by,
    quarantine_status,
    quarantine_reason,
  } = row;
  const fact = factOf(row);
  return {
    id,
    entity,
    relation,
    source,
    receivedFrom: received_from,
    originNodeId: origin_node_id,
    originEntityUri: row.origin_entity_uri,
    fact,
    quarantine:
      quarantine_status === null
        ? null
        : {
            fact_id: id,
            entity,
            relation,
            source,
            quarantine_status,
            quarantine_garden_id: null,
            quarantine_reason,
            quarantine_acted_by: null,
            quarantine_acted_at: null,
            source_trust: null,
            received_from,
            timestamp,
          },
    arrivedAt: arrived_at ?? stampedAt(fact),
    expiredAt: expiredAt(endOf(row)),
    // Neither delivered nor relayed: a key of the peer wrote it.
    ...(received_from === null && origin_node_id === null && written_by !== null ? { writtenBy: written_by } : {}),
  };
}

function tombstoneOf({
  id,
  entity_uri: entity,
  scope,
  signed_by: signedBy,
  received_from,
  created_at,
  reason,
}: HostTombstone): SeenTombstone {
  return { id, entity, scope, signedBy, receivedFrom: received_from, createdAt: created_at, reason };
}

function endOf({ valid_until: until, override_valid_until: over }: HostFact): string | null {
  return over ?? until;
}

function isLive(row: HostFact): boolean {
  return row.confidence > 0 && !notLive.has(row.quarantine_status ?? '') && expiredAt(endOf(row)) === null;
}
