import { StigmemHttpError } from '../../src/stigmem/errors.ts';
import { SCOPES, type Fact, type Scope } from '../../src/stigmem/wire.ts';

/** Written on our own node by somebody: not delivered, and not the node's own bookkeeping. */
export function isLocal(fact: Fact): boolean {
  return fact.received_from === null && !isSystem(fact.entity) && !isSystem(fact.relation);
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

function isSystem(name: string): boolean {
  return name.startsWith('stigmem:') && !name.startsWith('stigmem://');
}
