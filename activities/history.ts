import type { Client } from '@temporalio/client';
import { eventJson } from '../src/audit/event-json.ts';
import { EvidenceStore, type Sealed } from '../src/evidence/store.ts';
import type { Deps } from './deps.ts';
import { StepFailure } from './failures.ts';

const pageSize = 500;

/**
 * Seals the full history of a run that has ended: NDJSON, one event a line, in the JSON form of the `temporal`
 * command. The same run again is the same entry.
 */
export async function sealRunHistory(deps: Deps, incident: string, runId: string): Promise<Sealed> {
  const { status, closeTime, startTime } = await deps.temporal.workflow.getHandle(incident, runId).describe();
  if (status.name === 'RUNNING' || status.name === 'PAUSED') {
    throw new StepFailure('RunStillOpen', `run ${runId} has not ended yet: its history is not whole`);
  }
  const at = (closeTime ?? startTime).toISOString();
  const store = await EvidenceStore.open(deps.evidenceDir, incident, at);
  const request = { key: `history:${runId}`, kind: 'history', name: `history ${runId}`, phase: 'closed', round: 0, at };
  return store.seal(request, historyEvents(deps.temporal, incident, runId));
}

/** The events of one run in order, in JSON form, a page at a time. */
async function* historyEvents(client: Client, workflowId: string, runId: string): AsyncGenerator<unknown> {
  let nextPageToken: Uint8Array | undefined;
  do {
    const page = await client.workflowService.getWorkflowExecutionHistory({
      namespace: client.options.namespace,
      execution: { workflowId, runId },
      maximumPageSize: pageSize,
      ...(nextPageToken ? { nextPageToken } : {}),
    });
    for (const event of page.history?.events ?? []) yield eventJson(event);
    nextPageToken = page.nextPageToken?.length ? page.nextPageToken : undefined;
  } while (nextPageToken);
}
