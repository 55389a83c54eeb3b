import { z } from 'zod';
import type { Coverage } from '../../src/contract/schemas.ts';
import type { PeerRef } from '../../src/contract/steps.ts';
import type { EvidenceStore } from '../../src/evidence/store.ts';
import { HostFact } from '../../src/host/facts.ts';
import { Derived, Recaller } from '../../src/host/traces.ts';
import { isOfPeer, type DerivedFact, type SeenFact } from '../../src/policy/facts.ts';
import type { Fact } from '../../src/stigmem/wire.ts';
import { StepFailure } from '../failures.ts';
import { parsed } from './collection.ts';
import { notLive, stampedAt } from './shape.ts';
import { afterCoverage, recallCoverage } from './spread.ts';

/** One line of what the host worker listed, the database's rows as they are. */
export const HostLine = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('listing'), counted: z.int(), localSources: z.array(z.string()) }),
  z.object({ kind: z.literal('fact'), row: HostFact }),
  z.object({ kind: z.literal('other'), row: HostFact }),
  z.object({ kind: z.literal('derived'), derived: Derived }),
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
  readonly localSources: ReadonlySet<string>;
  readonly complete: boolean;
  readonly coverage: readonly Coverage[];
}

/** Reads a sealed listing. */
export async function readListing(store: EvidenceStore, id: string, peer: PeerRef): Promise<Listed> {
  const nodeIds = new Set(peer.nodeIds);
  const facts: SeenFact[] = [];
  const others: Fact[] = [];
  const derived: DerivedFact[] = [];
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
        for (const said of line.derived.from) {
          const from = content.get(said);
          if (from === undefined || isOfPeer({ receivedFrom: line.derived.received_from, originNodeId: null }, nodeIds)) continue;
          if (line.derived.confidence === 0 && line.derived.received_from === null) retracted.set(from, line.derived.id);
          else derived.push({ id: line.derived.id, from, source: line.derived.source, entity: line.derived.entity });
        }
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
    localSources: new Set(head.localSources),
    complete,
    coverage: [
      {
        what: 'facts of the peer',
        seen: facts.length,
        complete,
        why: `${facts.length} of ${head.counted} by query on the host: what it delivered, and what names it as its origin`,
      },
      { what: 'facts of others on the same entity, relation and scope', seen: others.length, complete: true, why: 'by query on the host' },
      {
        what: "facts derived from the peer's",
        seen: derived.length,
        complete: false,
        why: 'among all facts, those that say so; a fact need not say what it was derived from',
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
  if (type === 'number') return Number(text);
  if (type === 'boolean') return text === 'true';
  return type === 'null' ? null : text;
}

function seenOf(row: HostFact): SeenFact {
  const { id, entity, relation, source, timestamp, received_from, origin_node_id, arrived_at, quarantine_status, quarantine_reason } = row;
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
  };
}

function isLive({ confidence, valid_until: until, override_valid_until: over, quarantine_status: status }: HostFact): boolean {
  const now = new Date().toISOString();
  const ends = over ?? until;
  return confidence > 0 && !notLive.has(status ?? '') && (ends === null || ends > now);
}
