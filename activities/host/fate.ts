import type { Client } from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/common';
import { listIncidentFolders } from '../../src/evidence/find.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import type { Folder } from '../deps.ts';

/** An incident from its first run on, through continue-as-new. */
export interface Holder {
  readonly incident: string;
  readonly firstRun: string;
}

/** `dead`: somebody or the server ended it, it came to no outcome. `unknown`: the server has forgotten it. */
export type Fate = 'open' | 'closed' | 'dead' | 'unknown';

/** temporal.api.enums.v1.HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT */
const closeEvent = 2;

/** What became of an incident. One that sealed how it closed is closed, whatever the server still knows of it. */
export async function fateOf(deps: Folder, temporal: Client, holder: Holder): Promise<Fate> {
  const fate = await fateOnServer(temporal, holder);
  return fate !== 'open' && (await hasClosed(deps, holder)) ? 'closed' : fate;
}

async function fateOnServer(temporal: Client, { incident, firstRun }: Holder): Promise<Fate> {
  try {
    const latest = await temporal.workflow.getHandle(incident).describe();
    // A reset starts a run of its own, which no event of the one before it names.
    if (latest.raw.workflowExecutionInfo?.firstRunId === firstRun) return fateBy(latest.status.name);
    for (let runId: string | undefined = firstRun; runId !== undefined;) {
      const { status } = await temporal.workflow.getHandle(incident, runId).describe();
      if (status.name !== 'CONTINUED_AS_NEW') return fateBy(status.name);
      runId = await nextRun(temporal, incident, runId);
    }
    return 'unknown';
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return 'unknown';
    throw error;
  }
}

function fateBy(status: string): Fate {
  if (status === 'RUNNING') return 'open';
  if (status === 'COMPLETED') return 'closed';
  return status === 'TERMINATED' || status === 'FAILED' || status === 'TIMED_OUT' || status === 'CANCELLED' ? 'dead' : 'unknown';
}

async function nextRun(temporal: Client, workflowId: string, runId: string): Promise<string | undefined> {
  const { history } = await temporal.workflowService.getWorkflowExecutionHistory({
    namespace: temporal.options.namespace,
    execution: { workflowId, runId },
    historyEventFilterType: closeEvent,
  });
  return history?.events?.at(-1)?.workflowExecutionContinuedAsNewEventAttributes?.newExecutionRunId ?? undefined;
}

async function hasClosed({ evidenceDir }: Folder, { incident, firstRun }: Holder): Promise<boolean> {
  const folders = await listIncidentFolders(evidenceDir);
  if (!folders.some((folder) => folder.incident === incident)) return false;
  const store = await EvidenceStore.open(evidenceDir, incident, new Date().toISOString());
  return (await store.entries()).some(({ key }) => key.startsWith(`${firstRun}:closed:`));
}
