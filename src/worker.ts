import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker, type LogEntry, type WorkerInterceptors } from '@temporalio/worker';
import { pino } from 'pino';
import { createActivities } from '../activities/index.ts';
import { parseWorkerConfig, type WorkerConfig } from './config.ts';
import { bundlePath, payloadConverterPath } from './paths.ts';
import { Stigmem } from './stigmem/client.ts';
import { loadTemporalSettings } from './temporal.ts';

/** Recovery time of an incident after a worker was killed: its workflow tasks go to another worker after this. */
const stickyTimeout = '5s';

/** What a process that starts the worker may add: a test that stops it inside an activity, say. */
export interface WorkerExtras {
  readonly interceptors?: WorkerInterceptors;
}

/**
 * The composition root: the only code that sees workflows and activities. Runs until SIGINT or SIGTERM, then
 * lets what is under way finish. Throws ConfigError before anything connects.
 */
export async function runWorker({ interceptors = {} }: WorkerExtras = {}): Promise<void> {
  const config = parseWorkerConfig();
  const settings = loadTemporalSettings();
  const log = pino({ level: config.logLevel, base: { service: 'cordon' } });
  Runtime.install({ logger: temporalLogger(log, config), shutdownSignals: ['SIGINT', 'SIGTERM'] });
  const connection = await NativeConnection.connect(settings.connectionOptions);
  const { address, tls, apiKey, metadata } = settings.connectionOptions;
  const clientConnection = await Connection.connect({
    ...(address === undefined ? {} : { address }),
    ...(tls === undefined ? {} : { tls }),
    ...(apiKey === undefined ? {} : { apiKey }),
    ...(metadata === undefined ? {} : { metadata }),
  });
  const { namespace } = settings;
  const node = new Stigmem({
    url: config.node.url,
    adminKey: config.node.adminKey,
    ...(config.agentKey === undefined ? {} : { agentKey: config.agentKey }),
  });
  const worker = await Worker.create({
    connection,
    namespace,
    taskQueue: config.taskQueue,
    workflowBundle: { codePath: bundlePath() },
    dataConverter: { payloadConverterPath: payloadConverterPath() },
    activities: createActivities({
      node,
      nodeUrl: config.node.url,
      temporal: new Client({ connection: clientConnection, namespace }),
      evidenceDir: config.evidenceDir,
      policyFile: config.policyFile,
      contactsFile: config.contactsFile,
      webhookUrl: config.webhookUrl,
      peerAllow: config.peerAllow,
      concurrency: config.concurrency,
      writesPerHour: config.writesPerHour,
      writeHeadroom: config.writeHeadroom,
    }),
    interceptors,
    stickyQueueScheduleToStartTimeout: stickyTimeout,
    shutdownGraceTime: '10s',
    maxHeartbeatThrottleInterval: '1s',
    defaultHeartbeatThrottleInterval: '1s',
  });
  log.info({ address, namespace, taskQueue: config.taskQueue, node: config.node.url }, 'cordon worker is ready');
  try {
    await worker.run();
  } finally {
    await connection.close();
    await clientConnection.close();
    await node.close();
  }
}

function temporalLogger(log: pino.Logger, { logLevel }: WorkerConfig): DefaultLogger {
  const levels = { TRACE: 'trace', DEBUG: 'debug', INFO: 'info', WARN: 'warn', ERROR: 'error' } as const;
  const core = logLevel === 'fatal' || logLevel === 'silent' ? 'ERROR' : logLevel === 'trace' || logLevel === 'debug' ? 'DEBUG' : 'INFO';
  return new DefaultLogger(core, ({ level, message, meta }: LogEntry) => log[levels[level]](meta ?? {}, message));
}
