import { proxyActivities } from '@temporalio/workflow';
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
