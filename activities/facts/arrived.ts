import type { SeenFact } from '../../src/policy/facts.ts';
import { StigmemHttpError } from '../../src/stigmem/errors.ts';
import type { Fact, QuarantineEntry } from '../../src/stigmem/wire.ts';
import { cancelSignal, type Deps } from '../deps.ts';
import { beat } from '../heartbeat.ts';

/** A fact as our node has it now, in facts or in quarantine; undefined where it shows neither. */
export async function readArrived(
  { node }: Deps,
  { id, arrivedAt }: { readonly id: string; readonly arrivedAt: string | null },
  quarantined: readonly QuarantineEntry[],
): Promise<SeenFact | undefined> {
  beat();
  const fact = await factOrNone(() => node.fact(id, cancelSignal()));
  const waits = quarantined.find(({ fact_id: of }) => of === id);
  const of = fact ?? waits;
  if (of === undefined) return undefined;
  const { entity, relation, source, received_from: receivedFrom } = of;
  const originNodeId = fact?.origin_node_id ?? null;
  return { id, entity, relation, source, receivedFrom, originNodeId, fact: fact ?? null, quarantine: waits ?? null, arrivedAt };
}

async function factOrNone(read: () => Promise<Fact>): Promise<Fact | undefined> {
  try {
    return await read();
  } catch (error) {
    // Waits in quarantine, or behind a tombstone.
    if (error instanceof StigmemHttpError && error.status === 404) return undefined;
    throw error;
  }
}
