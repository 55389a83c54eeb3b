import { ApplicationFailure, ApplicationFailureCategory, CancelledFailure } from '@temporalio/common';
import { hiddenCause } from '../src/contract/telemetry.ts';
import { failureTypes, type FailureType } from '../src/contract/failures.ts';
import { EvidenceError } from '../src/evidence/errors.ts';
import { HostFileError, HostRefusedError, HostSchemaError, HostUnavailableError } from '../src/host/database.ts';
import { PolicyError } from '../src/policy/load.ts';
import { StigmemError, StigmemHttpError } from '../src/stigmem/errors.ts';

/** Thrown by activities on purpose, for what is wrong but no error of the node or the store. */
export class StepFailure extends Error {
  override readonly name = 'StepFailure';
  readonly type: FailureType;
  /** When to try again; absent: as the retry policy says. */
  readonly retryAfterMs: number | undefined;
  constructor(type: FailureType, message: string, retryAfterMs?: number) {
    super(message);
    this.type = type;
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * The only mapping from what can go wrong to `ApplicationFailure`. The reason comes first: the server cuts
 * messages at 4 KB. Cancellation passes through; the unknown stays a plain error, which Temporal retries.
 */
export function toApplicationFailure(error: unknown): unknown {
  const failed = failureOf(error);
  // For the worker's log; Temporal does not see it.
  if (failed !== error && failed instanceof ApplicationFailure && error instanceof Error) {
    Object.defineProperty(failed, hiddenCause, { value: error, enumerable: false });
  }
  return failed;
}

function failureOf(error: unknown): unknown {
  if (error instanceof CancelledFailure || error instanceof ApplicationFailure) return error;
  if (error instanceof StepFailure) return failure(error.type, error.message, error.retryAfterMs);
  if (error instanceof StigmemError) return stigmemFailure(error);
  if (error instanceof EvidenceError) return failure('EvidenceUnavailable', error.message);
  if (error instanceof HostSchemaError) return failure('HostUnsupported', error.message);
  if (error instanceof HostUnavailableError || error instanceof HostFileError) return failure('HostUnavailable', error.message);
  if (error instanceof HostRefusedError) return failure('HostRefused', error.message);
  if (error instanceof PolicyError) return failure('ConfigInvalid', error.message);
  return error;
}

function stigmemFailure(error: StigmemError): ApplicationFailure {
  switch (error.code) {
    case 'STIGMEM_NETWORK':
    case 'STIGMEM_TIMEOUT':
      return failure('StigmemUnavailable', error.message);
    case 'STIGMEM_IDENTITY':
      return failure('StigmemIdentity', error.message);
    case 'STIGMEM_SCHEMA':
    case 'STIGMEM_TOO_LARGE':
      return failure('StigmemContract', error.message);
    case 'STIGMEM_HTTP':
      return error instanceof StigmemHttpError ? httpFailure(error) : failure('StigmemRejected', error.message);
  }
}

const unavailable = new Set([408, 425, 429]);

function httpFailure(error: StigmemHttpError): ApplicationFailure {
  const { status, message, retryAfterMs } = error;
  if (status === 405 || status === 501) return failure('StigmemUnsupported', message);
  if (unavailable.has(status) || status >= 500) return failure('StigmemUnavailable', message, retryAfterMs ?? undefined);
  if (status === 401 || status === 403) return failure('StigmemUnauthorized', message);
  return failure('StigmemRejected', message);
}

/** An hour at most: a node that names a later time is asked again before. */
const longestRetryAfterMs = 3_600_000;

function failure(type: FailureType, message: string, retryAfterMs?: number): ApplicationFailure {
  return ApplicationFailure.create({
    type,
    message: message.slice(0, 2_000),
    nonRetryable: !failureTypes[type].retryable,
    // Waiting for the peer, or watching it, is no trouble: for weeks it would stand in every alert about failures.
    ...(type === 'RotationPending' || type === 'WatchGoesOn' ? { category: ApplicationFailureCategory.BENIGN } : {}),
    ...(retryAfterMs === undefined ? {} : { nextRetryDelay: Math.min(retryAfterMs, longestRetryAfterMs) }),
  });
}
