import { NativeConnection, Worker } from '@temporalio/worker';
import { Client, Connection } from '@temporalio/client';
import { fateOf, type Holder } from '../activities/host/fate.ts';
import { createHostActivities } from '../activities/host/index.ts';
import { parseHostConfig } from './config.ts';
import { keepDoors } from './host/door-keeper.ts';
import { openPostgres } from './host/postgres.ts';
import { readHostNode } from './host/schema.ts';
import { openSqlite } from './host/sqlite.ts';
import { startTelemetry } from './observe/telemetry.ts';
import { payloadConverterPath } from './paths.ts';
import { clientOptions, loadTemporalSettings } from './temporal.ts';

/** Changes of one database go one after the other anyway; a listing must not keep a fence waiting. */
const atOnce = 8;

/**
 * `cordon host-worker`: runs on the Stigmem node's own machine and offers what HTTP can't do. Runs until SIGINT or SIGTERM.
 * @param reachTemporal - says in the operator's words why it can't be reached; asked once doors that are overdue are shut
 * Throws ConfigError before anything connects, and HostSchemaError for a database it does not know.
 */
export async function runHostWorker(reachTemporal: () => Promise<void>): Promise<void> {
  const config = parseHostConfig();
  const settings = loadTemporalSettings();
  const telemetry = await startTelemetry({
    ...config,
    secrets: [config.dsn, config.federation.privateKey, settings.connectionOptions.apiKey],
  });
  const { log } = telemetry;
  const database = config.database.kind === 'sqlite' ? openSqlite(config.database.path) : openPostgres(config.database);
  let connection: NativeConnection | undefined;
  let clientConnection: Connection | undefined;
  let worker: Worker | undefined;
  let keeper: Awaited<ReturnType<typeof keepDoors>> | undefined;
  try {
    const { nodeId, migration } = await readHostNode(database);
    // Before anything is connected or polled: a door that was left open is shut whether Temporal answers or not.
    keeper = await keepDoors(database, {
      closed: ({ incident, until }) => log.warn({ incident, until }, 'a door was overdue, and was shut'),
      failed: (error) => log.error({ err: error }, 'doors could not be looked at'),
    });
    await reachTemporal();
    connection = await NativeConnection.connect(settings.connectionOptions);
    clientConnection = await Connection.connect(clientOptions(settings));
    const { namespace } = settings;
    const { hostTaskQueue: taskQueue, evidenceDir, trust, snapshot, promotionCommand, federation } = config;
    const temporal = new Client({ connection: clientConnection, namespace });
    const fate = (holder: Holder) => fateOf({ evidenceDir }, temporal, holder);
    await telemetry.serve({ worker: () => worker, temporal, taskQueue, namespace, evidenceDir });
    worker = await Worker.create({
      connection,
      namespace,
      taskQueue,
      dataConverter: { payloadConverterPath: payloadConverterPath() },
      activities: createHostActivities({ database, evidenceDir, trust, snapshot, promotionCommand, federation, fateOf: fate }),
      interceptors: telemetry.interceptors,
      maxConcurrentActivityTaskExecutions: atOnce,
      shutdownGraceTime: '10s',
      maxHeartbeatThrottleInterval: '1s',
      defaultHeartbeatThrottleInterval: '1s',
    });
    log.info(
      { address: settings.address, namespace, taskQueue, node: nodeId, storage: database.kind, migration },
      'cordon host worker is ready',
    );
    await worker.run();
    log.info('cordon host worker has stopped');
  } catch (error) {
    log.fatal({ err: error }, 'cordon host worker has failed');
    throw error;
  } finally {
    await telemetry.stop();
    await keeper?.stop();
    await connection?.close();
    await clientConnection?.close();
    await database.close();
  }
}
