import { activityInfo } from '@temporalio/activity';
import { join } from 'node:path';
import { z } from 'zod';
import type { JudgedFact } from '../../src/contract/schemas.ts';
import type { IncidentRef, Pause, PlanRef } from '../../src/contract/steps.ts';
import { withLock } from '../../src/evidence/lock.ts';
import { incidentFolderName } from '../../src/evidence/names.ts';
import type { Sealed } from '../../src/evidence/store.ts';
import { StigmemHttpError } from '../../src/stigmem/errors.ts';
import { cancelSignal, type Deps } from '../deps.ts';
import { tripleKey } from '../../src/policy/facts.ts';
import { beat } from '../heartbeat.ts';
import { Undoer } from './undo-chunk.ts';
import { sealUndone, type UndoLine } from './undo-log.ts';

/** Facts between two heartbeats: what a killed worker does again, at no cost but the time. */
const chunkFacts = 50;
const defaultRetryAfterMs = 60_000;

export interface UndoInput {
  readonly ref: IncidentRef;
  readonly plan: PlanRef;
  readonly facts: readonly JudgedFact[];
  readonly from: number;
}

export interface Went {
  readonly done: number;
  readonly pause?: Pause;
  readonly sealed?: Sealed;
}

const Cursor = z.object({ plan: z.string(), done: z.int(), writes: z.int() });

/** One go: undoes facts in the plan's order until all are settled, the write budget is spent, or the node says to wait. */
export async function undoInOrder(deps: Deps, source: string, { ref, plan, facts, from }: UndoInput): Promise<Went> {
  const before = Cursor.safeParse(activityInfo().heartbeatDetails).data;
  const resumed = before?.plan === plan.planHash ? before : { done: 0, writes: 0 };
  const undoer = new Undoer(deps, ref, source, facts);
  // Writes of an attempt that died were made all the same.
  undoer.writes = resumed.writes;
  const budget = Math.max(1, Math.floor(deps.writesPerHour * (1 - deps.writeHeadroom)));
  let done = Math.max(from, resumed.done);
  let sealed: Sealed | undefined;
  while (done < facts.length) {
    cancelSignal().throwIfAborted();
    const chunk = affordable(facts.slice(done, done + chunkFacts), undoer, budget - undoer.writes);
    if (chunk.length === 0) {
      const ms = Math.max(1_000, Math.ceil((undoer.writes / deps.writesPerHour) * 3_600_000));
      const why = `${undoer.writes} writes were made; the node takes ${deps.writesPerHour} an hour and ${Math.round(deps.writeHeadroom * 100)} % of that stays free for a fence.`;
      return { done, pause: { ms, why, ...restAfter(undoer, facts.slice(done), ms) }, ...(sealed ? { sealed } : {}) };
    }
    // A worker that was thought dead may still act. The node checks for a body it already has before it writes, but two
    // at the same instant both pass and make two rows (routes/_facts_assert.py), so only one worker writes at a time.
    const went = await withLock(lockOf(deps, ref), () => actOn(deps, undoer, chunk));
    if (went.lines.length > 0) sealed = await sealUndone(deps, ref, plan.planHash, done, went.lines);
    done += went.lines.length;
    beat({ plan: plan.planHash, done, writes: undoer.writes } satisfies z.infer<typeof Cursor>);
    if (went.error === undefined) continue;
    const ms = Math.max(1_000, waitAsked(went.error));
    const why = 'The node said 429: too many requests; it is asked again when it said.';
    return { done, pause: { ms, why, ...restAfter(undoer, facts.slice(done), ms) }, ...(sealed ? { sealed } : {}) };
  }
  return { done, ...(sealed ? { sealed } : {}) };
}

/** How long the rest takes when it goes as it went: so many writes, then a pause. Nothing written: nothing to go by. */
function restAfter(undoer: Undoer, left: readonly JudgedFact[], pauseMs: number): Pick<Pause, 'restMs'> {
  if (undoer.writes === 0) return {};
  // From the first attempt on, as the writes are counted.
  const workedMs = Math.max(0, Date.now() - activityInfo().scheduledTimestampMs);
  const goes = undoer.writesFor(left) / undoer.writes;
  return { restMs: Math.round(goes * workedMs + Math.max(0, Math.ceil(goes) - 1) * pauseMs) };
}

/** How long a node that said 429 wants to be left alone. Throws anything else: that is for Temporal to retry. */
function waitAsked(error: Error): number {
  if (error instanceof StigmemHttpError && error.status === 429) return error.retryAfterMs ?? defaultRetryAfterMs;
  throw error;
}

/** As much of the stretch as the budget pays for, in order. */
function affordable(stretch: readonly JudgedFact[], undoer: Undoer, budget: number): readonly JudgedFact[] {
  let left = budget;
  const end = stretch.findIndex((fact) => (left -= undoer.costs(fact)) < 0);
  return end === -1 ? stretch : stretch.slice(0, end);
}

/** Acts on a stretch, several at a time. `lines` is what is settled without a gap from its start, read back. */
async function actOn(deps: Deps, undoer: Undoer, chunk: readonly JudgedFact[]): Promise<{ lines: readonly UndoLine[]; error?: Error }> {
  const settled: (UndoLine | undefined)[] = chunk.map(() => undefined);
  let next = 0;
  let error: Error | undefined;
  const work = async (): Promise<void> => {
    while (error === undefined && next < chunk.length) {
      const index = next;
      next += 1;
      const fact = chunk[index];
      if (fact === undefined) return;
      try {
        settled[index] = await undoer.act(fact);
      } catch (thrown) {
        error ??= thrown instanceof Error ? thrown : new Error(String(thrown));
      }
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, deps.concurrency) }, work));
  const gap = settled.indexOf(undefined);
  const prefix = settled.slice(0, gap === -1 ? settled.length : gap).filter((line) => line !== undefined);
  error ??= refusedAll(settled, undoer);
  if (error !== undefined && error === undoer.refusal) throw error;
  return { lines: await undoer.readBack(prefix), ...(error === undefined ? {} : { error }) };
}

/** What is refused for every fact alike is not about a fact: nothing is settled, and people are told. */
function refusedAll(settled: readonly (UndoLine | undefined)[], undoer: Undoer): Error | undefined {
  const retractions = settled.filter((line) => line?.action === 'retract');
  const triples = new Set(retractions.map((line) => line && tripleKey(line.entity, line.relation, line.scope)));
  return triples.size > 1 && retractions.every((line) => line?.outcome === 'refused') ? undoer.refusal : undefined;
}

function lockOf(deps: Deps, ref: IncidentRef): string {
  return join(deps.evidenceDir, '.locks', `${incidentFolderName(ref.incident)}.undo`);
}
