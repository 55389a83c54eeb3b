import { setTimeout as sleep } from 'node:timers/promises';
import type { Stigmem } from './client.ts';
import { StigmemHttpError } from './errors.ts';
import type { Meter } from './paging.ts';
import type { LintQuery } from './requests.ts';
import { LintAccepted, LintResult, type LintAnswer } from './wire-read.ts';
import { SCOPES, type Scope } from './wire.ts';

/** The relation of the note a node writes about each fact it takes in: federation/federation_ingest.py, ingest_fact. */
export const RECEIVED_FROM = 'stigmem:received_from';
/** The source it writes such notes under. */
export const SYSTEM_SOURCE = 'system:stigmem';

const POLL_MS = 500;
/**
 * The check counts the facts of each note's target, and SQLite takes the index on tenant_id for that, which is every
 * fact there is: ten thousand notes beside as many facts take minutes. (ANALYZE on the host makes it a second.)
 */
const INDEX_TIMEOUT_MS = 1_200_000;
/** In place of a count, where the node would not give one. */
export const NOT_COUNTED = -1;

/** One note, as the lint sweep lists it. */
export interface ReceiptNote {
  readonly factId: string;
  readonly noteId: string;
  /** The sender's node_id as the note has it; null when it can't be read from the finding's words. */
  readonly nodeId: string | null;
}

export interface ReceiptIndex {
  readonly notes: readonly ReceiptNote[];
  /** The node's own COUNT(*) of notes, forged ones included. */
  readonly counted: number;
}

/**
 * Every note of receipt in one answer, which no other route gives. POST /v1/lint has no row limit, and its broken_ref
 * check lists each live `ref` fact whose target entity has no live facts (routes/lint.py, _check_broken_refs). Notes
 * are such facts: their target is the sender's node_id. A sender can blind the check by delivering a fact whose entity
 * is its own node_id; then `notes` is shorter than `counted`, so compare the two.
 */
export async function receiptIndex(client: Stigmem, meter: Meter): Promise<ReceiptIndex> {
  const result = await lint(client, meter, { scope: 'local', relation: RECEIVED_FROM, checks: ['broken_ref'] }, INDEX_TIMEOUT_MS);
  const notes = result.findings.flatMap(({ entity, fact_ids: [noteId], detail }) => {
    if (entity === null || noteId === undefined) return [];
    return [{ factId: entity, noteId, nodeId: /^ref target entity '(.*)' has no live facts$/s.exec(detail)?.[1] ?? null }];
  });
  return { notes, counted: result.fact_count };
}

/** The node's exact count of facts in a scope (and relation), in our key's tenant, hidden ones included. */
export async function countFacts(client: Stigmem, meter: Meter, scope: Scope, relation?: string): Promise<number> {
  // An empty list of checks would run them all; this one is the cheapest.
  const query = { scope, checks: ['contradiction'] as const, ...(relation === undefined ? {} : { relation }) };
  return (await lint(client, meter, query)).fact_count;
}

/** Counts of all four scopes. */
export async function countScopes(client: Stigmem, meter: Meter): Promise<Map<Scope, number>> {
  const counts = new Map<Scope, number>();
  for (const scope of SCOPES) counts.set(scope, await countFacts(client, meter, scope));
  return counts;
}

/** Facts in the store that lie outside `counts`: other tenants' facts; null where the node does not say. */
export async function countOutside(client: Stigmem, meter: Meter, counts: ReadonlyMap<Scope, number>): Promise<number | null> {
  const known = [...counts.values()];
  if (known.includes(NOT_COUNTED)) return null;
  try {
    const { total_facts: total } = await meter.ask((signal) => client.factTotals(signal));
    return Math.max(0, total - known.reduce((sum, count) => sum + count, 0));
  } catch (error) {
    // Ten asks, then one each 6 s (rate_limit.py): many incidents at once use that up, and the count is only coverage.
    if (isAbsent(error) || (error instanceof StigmemHttpError && error.status === 429)) return null;
    throw error;
  }
}

/** A scope of more than async_job_threshold facts (100,000) is swept by a job; it is polled until done. */
async function lint(client: Stigmem, meter: Meter, query: LintQuery, timeoutMs?: number): Promise<LintResult> {
  const nothing: LintResult = { findings: [], checked_at: '', scope: query.scope, fact_count: NOT_COUNTED };
  let answer: LintAnswer;
  try {
    answer = await meter.ask((signal) => client.lint(query, signal, timeoutMs));
  } catch (error) {
    if (isAbsent(error)) return nothing;
    throw error;
  }
  for (;;) {
    const done = LintResult.safeParse(answer);
    if (done.success) return done.data;
    const job = LintAccepted.safeParse(answer);
    if (!job.success || job.data.status === 'failed') return nothing;
    await sleep(POLL_MS, undefined, meter.signal === undefined ? {} : { signal: meter.signal });
    answer = await meter.ask((signal) => client.lintJob(job.data.job_id, signal));
  }
}

/** The node has no such route. */
export function isAbsent(error: unknown): boolean {
  return error instanceof StigmemHttpError && (error.status === 404 || error.status === 405);
}
