import { z } from 'zod';
import { factActions } from '../../src/contract/names.ts';
import type { IncidentRef } from '../../src/contract/steps.ts';
import type { Sealed } from '../../src/evidence/store.ts';
import { effectKey, evidenceOf, seal, type Folder } from '../deps.ts';
import { parsed } from './collection.ts';

/** What became of one fact of a plan. */
export const UndoLine = z.object({
  id: z.string(),
  entity: z.string(),
  relation: z.string(),
  scope: z.string(),
  action: z.enum(factActions),
  /** `done`: read back. `wrong`: the node did something else. `refused`: the node would not. `left`: nothing was to be done. */
  outcome: z.enum(['done', 'wrong', 'refused', 'left']),
  /** Id of the retraction: one for all facts of the plan that share entity, relation and scope. */
  retraction: z.string().optional(),
  /** By the node's clock. */
  at: z.string().optional(),
  /** Of a fact that is not the peer's. */
  derivedFrom: z.string().optional(),
  note: z.string(),
});
export type UndoLine = z.infer<typeof UndoLine>;

const prefix = 'undone';

/** Seals what became of a stretch of the plan. The same stretch again is the same bytes under the same key. */
export async function sealUndone(
  deps: Folder,
  ref: IncidentRef,
  planHash: string,
  from: number | string,
  lines: readonly UndoLine[],
): Promise<Sealed> {
  return seal(deps, ref, `${prefix} ${shortHash(planHash)} from ${from}`, 'undone', lines);
}

/** Everything that is on record as undone (or not) in this round, by fact id; of one plan, or of all. */
export async function readUndone(deps: Folder, ref: IncidentRef, planHash?: string): Promise<Map<string, UndoLine>> {
  const start = effectKey(ref, planHash === undefined ? `${prefix} ` : `${prefix} ${shortHash(planHash)} `);
  const store = await evidenceOf(deps, ref);
  const found = new Map<string, UndoLine>();
  for (const { key, sha256 } of await store.entries()) {
    if (!key.startsWith(start)) continue;
    const id = `sha256:${sha256}`;
    for (const line of parsed(z.array(UndoLine), await store.readJson(id), id)) {
      // Held in one opening and undone in the next is undone; undone and then only listed again stays undone.
      if (line.outcome !== 'left' || (found.get(line.id)?.outcome ?? 'left') === 'left') found.set(line.id, line);
    }
  }
  return found;
}

function shortHash(planHash: string): string {
  return planHash.replace('sha256:', '').slice(0, 12);
}
