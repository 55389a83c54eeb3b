import type { Coverage } from '../../src/contract/schemas.ts';
import type { PeerRef } from '../../src/contract/steps.ts';
import { arrivalMs, instantMs, type SeenFact } from '../../src/policy/facts.ts';
import type { Fact } from '../../src/stigmem/wire.ts';
import { cancelSignal, type Deps } from '../deps.ts';
import { isLocal } from './shape.ts';

export const afterCoverage = 'local facts written after a fact of the peer on the same entity';
/** What the host worker alone can list. */
export const tombstoneCoverage = 'tombstones of the peer';
export const recallCoverage = "callers that recalled the peer's facts";

/** Which peers may have pulled the peer's facts from us. */
export async function readersCoverage(deps: Deps, peer: PeerRef | null, facts: readonly SeenFact[]): Promise<Coverage> {
  const scopes = new Set(facts.flatMap(({ fact }) => (fact ? [fact.scope] : [])));
  const rows = await deps.node.peers(cancelSignal());
  const readers = rows.filter(
    ({ peer_id: id, status, allowed_scopes: allowed }) =>
      status === 'active' && peer !== null && !peer.peerIds.includes(id) && allowed.some((scope) => scopes.has(scope)),
  );
  const names = readers.slice(0, 10).map(({ node_id }) => node_id.slice(0, 100));
  return {
    what: "peers whose scopes cover the peer's facts",
    seen: readers.length,
    complete: false,
    why: `not knowable on this node: it records neither who pulled nor what; they may have: ${names.join(', ') || 'none'}. With relay off (the default) a peer's fact does not go further by itself`,
  };
}

/** Who may have used what: as far as HTTP lets anyone know, the rest said as not knowable. */
export function spreadCoverage(facts: readonly SeenFact[], everyFact: readonly Fact[]): Coverage[] {
  return [
    {
      what: afterCoverage,
      seen: writtenAfter(facts, everyFact),
      complete: false,
      why: 'by agents that may have read it: nothing records which fact a writer had recalled',
    },
    {
      what: recallCoverage,
      seen: 0,
      complete: false,
      why: 'not knowable on this node: recall_audit_log (host only) has caller, scope and time but no fact ids, and fact_recall_signals is never written',
    },
  ];
}

function writtenAfter(facts: readonly SeenFact[], everyFact: readonly Fact[]): number {
  const first = new Map<string, number>();
  for (const seen of facts) {
    const at = arrivalMs(seen);
    if (at !== null) first.set(seen.entity, Math.min(at, first.get(seen.entity) ?? at));
  }
  return everyFact.filter((fact) => {
    const since = first.get(fact.entity);
    const written = instantMs(fact.timestamp);
    return since !== undefined && written !== null && written >= since && fact.confidence > 0 && isLocal(fact);
  }).length;
}
