import { pino } from 'pino';
import type { LogLevelName } from '../config.ts';
import { hiddenCause } from '../contract/telemetry.ts';
import type { Scrub } from './scrub.ts';

export type Log = pino.Logger;

/** Fields that never hold what a reader may see, wherever they turn up. */
const secretFields = ['adminKey', 'agentKey', 'apiKey', 'webhookUrl', 'authorization', 'Authorization', 'password', 'token'];

/**
 * One JSON object a line on standard output, written at once: a killed worker has said all it knew. Known
 * secrets are cut out of the finished line, wherever they stand.
 */
export function createLog(
  level: LogLevelName,
  scrub: Scrub,
  { service = 'cordon', destination = pino.destination({ sync: true }) }: { service?: string; destination?: pino.DestinationStream } = {},
): Log {
  return pino(
    {
      level,
      base: { service },
      // Lines of the SDK come a moment late and bring their own time.
      timestamp: false,
      mixin: () => ({ time: new Date().toISOString() }),
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: errorFields },
      redact: { paths: secretFields.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '[secret]' },
      hooks: { streamWrite: scrub },
    },
    destination,
  );
}

interface ErrorFields {
  readonly name: string;
  readonly type?: string;
  readonly message: string;
  readonly retryable?: boolean;
  readonly stack?: string;
  readonly cause?: ErrorFields;
}

const deepest = 6;

/** An error with its type and its causes; a stack only where nothing names what went wrong. */
export function errorFields(error: unknown, depth = 0): ErrorFields {
  if (!(error instanceof Error)) return { name: typeof error, message: String(error).slice(0, 2_000) };
  const own = (key: PropertyKey): unknown => Object.getOwnPropertyDescriptor(error, key)?.value;
  const type = ['type', 'code'].map((key) => own(key)).find((value) => typeof value === 'string');
  const nonRetryable = own('nonRetryable');
  const cause = error.cause ?? own(hiddenCause);
  return {
    name: error.name,
    ...(typeof type === 'string' ? { type } : {}),
    message: error.message.slice(0, 2_000),
    ...(typeof nonRetryable === 'boolean' ? { retryable: !nonRetryable } : {}),
    ...(type === undefined && error.stack !== undefined ? { stack: error.stack.slice(0, 4_000) } : {}),
    ...(cause === undefined || depth >= deepest ? {} : { cause: errorFields(cause, depth + 1) }),
  };
}
