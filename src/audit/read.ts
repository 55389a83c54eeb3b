import { readFile } from 'node:fs/promises';
import type { Client } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/common';
import { eventJson } from './event-json.ts';
import { sealedHistory } from './sealed-history.ts';
import { HistoryError, parseEvent, parseHistory, type HistoryEvent } from './history.ts';

/** Where the history of an incident comes from. */
export type AuditSource =
  | { readonly kind: 'workflow'; readonly id: string; readonly client: Client }
  | { readonly kind: 'file'; readonly path: string };

/** One run of the incident: its events in order. */
export interface AuditRun {
  readonly workflowId: string;
  readonly runId: string;
  readonly events: readonly HistoryEvent[];
}

export interface AuditHistory {
  /** Oldest first. */
  readonly runs: readonly AuditRun[];
  /** What is missing, in words. */
  readonly gaps: readonly string[];
  /** Where something was read from, if not from the source. */
  readonly notes?: readonly string[];
}

const maxRuns = 1_000;
const maxFileBytes = 512 * 1024 * 1024;

/**
 * Reads every run that can be found. Needs the Temporal server or the file, no worker. Throws HistoryError.
 * @param evidenceFolder - where histories lie sealed that the source holds no more
 */
export async function readHistory(source: AuditSource, evidenceFolder?: (incident: string) => string): Promise<AuditHistory> {
  const found = source.kind === 'file' ? await fromFile(source.path) : await fromServer(source.client, source.id);
  const all = [...found.runs];
  const notes: string[] = [];
  for (
    let missing = absentRuns(all);
    evidenceFolder && missing.length > 0;
    missing = absentRuns(all).filter((run) => !missing.includes(run))
  ) {
    for (const runId of missing) {
      const text = await sealedHistory(evidenceFolder(all[0]?.workflowId ?? ''), runId);
      if (text === undefined) continue;
      all.push({ ...runOf(parseHistory(text, `sealed history of run ${runId}`), runId), runId });
      notes.push(`run ${runId}: read from the evidence, where it was sealed after the run had ended`);
    }
  }
  const runs = all.toSorted((a, b) => timeOf(a) - timeOf(b));
  const absent = absentRuns(runs).map(
    (run) => `run ${run}: neither the source nor the evidence holds its history (retention, or deleted); its events are not covered`,
  );
  return { runs, gaps: [...found.gaps, ...absent, ...runs.flatMap(missingEvents)], notes };
}

async function fromFile(path: string): Promise<AuditHistory> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'an error';
    throw new HistoryError(`${path}: expected a readable history file, got ${code}`);
  }
  if (bytes.length > maxFileBytes) throw new HistoryError(`${path}: expected at most ${maxFileBytes} bytes, got ${bytes.length}`);
  const run = runOf(parseHistory(bytes.toString('utf8'), path), path);
  return { runs: [run], gaps: [] };
}

/** Runs are found by the list of runs of this id, and by what each run says of the one before and the one it was reset from. */
async function fromServer(client: Client, id: string): Promise<AuditHistory> {
  const gaps: string[] = [];
  const runs = new Map<string, AuditRun>();
  const latest = await client.workflow.getHandle(id).describe();
  const waiting = [latest.runId, ...(await listedRuns(client, id, gaps))];
  const seen = new Set<string>();
  for (let runId = waiting.shift(); runId !== undefined && runs.size < maxRuns; runId = waiting.shift()) {
    if (seen.has(runId)) continue;
    seen.add(runId);
    try {
      const { events } = await client.workflow.getHandle(id, runId).fetchHistory();
      const parsed = (events ?? []).map((event, at) => parseEvent(eventJson(event), `run ${runId}: event ${at + 1}`));
      const [first] = parsed;
      // Workflow ids are shared by later incidents of the same peer: each is a chain of its own.
      if (first?.workflowExecutionStartedEventAttributes?.firstExecutionRunId !== firstRunOf(runs, first)) continue;
      runs.set(runId, { workflowId: id, runId, events: parsed });
      waiting.push(...namedRuns(parsed));
    } catch (error) {
      // Gone from the server: a run that another one names is looked for in the evidence.
      if (!(error instanceof WorkflowNotFoundError)) throw error;
    }
  }
  return { runs: [...runs.values()], gaps };
}

function firstRunOf(runs: ReadonlyMap<string, AuditRun>, otherwise: HistoryEvent | undefined): string | undefined {
  const [known] = runs.values();
  return (known?.events[0] ?? otherwise)?.workflowExecutionStartedEventAttributes?.firstExecutionRunId;
}

async function listedRuns(client: Client, id: string, gaps: string[]): Promise<string[]> {
  const found: string[] = [];
  try {
    for await (const { runId } of client.workflow.list({ query: `WorkflowId = '${id.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'` })) {
      found.push(runId);
      if (found.length >= maxRuns) break;
    }
  } catch {
    gaps.push('the list of runs could not be read: runs that no other run names are not covered');
  }
  return found;
}

/** Runs that this one says it came from. */
function namedRuns(events: readonly HistoryEvent[]): string[] {
  const started = events[0]?.workflowExecutionStartedEventAttributes;
  const resets = events.map(({ workflowTaskFailedEventAttributes: failed }) => failed?.baseRunId ?? '');
  return [started?.continuedExecutionRunId ?? '', started?.firstExecutionRunId ?? '', ...resets].filter((run) => run !== '');
}

/** A file does not say which run it is of, but its events do. */
function runOf(events: readonly HistoryEvent[], name: string): AuditRun {
  const started = events[0]?.workflowExecutionStartedEventAttributes;
  if (!started) throw new HistoryError(`${name}: events.0: expected the start of the workflow, got ${events[0]?.eventType ?? 'nothing'}`);
  const reset = events.findLast(({ workflowTaskFailedEventAttributes: failed }) => (failed?.newRunId ?? '') !== '');
  const runId = reset?.workflowTaskFailedEventAttributes?.newRunId ?? started.originalExecutionRunId;
  return { workflowId: started.workflowId ?? '', runId, events };
}

/** Runs that those at hand came from, and that are not among them. */
function absentRuns(runs: readonly AuditRun[]): string[] {
  const known = new Set(runs.map(({ runId }) => runId));
  return [...new Set(runs.flatMap(({ events }) => namedRuns(events)))].filter((run) => !known.has(run));
}

function missingEvents({ runId, events }: AuditRun): string[] {
  return events.flatMap(({ eventId }, at) => {
    const before = at === 0 ? 0 : Number(events[at - 1]?.eventId);
    return Number(eventId) === before + 1
      ? []
      : [`run ${runId}: expected event ${before + 1}, found ${eventId}: events are missing or out of order`];
  });
}

function timeOf({ events }: AuditRun): number {
  // A reset copy begins with the events of the run it was copied from: its own begin at its reset point.
  const reset = events.findLast(({ workflowTaskFailedEventAttributes: failed }) => (failed?.newRunId ?? '') !== '');
  return Date.parse((reset ?? events[0])?.eventTime ?? '');
}
