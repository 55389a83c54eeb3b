import { tripleKey, type Collection, type DerivedFact, type OtherFact, type RuleContext, type SeenFact } from './facts.ts';

/** What stands around the peer's facts, found once for all of them. */
export interface Relations {
  readonly othersOn: RuleContext['othersOn'];
  /** How many live facts of the peer stand on a triple. */
  readonly triples: ReadonlyMap<string, number>;
  readonly derived: ReadonlyMap<string, readonly DerivedFact[]>;
}

export function relationsOf({ others, derived }: Collection, facts: readonly SeenFact[]): Relations {
  const triples = new Map<string, number>();
  for (const seen of facts) {
    if (!isStated(seen)) continue;
    const key = ownTriple(seen);
    triples.set(key, (triples.get(key) ?? 0) + 1);
  }
  return { othersOn: othersIndex(others), triples, derived: grouped(derived, ({ from }) => from) };
}

/** Does it state something, as a retraction does not? */
export function isStated({ fact }: SeenFact): boolean {
  return fact !== null && fact.confidence > 0;
}

export function ownTriple({ entity, relation, fact }: SeenFact): string {
  return tripleKey(entity, relation, fact?.scope ?? '');
}

function grouped<T>(others: readonly T[], keyOf: (other: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const other of others) {
    const group = groups.get(keyOf(other));
    if (group) group.push(other);
    else groups.set(keyOf(other), [other]);
  }
  return groups;
}

/** A fact in quarantine shows no scope: whatever shares its entity and relation may be what it hides. */
function othersIndex(others: readonly OtherFact[]): RuleContext['othersOn'] {
  if (others.length === 0) return () => [];
  const byTriple = grouped(others, ({ entity, relation, scope }) => tripleKey(entity, relation, scope));
  const byPair = grouped(others, ({ entity, relation }) => tripleKey(entity, relation, ''));
  return ({ entity, relation, fact }) =>
    (fact === null ? byPair.get(tripleKey(entity, relation, '')) : byTriple.get(tripleKey(entity, relation, fact.scope))) ?? [];
}
