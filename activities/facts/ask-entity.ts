import { z } from 'zod';
import { StigmemHttpError } from '../../src/stigmem/errors.ts';
import { cancelSignal, type Deps } from '../deps.ts';
import { atItsPace } from '../../src/stigmem/pace.ts';
import type { Scope } from '../../src/stigmem/wire.ts';

/** One entity in one scope, with the facts on it that were undone. */
export interface Touched {
  readonly entity: string;
  readonly scope: Scope;
  readonly facts: readonly {
    readonly id: string;
    readonly relation: string;
    readonly value: string;
    readonly cid: string | null;
    /** Somebody else says the same on the triple, so that a text which tells it may tell theirs. */
    readonly alsoSaid: boolean;
  }[];
}

export const surfaces = ['facts', 'card', 'recallPoison', 'recallBenign', 'recallCard'] as const;
export type Surface = (typeof surfaces)[number];

/** What an ordinary agent got: per surface the ids that still answer, and the questions the node did not answer. */
export const EntityAnswer = z.object({
  entity: z.string(),
  scope: z.string(),
  still: z.record(z.enum(surfaces), z.array(z.string())),
  unanswered: z.array(z.string()),
});
export type EntityAnswer = z.infer<typeof EntityAnswer>;

/** Values shorter than this are found in any text. */
const tellingChars = 3;
const maxQueryChars = 500;
export const maxPoisonQueries = 20;

/**
 * What recall was already seen to answer with, in one scope. An answer holds up to 500 facts, so on a node where
 * retracting does not help a few questions tell about all of them; on one where it does, each is asked for.
 */
export interface Recalled {
  /** Every undone fact of the scope, by id and by entity: a card tells of one entity, and there may be thousands of both. */
  readonly ids: Set<string>;
  readonly byEntity: Map<string, Touched['facts'][number][]>;
  readonly recallPoison: Set<string>;
  readonly recallBenign: Set<string>;
  /** Told by a memory card that recall gave. */
  readonly recallCard: Set<string>;
}

/** Asks one entity as an ordinary agent would: facts, card, and recall by the poison's words and by benign ones. */
export async function askEntity(deps: Deps, touched: Touched, recalled: Recalled): Promise<EntityAnswer> {
  const { entity, scope, facts } = touched;
  const still: EntityAnswer['still'] = { facts: [], card: [], recallPoison: [], recallBenign: [], recallCard: [] };
  const unanswered: string[] = [];
  const ids = new Set(facts.map(({ id }) => id));
  // One fact can make the node fail on whatever would show it: that is an answer to be told, not an outage. There may be no
  // card; where the query itself is not found, it is not about this entity.
  const ask = async (name: Surface, question: () => Promise<readonly string[]>): Promise<void> => {
    try {
      const shown = await atItsPace(question, cancelSignal());
      still[name] = [...new Set([...still[name], ...shown])];
    } catch (error) {
      const told = name === 'facts' ? [400, 422, 500] : [400, 404, 422, 500];
      if (!(error instanceof StigmemHttpError) || !told.includes(error.status)) throw error;
      if (name !== 'card' || error.status !== 404) unanswered.push(`${name}: ${error.message.slice(0, 200)}`);
    }
  };
  await ask('facts', async () => {
    const page = await deps.node.agentFactsPage({ entity, scope, limit: 500 }, cancelSignal());
    return page.facts.filter((fact) => ids.has(fact.id) && fact.confidence > 0).map(({ id }) => id);
  });
  await ask('card', async () => {
    const { summary, fact_hashes: hashes } = await deps.node.card(entity, scope, cancelSignal());
    return facts
      .filter((fact) => hashes.includes(fact.id) || (fact.cid !== null && hashes.includes(fact.cid)) || tells(summary, fact))
      .map(({ id }) => id);
  });
  const recall = async (name: 'recallPoison' | 'recallBenign', query: string): Promise<void> =>
    ask(name, async () => {
      const asked = { query: query.slice(0, maxQueryChars), scope, min_confidence: 0, token_budget: 200_000, limit: 500 };
      const answer = await deps.node.recall(asked, cancelSignal());
      const seen = recalled[name];
      for (const { fact, from_card: isCard } of answer.facts) {
        if (recalled.ids.has(fact.id)) seen.add(fact.id);
        if (!isCard) continue;
        const card = text(fact.value.v);
        for (const one of recalled.byEntity.get(fact.entity) ?? []) if (tells(card, one)) recalled.recallCard.add(one.id);
      }
      return [];
    });
  let queries = 0;
  for (const { id, value } of facts) {
    if (recalled.recallPoison.has(id) || value.trim() === '') continue;
    if (queries === maxPoisonQueries) {
      unanswered.push(
        `recallPoison: more than ${maxPoisonQueries} undone facts on this entity that recall does not show; the rest was not asked for`,
      );
      break;
    }
    queries += 1;
    await recall('recallPoison', value);
  }
  if (!facts.every(({ id }) => recalled.recallBenign.has(id))) await recall('recallBenign', benignWords(entity, facts[0]?.relation ?? ''));
  for (const name of ['recallPoison', 'recallBenign', 'recallCard'] as const)
    still[name] = facts.filter(({ id }) => recalled[name].has(id)).map(({ id }) => id);
  return { entity, scope, still, unanswered };
}

/** What somebody would ask who knows nothing of the poison: the entity's name and the relation. */
function benignWords(entity: string, relation: string): string {
  const words = `${entity.split('/').at(-1) ?? entity} ${relation.split(':').at(-1) ?? relation}`.replace(/[^\p{L}\p{N}]+/gu, ' ').trim();
  return words === '' ? 'what is known' : words;
}

function tells(where: string, { value, alsoSaid }: Touched['facts'][number]): boolean {
  return !alsoSaid && value.length >= tellingChars && where.includes(value);
}

/** A value as the words one would search for. */
export function text(value: unknown): string {
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
}
