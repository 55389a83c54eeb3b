import { StigmemHttpError } from '../../src/stigmem/errors.ts';
import { SCOPES, type Fact, type Scope } from '../../src/stigmem/wire.ts';

/** Written on our own node by somebody: not delivered, and not the node's own bookkeeping. */
export function isLocal(fact: Fact): boolean {
  return fact.received_from === null && !isSystem(fact.entity) && !isSystem(fact.relation);
}

/** Above 0, so that it counts beside the fact it is against; far below whatever an honest writer states. */
export const counterConfidence = 0.01;

/** A statement of ours against a fact of the peer names it as its origin too, and is nothing that was built on it. */
export function isCounter({ confidence, receivedFrom }: { readonly confidence: number; readonly receivedFrom: string | null }): boolean {
  return receivedFrom === null && confidence <= counterConfidence;
}

/** The scope a text names, if it is one. */
export function scopeOf(scope: string): Scope | undefined {
  return SCOPES.find((known) => known === scope);
}

/**
 * The answer, or in words why there is none. One fact can make the node fail with a 500 on whatever would show it:
 * that is something to be told, not an outage to wait for.
 */
export async function answered<T extends object>(question: () => Promise<T>): Promise<T | string> {
  try {
    return await question();
  } catch (error) {
    if (error instanceof StigmemHttpError && [400, 422, 500].includes(error.status)) return error.message.slice(0, 200);
    throw error;
  }
}

/** Quarantined, so that nobody but the default query's hiding knows of it. */
export const notLive: ReadonlySet<string> = new Set(['pending', 'rejected']);

/** Our node stamps a fact's HLC as it comes in (federation_ingest.py, ingest_fact): near enough where the note of receipt can't be read. */
export function stampedAt(fact: Fact | null): string | null {
  const wall = Number(/^(\d{12,14})\./.exec(fact?.hlc ?? '')?.[1]);
  return Number.isNaN(wall) ? null : new Date(wall).toISOString();
}

/** When it ended, where that is past; the node compares times as texts (routes/facts/query.py), and so does this. */
export function expiredAt(validUntil: string | null): string | null {
  return validUntil !== null && validUntil <= new Date().toISOString() ? validUntil : null;
}

function isSystem(name: string): boolean {
  return name.startsWith('stigmem:') && !name.startsWith('stigmem://');
}
