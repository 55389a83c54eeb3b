import { ParentClosePolicy, proxyActivities, startChild, workflowInfo } from '@temporalio/workflow';
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import type { Activities } from '../activities/index.ts';

// The run to export ends a moment after this starts, so early attempts find it open: keep trying.
const { exportHistory } = proxyActivities<Activities>({
  startToCloseTimeout: '10m',
  scheduleToCloseTimeout: '7d',
  heartbeatTimeout: '5s',
  retry: { initialInterval: '500ms', backoffCoefficient: 2, maximumInterval: '5m' },
});

/** Seals the history of a run that has ended into the incident's evidence, before retention deletes it. */
export async function SealHistory(of: { readonly incident: string; readonly runId: string }): Promise<void> {
  await exportHistory(of);
}

/** Starts that for one run of this incident, and leaves it to itself. */
export async function startSealing(runId: string): Promise<void> {
  const { workflowId, firstExecutionRunId } = workflowInfo();
  try {
    await startChild(SealHistory, {
      workflowId: `cordon-seal:${firstExecutionRunId}:${runId}`,
      args: [{ incident: workflowId, runId }],
      parentClosePolicy: ParentClosePolicy.ABANDON,
    });
  } catch (error) {
    // A run that was reset since has started it, and it is not done yet.
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
  }
}
