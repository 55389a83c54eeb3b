import { Worker } from '@temporalio/worker';
import { bundlePath, payloadConverterPath } from './paths.ts';
import { connectTemporal } from './temporal.ts';

// Before an upgrade: does this build make the same commands from the histories of everything that is open? Run by
// bin/replay-open.js. Nothing is changed, and no worker needs to be stopped for it.

const { client, close, settings } = await connectTemporal();
let failed = 0;
let count = 0;
for await (const { workflowId, runId, type } of client.workflow.list({ query: "ExecutionStatus = 'Running'" })) {
  const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
  // A run that a reset made names the old one here, and its decisions would count again in the replay.
  const started = history.events?.[0]?.workflowExecutionStartedEventAttributes;
  if (started) started.originalExecutionRunId = runId;
  const what = `${type} ${workflowId}, ${history.events?.length ?? 0} events`;
  count += 1;
  try {
    await Worker.runReplayHistory(
      { workflowBundle: { codePath: bundlePath() }, dataConverter: { payloadConverterPath: payloadConverterPath() } },
      history,
      workflowId,
    );
    process.stdout.write(`ok    ${what}\n`);
  } catch (error) {
    failed += 1;
    process.stdout.write(`FAIL  ${what}: ${error instanceof Error ? error.message : String(error)}\n`);
  }
}
await close();
const verdict = failed === 0 ? 'this build can take them over' : 'do not start this build while they are open';
process.stdout.write(`${count} open in ${settings.namespace}, ${failed} failed: ${verdict}\n`);
process.exitCode = failed === 0 ? 0 : 1;
