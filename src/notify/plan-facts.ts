import { JudgedFact } from '../contract/schemas.ts';

/** What notices may know of a plan: no rule, no reason, no value, no entity. */
export interface PlanFacts {
  /** Scopes of facts that are not kept, sorted. */
  readonly scopes: readonly string[];
  /** At most 20 fact ids that are not kept. */
  readonly examples: readonly string[];
  /** Facts that are not kept. */
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
    const parsed = JudgedFact.pick({ id: true, scope: true, action: true }).safeParse(line);
    if (!parsed.success) {
      unreadable += 1;
      continue;
    }
    const { id, scope, action } = parsed.data;
    if (action === 'keep') continue;
    affected += 1;
    // A fact in quarantine shows no scope to anybody over HTTP.
    if (scope !== '' && scopes.size < maxScopes) scopes.add(scope);
    if (examples.length < maxExamples) examples.push(id);
  }
  return { scopes: [...scopes].toSorted(), examples, affected, unreadable };
}
