import { canonicalJson, planHash } from '../../src/contract/canonical.ts';
import { inlineLimits, type FactAction } from '../../src/contract/names.ts';
import { JudgedFact, type PlanItem, type Residual } from '../../src/contract/schemas.ts';
import type { IncidentRef, PlanRef } from '../../src/contract/steps.ts';
import type { Sealed } from '../../src/evidence/store.ts';
import { evidenceOf, seal, type Folder } from '../deps.ts';
import { parsed } from './collection.ts';

/** Hostile names are cut for showing; the sealed plan has them whole. */
const shownChars = 300;
/** Lines of the sealed plan in one write. */
const linesAtOnce = 200;

/** Seals a plan, sorted by id, and gives what the workflow carries of it. */
export async function sealPlan(
  deps: Folder,
  ref: IncidentRef,
  item: string,
  facts: readonly JudgedFact[],
): Promise<{ plan: PlanRef; sealed: Sealed }> {
  const sorted = [...facts].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  const sealed = await seal(deps, ref, item, 'plan', stream(sorted));
  const counts: Partial<Record<FactAction, number>> = {};
  for (const { action } of sorted) counts[action] = (counts[action] ?? 0) + 1;
  const items = sorted.length <= inlineLimits.items ? sorted.map(shown) : undefined;
  const fits = items !== undefined && Buffer.byteLength(canonicalJson(items)) <= inlineLimits.bytes;
  return {
    plan: { planHash: planHash(sorted), counts, evidenceId: sealed.id, total: sorted.length, ...(fits ? { items } : {}) },
    sealed,
  };
}

/** As the store would write them one by one; a hundred thousand turns of the event loop take a second. */
async function* stream(facts: readonly JudgedFact[]): AsyncGenerator<Uint8Array> {
  for (let from = 0; from < facts.length; from += linesAtOnce) {
    const lines = facts.slice(from, from + linesAtOnce).map((fact) => `${canonicalJson(fact)}\n`);
    yield Buffer.from(lines.join(''));
  }
}

/** The sealed plan, in its order. */
export async function readPlan(deps: Folder, ref: IncidentRef, { evidenceId }: Pick<PlanRef, 'evidenceId'>): Promise<JudgedFact[]> {
  const store = await evidenceOf(deps, ref);
  const facts: JudgedFact[] = [];
  for await (const line of store.lines(evidenceId)) facts.push(parsed(JudgedFact, line, evidenceId));
  return facts;
}

/** Is there something people have to decide, or an activity to do? */
export function isActionable({ action }: Pick<JudgedFact, 'action'>): boolean {
  return action !== 'keep' && action !== 'hold';
}

/** What a plan leaves as it is although it should not stay. */
export function heldResidual(facts: readonly Pick<JudgedFact, 'action' | 'derivedFrom'>[]): Residual[] {
  const held = facts.filter(({ action }) => action === 'hold');
  const derived = held.filter(({ derivedFrom }) => derivedFrom !== undefined).length;
  return [
    {
      what: 'facts of the peer that are held: nothing is done to them',
      why: "a retraction over HTTP would hide facts that are not the peer's, hit another entity or change nothing; the plan has the host operation for each",
      count: held.length - derived,
    },
    {
      what: 'facts of others that were derived from bad ones',
      why: "they are not the peer's: the plan names each with its writer, who decides; the plan has the host operation for each",
      count: derived,
    },
  ].filter(({ count }) => count > 0);
}

function shown({ id, entity, relation, scope, action, way, rule, reason, evidence }: JudgedFact): PlanItem {
  const cut = (text: string) => (text.length > shownChars ? `${text.slice(0, shownChars - 3)}...` : text);
  return { id: cut(id), entity: cut(entity), relation: cut(relation), scope: cut(scope), action, way, rule, reason, evidence };
}
