import { NativeConnection, Worker, DefaultLogger, Runtime } from '@temporalio/worker';
import { bundlePath } from '../../src/paths.ts';
import { payloadConverter } from './built.ts';
import { collectEverywhere } from './collect.ts';
import { parkedActivities } from './parked-activities.ts';

// A worker in a process of its own, whose weight is asked for over the channel to its parent.

const [kind = '', address = '', taskQueue = '', bundle = '', planItems = '0'] = process.argv.slice(2);
Runtime.install({ logger: new DefaultLogger('ERROR'), shutdownSignals: [] });
let threads = 0;
process.on('worker', () => (threads += 1));

let calls = 0;
let lastCallAt = 0;
const called = (): void => {
  calls += 1;
  lastCallAt = Date.now();
};
const sample = {
  prepare: async () => {
    called();
    return 'prepared';
  },
  act: async () => {
    called();
    return 'acted';
  },
};
const connection = await NativeConnection.connect({ address });
// As src/worker.ts makes it: what is left out there is left out here.
const worker = await Worker.create({
  connection,
  taskQueue,
  workflowBundle: { codePath: kind === 'cordon' ? bundlePath() : bundle },
  ...(kind === 'cordon' ? { dataConverter: { payloadConverterPath: payloadConverter } } : {}),
  activities: kind === 'cordon' ? parkedActivities(Number(planItems), called) : sample,
  stickyQueueScheduleToStartTimeout: '5s',
  maxHeartbeatThrottleInterval: '1s',
  defaultHeartbeatThrottleInterval: '1s',
});
async function weigh(): Promise<void> {
  const { rss } = process.memoryUsage();
  const heapUsed = await collectEverywhere(threads);
  process.send?.({ rss, rssAfterGc: process.memoryUsage().rss, heapUsed, cached: worker.getStatus().numCachedWorkflows });
}
process.on('message', (message) => {
  if (message === 'stop') worker.shutdown();
  if (message === 'weigh') void weigh();
  if (message === 'progress') process.send?.({ calls, lastCallAt, cached: worker.getStatus().numCachedWorkflows });
});
// Whoever asked for it is gone: nobody else would end it.
process.on('disconnect', () => process.exit());
process.send?.('ready');
await worker.run();
await connection.close();
process.exit();
