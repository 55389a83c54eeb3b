import { activityInfo } from '@temporalio/activity';
import { StepFailure } from './failures.ts';

/** A reset copies an approval into a run it was not given in: there it is void, and people are asked again. */
export function assertApprovedHere(approvedInRun: string): void {
  const run = activityInfo().workflowExecution?.runId;
  if (run === approvedInRun) return;
  throw new StepFailure(
    'PreconditionChanged',
    `approved in run ${approvedInRun}, but this is run ${run ?? 'unknown'}: the history was reset since, so people are asked again`,
  );
}
