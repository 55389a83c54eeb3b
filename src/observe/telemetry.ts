import type { Client } from '@temporalio/client';
import { Runtime, type RuntimeOptions, type Worker, type WorkerInterceptors } from '@temporalio/worker';
import type { LogLevelName } from '../config.ts';
import { observeActivities } from './activity-observer.ts';
import { zeroCounters } from './counters.ts';
import { serveHealth } from './health.ts';
import { asAddress } from './listen.ts';
import { createLog, type Log } from './log.ts';
import { watchOverview, type OverviewOptions } from './overview.ts';
import { scrubberOf } from './scrub.ts';
import { sdkLogger } from './sdk-log.ts';
import type { Tracing } from './tracing.ts';

/** What decides how a worker is seen. */
export interface TelemetryConfig {
  readonly logLevel: LogLevelName;
  readonly metricsListen: string | undefined;
  readonly healthListen: string | undefined;
  readonly otlpUrl: string | undefined;
  /** Whatever must never be written. */
  readonly secrets: readonly (string | undefined)[];
}

/** A worker, as telemetry sees it. */
export interface Seen {
  /** Undefined until it is made. */
  readonly worker: () => Worker | undefined;
  readonly temporal: Client;
  readonly taskQueue: string;
  readonly namespace: string;
  readonly evidenceDir: string;
}

/** Everything by which a worker is seen: log lines, metrics, traces, health. Installs the SDK's runtime. */
export interface Telemetry {
  readonly log: Log;
  readonly interceptors: WorkerInterceptors;
  /** Begins to serve metrics of incidents, and health. Throws when an address can't be listened on. */
  serve(seen: Seen): Promise<void>;
  stop(): Promise<void>;
}

const healthMs = 2_000;
const flushMs = 3_000;

export async function startTelemetry(config: TelemetryConfig): Promise<Telemetry> {
  const scrub = scrubberOf(config.secrets);
  const log = createLog(config.logLevel, scrub);
  const tracing = await startTracing(config.otlpUrl, log, scrub);
  const { metricsListen } = config;
  const bindAddress = metricsListen === undefined ? undefined : await asAddress(metricsListen);
  Runtime.install({
    logger: sdkLogger(log, tracing && ((fields) => tracing.ended(fields))),
    telemetryOptions: telemetryOptions(config.logLevel, bindAddress),
    shutdownSignals: ['SIGINT', 'SIGTERM'],
  });
  const stops: (() => Promise<void>)[] = [];
  return {
    log,
    interceptors: { activity: [observeActivities(tracing)] },
    async serve(seen) {
      if (bindAddress !== undefined) stops.push(serveMetrics(seen, log));
      if (config.healthListen !== undefined) {
        const { stop } = await serveHealth(config.healthListen, () => unhealthy(seen));
        stops.push(stop);
      }
    },
    async stop() {
      await Promise.all(stops.map((stop) => stop()));
      if (tracing) await Promise.race([tracing.stop(), new Promise((resolve) => setTimeout(resolve, flushMs).unref())]);
    },
  };
}

/** What SDK Core says is for people who debug it, but for warnings. */
const coreLevels = { trace: 'DEBUG', debug: 'INFO', info: 'WARN', warn: 'WARN', error: 'ERROR', fatal: 'ERROR', silent: 'ERROR' } as const;

function telemetryOptions(level: LogLevelName, bindAddress: string | undefined): NonNullable<RuntimeOptions['telemetryOptions']> {
  return {
    logging: { forward: {}, filter: { core: coreLevels[level], other: 'ERROR' } },
    ...(bindAddress === undefined
      ? {}
      : { metrics: { prometheus: { bindAddress, countersTotalSuffix: true, unitSuffix: true, useSecondsForDurations: true } } }),
  };
}

/** Loaded only where somebody wants traces. */
async function startTracing(url: string | undefined, log: Log, scrub: (text: string) => string): Promise<Tracing | undefined> {
  if (url === undefined) return undefined;
  const { Tracing: Started } = await import('./tracing.ts');
  return new Started(
    url,
    'cordon-worker',
    scrub,
    onceAMinute((why) => log.warn({ component: 'tracing' }, `traces are not taken: ${why}`)),
  );
}

/** A collector that is down is said, and does not fill the log. */
function onceAMinute(say: (why: string) => void): (why: string) => void {
  let saidAt = 0;
  return (why) => {
    if (Date.now() - saidAt < 60_000) return;
    saidAt = Date.now();
    say(why.slice(0, 500));
  };
}

function serveMetrics({ temporal, taskQueue, namespace, evidenceDir }: Seen, log: Log): () => Promise<void> {
  const ending = new AbortController();
  const meter = Runtime.instance().metricMeter;
  zeroCounters(meter, namespace, taskQueue);
  // Said once, and once more when it works again.
  const failing = new Set<string>();
  const stale: OverviewOptions['stale'] = (what, error) => {
    if ((error !== undefined) === failing.has(what)) return;
    if (error === undefined) {
      failing.delete(what);
      log.info(`the metrics of the ${what} are brought up to date again`);
    } else {
      failing.add(what);
      log.warn({ err: error }, `the metrics of the ${what} are not brought up to date`);
    }
  };
  const watching = watchOverview({ temporal, taskQueue, namespace, evidenceDir, meter, stale, signal: ending.signal });
  return async () => {
    ending.abort();
    await watching;
  };
}

async function unhealthy({ worker, temporal }: Seen): Promise<string | undefined> {
  const state = worker()?.getState() ?? 'STARTING';
  if (state !== 'RUNNING') return `the worker is ${state}`;
  try {
    await temporal.connection.withDeadline(Date.now() + healthMs, () => temporal.workflowService.getSystemInfo({}));
    return undefined;
  } catch (error) {
    return `Temporal does not answer: ${error instanceof Error ? error.message : String(error)}`.slice(0, 300);
  }
}
