import { JudgedFact } from '../contract/schemas.ts';

/** What notices may know of a plan: no rule, no reason, no value, no entity. */
export interface PlanFacts {
  /** Scopes of facts that are not kept, sorted. */
  readonly scopes: readonly string[];
  /** At most 20 ids of facts of the peer that are not kept. */
  readonly examples: readonly string[];
  /** Facts of the peer that are not kept. */
  readonly affected: number;
  /** Lines that are no judged fact: the scopes may be incomplete. */
  readonly unreadable: number;
}

const maxScopes = 100;
const maxExamples = 20;

/** Reads the sealed plan line by line, in constant memory. */
export async function readPlanFacts(lines: AsyncIterable<unknown>): Promise<PlanFacts> {
  const scopes = new Set<string>();
  const examples: string[] = [];
  let affected = 0;
  let unreadable = 0;
  for await (const line of lines) {
    const parsed = JudgedFact.pick({ id: true, scope: true, action: true, derivedFrom: true }).safeParse(line);
    if (!parsed.success) {
      unreadable += 1;
      continue;
    }
    const { id, scope, action, derivedFrom } = parsed.data;
    if (action === 'keep' || action === 'lift') continue;
    // A fact in quarantine shows no scope to anybody over HTTP.
    if (scope !== '' && scopes.size < maxScopes) scopes.add(scope);
    // What others made of it may be read where the fact itself is not, but it is none of the peer's.
    if (derivedFrom !== undefined) continue;
    affected += 1;
    if (examples.length < maxExamples) examples.push(id);
  }
  return { scopes: [...scopes].toSorted(), examples, affected, unreadable };
}
