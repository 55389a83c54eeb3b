import { tripleKey, type OtherFact } from '../../src/policy/facts.ts';
import { atItsPace } from '../../src/stigmem/pace.ts';
import type { Scope } from '../../src/stigmem/wire.ts';
import { cancelSignal, type Deps } from '../deps.ts';
import { beat } from '../heartbeat.ts';
import { answered, scopeOf } from './shape.ts';

/** Which of the undone facts the summary of a scope still lists with confidence. One question a scope. */
export async function askSynthesis(
  deps: Deps,
  scopes: ReadonlySet<Scope>,
  ids: ReadonlySet<string>,
): Promise<{ still: string[]; unanswered: string[] }> {
  const still: string[] = [];
  const unanswered: string[] = [];
  for (const scope of scopes) {
    const asked = await answered(() => atItsPace(() => deps.node.synthesize(scope, { limit: 1_000 }, cancelSignal()), cancelSignal()));
    beat();
    if (typeof asked === 'string') unanswered.push(`synthesize ${scope}: ${asked}`);
    else still.push(...asked.facts.filter(({ id, confidence }) => ids.has(id) && confidence > 0).map(({ id }) => id));
  }
  return { still, unanswered };
}

/** So that they are asked within the node's hourly limit of reads. */
const maxTriples = 3_000;

/** Are the facts of others on the peer's triples visible to an ordinary agent? One question a triple. */
export async function askOurs(
  deps: Deps,
  others: readonly OtherFact[],
): Promise<{ visible: string[]; hidden: string[]; newlyHidden: string[]; unanswered: string[] }> {
  const result: Record<'visible' | 'hidden' | 'newlyHidden' | 'unanswered', string[]> = {
    visible: [],
    hidden: [],
    newlyHidden: [],
    unanswered: [],
  };
  const shown = new Map<string, ReadonlySet<string> | null>();
  for (const { id, entity, relation, scope: name, hidden } of others) {
    const key = tripleKey(entity, relation, name);
    const scope = scopeOf(name);
    if (!shown.has(key) && scope !== undefined) {
      if (shown.size >= maxTriples) {
        result.unanswered.push(`ours on ${entity.slice(0, 100)}: not asked, more than ${maxTriples} of them`);
        shown.set(key, null);
        continue;
      }
      const asked = await answered(() =>
        atItsPace(() => deps.node.agentFactsPage({ entity, relation, scope, limit: 500 }, cancelSignal()), cancelSignal()),
      );
      beat();
      if (typeof asked === 'string') result.unanswered.push(`ours on ${entity.slice(0, 100)}: ${asked}`);
      shown.set(key, typeof asked === 'string' ? null : new Set(asked.facts.map((fact) => fact.id)));
    }
    const visible = shown.get(key);
    if (!visible) continue;
    if (visible.has(id)) result.visible.push(id);
    else if (hidden === false) result.newlyHidden.push(id);
    else result.hidden.push(id);
  }
  return result;
}
