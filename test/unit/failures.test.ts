import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { describe, expect, test } from 'vitest';
import { StepFailure, toApplicationFailure } from '../../activities/failures.ts';
import { failureTypes, isFailureType } from '../../src/contract/failures.ts';
import { EvidenceError } from '../../src/evidence/errors.ts';
import { PolicyError } from '../../src/policy/load.ts';
import {
  StigmemHttpError,
  StigmemIdentityError,
  StigmemNetworkError,
  StigmemSchemaError,
  StigmemTimeoutError,
  StigmemTooLargeError,
} from '../../src/stigmem/errors.ts';

const site = { method: 'GET', path: '/v1/x' };
const http = (status: number, retryAfterMs: number | null = null) =>
  new StigmemHttpError(site, { status, statusText: 'X', detail: 'why', retryAfterMs });

describe('the only mapping from what can go wrong to ApplicationFailure', () => {
  test.each([
    [new StigmemNetworkError(site, { errno: 'ECONNREFUSED', text: '' }), 'StigmemUnavailable'],
    [new StigmemTimeoutError(site, 5), 'StigmemUnavailable'],
    [http(408), 'StigmemUnavailable'],
    [http(425), 'StigmemUnavailable'],
    [http(429), 'StigmemUnavailable'],
    [http(500), 'StigmemUnavailable'],
    [http(502), 'StigmemUnavailable'],
    [http(401), 'StigmemUnauthorized'],
    [http(403), 'StigmemUnauthorized'],
    [http(400), 'StigmemRejected'],
    [http(404), 'StigmemRejected'],
    [http(409), 'StigmemRejected'],
    [http(422), 'StigmemRejected'],
    [http(302), 'StigmemRejected'],
    [http(405), 'StigmemUnsupported'],
    [http(501), 'StigmemUnsupported'],
    [new StigmemSchemaError(site, { field: 'peers', expected: 'array', came: 'null' }), 'StigmemContract'],
    [new StigmemTooLargeError(site, 5), 'StigmemContract'],
    [new StigmemIdentityError(site, 'a', 'b'), 'StigmemIdentity'],
    [new EvidenceError('full', 'f', 'no space'), 'EvidenceUnavailable'],
    [new PolicyError('bad file'), 'ConfigInvalid'],
    [new StepFailure('PeerNotFound', 'none'), 'PeerNotFound'],
  ])('%s is %s', (error, type) => {
    const failure = toApplicationFailure(error);
    expect(failure).toBeInstanceOf(ApplicationFailure);
    expect(failure).toMatchObject({ type });
    const retryable = isFailureType(type) && failureTypes[type].retryable;
    expect(failure).toMatchObject({ nonRetryable: !retryable, message: error.message });
  });

  test('Retry-After is honoured, an hour at most', () => {
    expect(toApplicationFailure(http(429, 7_000))).toMatchObject({ nextRetryDelay: 7_000 });
    expect(toApplicationFailure(http(503, 86_400_000))).toMatchObject({ nextRetryDelay: 3_600_000 });
    expect(toApplicationFailure(http(429))).toMatchObject({ nextRetryDelay: undefined });
  });

  test('501 is no outage', () => {
    expect(toApplicationFailure(http(501))).toMatchObject({ nonRetryable: true });
  });

  test('cancellation, failures and the unknown pass through', () => {
    for (const error of [new CancelledFailure('stop'), ApplicationFailure.nonRetryable('x', 'InvalidInput'), new TypeError('bug')]) {
      expect(toApplicationFailure(error)).toBe(error);
    }
  });
});
