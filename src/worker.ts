import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker, type WorkerInterceptors } from '@temporalio/worker';
import { createActivities } from '../activities/index.ts';
import { parseWorkerConfig } from './config.ts';
import { startTelemetry } from './observe/telemetry.ts';
import { bundlePath, payloadConverterPath } from './paths.ts';
import { Stigmem } from './stigmem/client.ts';
import { clientOptions, loadTemporalSettings } from './temporal.ts';

/** Recovery time of an incident after a worker was killed: its workflow tasks go to another worker after this. */
const stickyTimeout = '5s';

/** What a process that starts the worker may add: a test that stops it inside an activity, say. */
export interface WorkerExtras {
  readonly interceptors?: WorkerInterceptors;
}

/**
 * How long workflow code may run at a stretch. The SDK's own 5 seconds end with a crash of the whole process, which a
 * flood of messages on a busy machine could bring about; the server's task timeout is reached before this.
 */
const longestActivation = { isolateExecutionTimeout: '60s' } as const;

/**
 * The composition root: the only code that sees workflows and activities. Runs until SIGINT or SIGTERM, then
 * lets what is under way finish. Throws ConfigError before anything connects.
 */
export async function runWorker({ interceptors = {} }: WorkerExtras = {}): Promise<void> {
  const config = parseWorkerConfig();
  const settings = loadTemporalSettings();
  const secrets = [config.node.adminKey, config.agentKey, config.webhookUrl, settings.connectionOptions.apiKey];
  const telemetry = await startTelemetry({ ...config, secrets });
  const { log } = telemetry;
  const connection = await NativeConnection.connect(settings.connectionOptions);
  const clientConnection = await Connection.connect(clientOptions(settings));
  const { namespace } = settings;
  const { taskQueue, evidenceDir } = config;
  const node = new Stigmem({
    url: config.node.url,
    adminKey: config.node.adminKey,
    ...(config.agentKey === undefined ? {} : { agentKey: config.agentKey }),
  });
  const temporal = new Client({ connection: clientConnection, namespace });
  let worker: Worker | undefined;
  try {
    await telemetry.serve({ worker: () => worker, temporal, taskQueue, namespace, evidenceDir });
    worker = await Worker.create({
      connection,
      namespace,
      taskQueue,
      workflowBundle: { codePath: bundlePath() },
      dataConverter: { payloadConverterPath: payloadConverterPath() },
      activities: createActivities({ ...config, node, nodeUrl: config.node.url, temporal }),
      interceptors: { ...interceptors, activity: [...(telemetry.interceptors.activity ?? []), ...(interceptors.activity ?? [])] },
      ...longestActivation,
      stickyQueueScheduleToStartTimeout: stickyTimeout,
      shutdownGraceTime: '10s',
      maxHeartbeatThrottleInterval: '1s',
      defaultHeartbeatThrottleInterval: '1s',
    });
    log.info({ address: settings.address, namespace, taskQueue, node: config.node.url }, 'cordon worker is ready');
    await worker.run();
    log.info('cordon worker has stopped');
  } catch (error) {
    log.fatal({ err: error }, 'cordon worker has failed');
    throw error;
  } finally {
    await telemetry.stop();
    await connection.close();
    await clientConnection.close();
    await node.close();
  }
}
