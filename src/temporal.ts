import {
  Client,
  Connection,
  QueryNotRegisteredError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
  type ConnectionOptions,
} from '@temporalio/client';
import { WorkflowNotFoundError } from '@temporalio/common';
import { loadClientConnectConfig, type ClientConnectConfig } from '@temporalio/envconfig';
import type { Env } from './config.ts';

/** Where Temporal is, as the `temporal` command would find it: TEMPORAL_* and the profile file. */
export interface TemporalSettings {
  address: string;
  namespace: string;
  /** For the worker's NativeConnection. */
  connectionOptions: ClientConnectConfig['connectionOptions'];
}

/** A connected client; `close` when done. */
export interface TemporalSession {
  settings: TemporalSettings;
  client: Client;
  close: () => Promise<void>;
}

/** The TEMPORAL_* settings or the profile file can't be used. */
export class TemporalConfigError extends Error {
  override readonly name = 'TemporalConfigError';
}

/** Nobody answers at the address, or what answers is no Temporal server. */
export class TemporalUnreachable extends Error {
  override readonly name = 'TemporalUnreachable';
  constructor(settings: TemporalSettings, why: string) {
    super(`no Temporal server answers at ${settings.address} (namespace ${settings.namespace}): ${why}`);
  }
}

/** A call that took longer than it may. */
export class DeadlineExceeded extends Error {
  override readonly name = 'DeadlineExceeded';
  constructor(ms: number) {
    super(`no answer within ${ms} ms`);
  }
}

/** Reads the settings; nothing connects. Throws {@link TemporalConfigError}. */
export function loadTemporalSettings(env?: Env): TemporalSettings {
  let loaded: ClientConnectConfig;
  try {
    loaded = loadClientConnectConfig(env === undefined ? {} : { overrideEnvVars: definedOnly(env) });
  } catch (error) {
    throw new TemporalConfigError(`TEMPORAL_* settings: ${error instanceof Error ? error.message : String(error)}`);
  }
  const address = loaded.connectionOptions.address ?? '127.0.0.1:7233';
  return {
    address,
    namespace: loaded.namespace ?? 'default',
    connectionOptions: { ...loaded.connectionOptions, address },
  };
}

/** What a client of the same server takes: what is a worker's alone is left out. */
export function clientOptions({ connectionOptions: { address, tls, apiKey, metadata } }: TemporalSettings): ConnectionOptions {
  return {
    ...(address === undefined ? {} : { address }),
    ...(tls === undefined ? {} : { tls }),
    ...(apiKey === undefined ? {} : { apiKey }),
    ...(metadata === undefined ? {} : { metadata }),
  };
}

/** Connects within `timeoutMs` or throws {@link TemporalUnreachable}. Payloads use the default converter. */
export async function connectTemporal(
  settings: TemporalSettings = loadTemporalSettings(),
  { timeoutMs = 2_000 }: { timeoutMs?: number } = {},
): Promise<TemporalSession> {
  const { address, tls, apiKey, metadata } = settings.connectionOptions;
  try {
    const connecting = Connection.connect({
      connectTimeout: timeoutMs,
      ...(address === undefined ? {} : { address }),
      ...(tls === undefined ? {} : { tls }),
      ...(apiKey === undefined ? {} : { apiKey }),
      ...(metadata === undefined ? {} : { metadata }),
    });
    const connection = await deadline(connecting, timeoutMs + 500);
    const client = new Client({ connection, namespace: settings.namespace });
    return { settings, client, close: () => connection.close() };
  } catch (error) {
    throw new TemporalUnreachable(settings, error instanceof Error ? error.message : String(error));
  }
}

/**
 * Runs calls on the client that must answer within `ms`, retries included.
 * Throws {@link DeadlineExceeded}, or the call's own error when that comes first.
 */
export async function withDeadline<T>(client: Client, ms: number, call: () => Promise<T>): Promise<T> {
  try {
    // The race covers what the gRPC deadline does not: back-off between the client's own retries.
    return await deadline(client.connection.withDeadline(Date.now() + ms, call), ms + 250);
  } catch (error) {
    if (isTimeout(error)) throw new DeadlineExceeded(ms);
    throw error;
  }
}

/** True for errors that mean: the server is there, but no worker answered for this workflow. */
export function isNoWorker(error: unknown): boolean {
  if (error instanceof DeadlineExceeded || isTimeout(error)) return true;
  if (error instanceof QueryNotRegisteredError) return true;
  // FAILED_PRECONDITION: no poller, no first workflow task yet, or a workflow task that keeps failing.
  return chain(error).some((e) => grpcCode(e) === 9);
}

/** True when the workflow does not exist (or, for a message, is closed). */
export function isNotFound(error: unknown): boolean {
  return chain(error).some((e) => e instanceof WorkflowNotFoundError || grpcCode(e) === 5);
}

/** True for errors that mean: the Temporal server itself can't be reached any more. */
export function isUnreachable(error: unknown): boolean {
  return chain(error).some((e) => e instanceof TemporalUnreachable || grpcCode(e) === 14);
}

function isTimeout(error: unknown): boolean {
  return chain(error).some(
    // CANCELLED is how the client's own deadline shows now and then.
    (e) => e instanceof DeadlineExceeded || e instanceof WorkflowUpdateRPCTimeoutOrCancelledError || grpcCode(e) === 4 || grpcCode(e) === 1,
  );
}

function grpcCode(error: Error): number | undefined {
  return 'code' in error && typeof error.code === 'number' ? error.code : undefined;
}

/** An error and its causes, outermost first. */
function chain(error: unknown): Error[] {
  const found: Error[] = [];
  for (let at = error; at instanceof Error && found.length < 10; at = at.cause) found.push(at);
  return found;
}

async function deadline<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new DeadlineExceeded(ms)), ms);
  });
  // A loser that fails later is nobody's business any more.
  work.catch(() => undefined);
  return await Promise.race([work, late]).finally(() => clearTimeout(timer));
}

function definedOnly(env: Env): Record<string, string> {
  return Object.fromEntries(Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}
