import { SCOPES, type Fact, type Scope } from '../../src/stigmem/wire.ts';

/** Written on our own node by somebody: not delivered, and not the node's own bookkeeping. */
export function isLocal(fact: Fact): boolean {
  return fact.received_from === null && !isSystem(fact.entity) && !isSystem(fact.relation);
}

/** The scope a text names, if it is one. */
export function scopeOf(scope: string): Scope | undefined {
  return SCOPES.find((known) => known === scope);
}

function isSystem(name: string): boolean {
  return name.startsWith('stigmem:') && !name.startsWith('stigmem://');
}
