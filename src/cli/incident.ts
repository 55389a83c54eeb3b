import { randomUUID } from 'node:crypto';
import type { WorkflowExecutionDescription } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import { incidentId, workflowType } from '../contract/names.ts';
import { Status, type Status as StatusAnswer } from '../contract/schemas.ts';
import { isNoWorker, isNotFound, withDeadline, type TemporalSession } from '../temporal.ts';
import { CliError } from './exit.ts';
import { clean, shellWord } from './text.ts';

/** How long the worker, and how long the server alone, may take: 5 s in all with nobody alive. */
export const workerMs = 2_800;
export const serverMs = 1_500;

/** How long whoever asks can wait: for a worker to take a message, for the server alone, for a verdict once taken. */
export interface Patience {
  readonly workerMs: number;
  readonly serverMs: number;
  readonly verdictMs: number;
}
/** The command line's: a person waits for it. */
export const cliPatience: Patience = { workerMs, serverMs, verdictMs: 30_000 };

/** The incident a person meant: its workflow id and latest run. */
export interface Incident {
  id: string;
  runId: string;
  isOpen: boolean;
  description: WorkflowExecutionDescription;
}

/** Finds an incident by workflow id, peer node_id, or any part of an id that only one incident has. */
export async function findIncident(session: TemporalSession, text: string, patience: Patience = cliPatience): Promise<Incident> {
  const exact = await Promise.all([...new Set([text, incidentId(text, 'live')])].map((id) => describe(session, id, patience)));
  const found = exact.find((incident) => incident !== undefined);
  if (found !== undefined) return found;
  const ids = await matchingIds(session, text, patience);
  const [only, ...others] = ids;
  if (only !== undefined && others.length === 0) {
    const incident = await describe(session, only, patience);
    if (incident !== undefined) return incident;
  }
  if (others.length === 0) throw new CliError('noIncident', `no incident is called ${clean(text)}`, 'cordon list');
  const list = ids.slice(0, 10).map((id) => `  ${clean(id)}`);
  throw new CliError('usage', [`${ids.length} incidents match ${clean(text)}; say which:`, ...list].join('\n'), 'cordon list');
}

/** The incident under exactly this workflow id; undefined if there is none, or if it is another kind of workflow. */
export async function describe(session: TemporalSession, id: string, patience: Patience = cliPatience): Promise<Incident | undefined> {
  if (id === '' || id.length > 1_000) return undefined;
  try {
    const handle = session.client.workflow.getHandle(id);
    const description = await withDeadline(session.client, patience.serverMs, () => handle.describe());
    if (description.type !== workflowType) return undefined;
    const { status, runId } = description;
    return { id, runId, isOpen: status.name === 'RUNNING' || status.name === 'PAUSED', description };
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** Ids that contain `text`: of open incidents if any of them does, else of closed ones. */
async function matchingIds(session: TemporalSession, text: string, patience: Patience): Promise<string[]> {
  for (const status of ['=', '!=']) {
    const query = `WorkflowType='${workflowType}' AND ExecutionStatus${status}'Running'`;
    const ids = await withDeadline(session.client, patience.serverMs, async () => {
      const found = new Set<string>();
      let seen = 0;
      for await (const { workflowId } of session.client.workflow.list({ query })) {
        if (workflowId.includes(text)) found.add(workflowId);
        if ((seen += 1) >= 1_000) break;
      }
      return [...found];
    });
    if (ids.length > 0) return ids;
  }
  return [];
}

/** The workflow's own status; undefined when no worker answers in time. */
export async function askStatus(session: TemporalSession, id: string, patience: Patience = cliPatience): Promise<StatusAnswer | undefined> {
  const answer = await ask(session, id, 'status', [], patience);
  if (answer === undefined) return undefined;
  const parsed = Status.safeParse(answer);
  if (parsed.success) return parsed.data;
  const field = parsed.error.issues[0]?.path.map(String).join('.') ?? '';
  throw new CliError('failed', `status was answered in another shape (at ${field}): the worker is of another version`);
}

/** A query's answer; undefined when no worker answers in time. */
export async function ask(
  session: TemporalSession,
  id: string,
  query: string,
  args: unknown[],
  patience: Patience = cliPatience,
): Promise<unknown> {
  try {
    const handle = session.client.workflow.getHandle(id);
    return await withDeadline(session.client, patience.workerMs, () => handle.query<unknown, unknown[]>(query, ...args));
  } catch (error) {
    if (isNoWorker(error)) return undefined;
    throw error;
  }
}

/** What the server answers when a run has its fill of signals: 10,000, where nobody changed that. */
const signalLimit = 'exceeded workflow execution limit for signal events';

/**
 * Sends a signal; only the server has to be alive.
 * @param requestId - the server takes a signal with the same one once, however often it is sent
 */
export async function send(
  session: TemporalSession,
  id: string,
  signal: string,
  payload: object,
  { ms = serverMs, requestId = randomUUID() }: { ms?: number; requestId?: string } = {},
): Promise<void> {
  const { client, settings } = session;
  const request = {
    namespace: settings.namespace,
    workflowExecution: { workflowId: id },
    signalName: signal,
    input: { payloads: [defaultPayloadConverter.toPayload(payload)] },
    identity: client.options.identity,
    requestId,
  };
  await withDeadline(client, ms, () => client.workflowService.signalWorkflowExecution(request)).catch((error: unknown) => {
    if (isNotFound(error)) throw new CliError('failed', `${clean(id)} is closed: it takes no more messages`, 'cordon list');
    if (error instanceof Error && error.message.includes(signalLimit)) {
      const said = `${clean(id)} was flooded: the server takes no more signals for this run. The next run, which a worker begins, takes them.`;
      throw new CliError('failed', said, `cordon show ${shellWord(id)}`);
    }
    throw error;
  });
}
