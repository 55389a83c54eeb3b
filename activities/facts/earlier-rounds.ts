import type { IncidentRef } from '../../src/contract/steps.ts';
import { valueId } from '../../src/policy/facts.ts';
import type { UndoneFact } from '../../src/policy/returning.ts';
import { evidenceOf, type Folder } from '../deps.ts';
import { findCollection, readCollection } from './collection.ts';
import { readUndone } from './undo-log.ts';

/** What was undone in this incident, in all its rounds, and which sources local writers use. */
export async function earlierRounds(deps: Folder, ref: IncidentRef): Promise<{ undone: UndoneFact[]; localSources: ReadonlySet<string> }> {
  const store = await evidenceOf(deps, ref);
  const undone: UndoneFact[] = [];
  let localSources: ReadonlySet<string> = new Set();
  for (let round = 1; round <= ref.round; round += 1) {
    const of: IncidentRef = { ...ref, round };
    const collected = await findCollection(deps, of);
    const collection = collected === undefined ? undefined : await readCollection(store, collected);
    if (collection !== undefined) ({ localSources } = collection);
    const says = new Map(collection?.facts.flatMap(({ id, fact }) => (fact === null ? [] : [[id, valueId(fact.value)] as const])));
    for (const { id, entity, relation, scope, outcome } of (await readUndone(deps, { ...of, phase: 'retract' })).values()) {
      const value = says.get(id);
      if (outcome === 'done') undone.push({ id, entity, relation, scope, ...(value === undefined ? {} : { says: value }) });
    }
  }
  return { undone, localSources };
}
