import type { Coverage } from '../../src/contract/schemas.ts';
import type { PeerRef } from '../../src/contract/steps.ts';
import { authorityOf } from '../../src/policy/entity.ts';
import type { SeenFact } from '../../src/policy/facts.ts';
import { StigmemHttpError } from '../../src/stigmem/errors.ts';
import { atItsPace } from '../../src/stigmem/pace.ts';
import type { AuditEvent, Fact } from '../../src/stigmem/wire.ts';
import { cancelSignal, type Deps } from '../deps.ts';
import { beat } from '../heartbeat.ts';
import { inLanes, readLanes } from './lanes.ts';
import { expiredAt } from './shape.ts';

/** Whose key wrote a fact here, and when, by our own clock. */
export interface Written {
  readonly by: string;
  readonly at: string;
}

/**
 * Names of the peer whose keys count as its own: its entity URI and node_ids. None under our own authority, and none at
 * all while ours is not known: a key of ours must never be taken for the peer's.
 */
export function writersOf(peer: PeerRef | null, ours: string): string[] {
  if (peer === null || ours === '') return [];
  const authority = authorityOf(ours);
  const isOurs = (name: string): boolean => name === ours || (authority !== null && authorityOf(name) === authority);
  return [peer.entityUri, ...peer.nodeIds].filter((name) => name !== '' && !isOurs(name));
}

/** Facts that were written here with an API key issued to one of these entities, as the audit has them, by id. */
export function writtenWithKeysOf(audit: readonly AuditEvent[], entities: readonly string[]): ReadonlyMap<string, Written> {
  return new Map(
    audit.flatMap(({ event_type, entity_uri: by, fact_id, ts: at }) =>
      event_type === 'fact_write' && by !== null && entities.includes(by) && fact_id !== null ? [[fact_id, { by, at }] as const] : [],
    ),
  );
}

/** What its keys wrote here: not delivered by federation, and in the plan all the same. */
export function byKeyCoverage(seen: number, complete: boolean, how: string): Coverage {
  const why = `${how}; keys of other entities it was given are not known`;
  return { what: 'facts written here with an API key issued to the peer', seen, complete, why };
}

/** The facts themselves, one by one where no page has shown them; `unread`: the node does not show them. */
export async function readByKey(
  deps: Deps,
  written: ReadonlyMap<string, Written>,
  cache: Map<string, Fact>,
): Promise<{ readonly facts: readonly SeenFact[]; readonly unread: readonly string[] }> {
  const facts: SeenFact[] = [];
  const unread: string[] = [];
  await inLanes([...written], readLanes, async ([id, { by, at }]) => {
    const fact = cache.get(id) ?? (await shown(deps, id));
    beat();
    if (fact === undefined) unread.push(id);
    // An id that came by federation is judged as that.
    else if (fact.received_from === null) {
      cache.set(id, fact);
      facts.push({ ...seenHere(fact), arrivedAt: at, writtenBy: by });
    }
  });
  return { facts, unread };
}

async function shown(deps: Deps, id: string): Promise<Fact | undefined> {
  try {
    return await atItsPace(() => deps.node.fact(id, cancelSignal()), cancelSignal());
  } catch (error) {
    if (error instanceof StigmemHttpError && [400, 404, 422, 500].includes(error.status)) return undefined;
    throw error;
  }
}

function seenHere(fact: Fact): SeenFact {
  const { id, entity, relation, source, origin_node_id: originNodeId, timestamp, valid_until: until } = fact;
  const base = { id, entity, relation, source, receivedFrom: null, originNodeId, quarantine: null };
  return { ...base, fact, arrivedAt: timestamp, expiredAt: expiredAt(until) };
}
