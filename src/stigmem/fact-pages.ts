import type { Stigmem } from './client.ts';
import { StigmemHttpError, StigmemSchemaError } from './errors.ts';
import { RECEIVED_FROM } from './fact-index.ts';
import type { Meter } from './paging.ts';
import type { FactsQuery } from './requests.ts';
import { sweep, type SweepPage } from './sweep.ts';
import type { Fact, Scope } from './wire.ts';

/**
 * One stored fact can turn every page that holds it into a 500 (a `number` that is none: models/facts.py, _parse_v).
 * Shorter pages then show what is newer than that fact; cursor, relation and source lead around it.
 */
const LIMITS = [500, 100, 20, 1] as const;
const CONCURRENCY = 6;
/** Requests one scope may cost: a peer that invents a relation for each fact must not buy itself endless paging. */
const MAX_PAGES = 240;
/** Pending facts stay hidden all the same: recall/recall_pipeline.py, apply_recall_pipeline. */
const EVERYTHING = { include_contradicted: true, include_expired: true, include_low_trust: true } as const;

/**
 * Reads as much of one scope as pages show, into `facts`: the scope, then each relation seen in it, then each source
 * seen under such a relation, until as many are seen as the node counts. Relations, sources and entities are chosen by
 * the sender and can't be listed, so this proves nothing by itself; it is the cheap way to most of the rows.
 */
export async function readScope(client: Stigmem, meter: Meter, scope: Scope, counted: number, facts: Map<string, Fact>): Promise<void> {
  const stopAt = meter.asked + MAX_PAGES;
  const page = async (query: FactsQuery): Promise<SweepPage<Fact>> => {
    for (const limit of LIMITS) {
      const answer = await meter.ask((signal) => client.factsPage({ ...query, ...EVERYTHING, limit }, signal)).catch(brokenPage);
      if (answer === null) continue;
      for (const fact of answer.facts) facts.set(fact.id, fact);
      meter.seen = facts.size;
      // A page may be short and yet not the last: pending facts are dropped after the limit.
      return { rows: answer.facts, last: answer.cursor === null };
    }
    return { rows: [], last: false };
  };
  const closes = async (query: FactsQuery): Promise<boolean> =>
    (await sweep((cursor) => page(cursor === undefined ? query : { ...query, cursor }), facts)).closed;
  const inScope = (): Fact[] => [...facts.values()].filter((fact) => fact.scope === scope);
  const enough = (): boolean => meter.asked >= stopAt || inScope().length === counted;

  if (await closes({ scope })) return;
  const relations = new Set(inScope().map((fact) => fact.relation));
  for (const relation of relations) {
    if (enough()) return;
    if (await closes({ scope, relation })) continue;
    // All receipts share one source.
    if (relation === RECEIVED_FROM) continue;
    const sources = new Set(inScope().flatMap((fact) => (fact.relation === relation ? [fact.source] : [])));
    for (const source of sources) {
      if (enough()) return;
      await closes({ scope, relation, source });
    }
  }
}

export interface ReadBudget {
  left: number;
}

/**
 * Reads facts one by one into `facts`. What the node refuses to show goes to `unread` with the reason; an answer that
 * says "not now" (401, 429, 502 to 504, no answer) is thrown, and what was read stays read.
 */
export async function readEach(
  client: Stigmem,
  meter: Meter,
  ids: Iterable<string>,
  budget: ReadBudget,
  facts: Map<string, Fact>,
  unread: Map<string, string>,
): Promise<void> {
  const queue = [...new Set(ids)].filter((id) => !facts.has(id) && !unread.has(id));
  const work = async (): Promise<void> => {
    for (let id = queue.pop(); id !== undefined; id = queue.pop()) {
      if (budget.left <= 0) {
        unread.set(id, 'the budget of single reads was used up');
        continue;
      }
      budget.left -= 1;
      try {
        const wanted = id;
        const fact = await meter.ask((signal) => client.fact(wanted, signal));
        facts.set(fact.id, fact);
        meter.seen = facts.size;
        if (fact.id !== id) unread.set(id, `the node answered with another fact, ${fact.id}`);
      } catch (error) {
        const why = refusal(error);
        if (why === null) throw error;
        unread.set(id, why);
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, work));
}

/** null for a page that the node can't make; every other failure is thrown. */
function brokenPage(error: unknown): null {
  if (error instanceof StigmemHttpError && error.status === 500) return null;
  throw error;
}

function refusal(error: unknown): string | null {
  if (error instanceof StigmemSchemaError) return error.message;
  if (!(error instanceof StigmemHttpError)) return null;
  // 500 stays with one fact (a broken row must not hold up the rest); gateways speak for the whole node.
  return [400, 403, 404, 409, 410, 422, 500].includes(error.status) ? error.message : null;
}
