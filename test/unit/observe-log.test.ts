import { ApplicationFailure } from '@temporalio/common';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { toApplicationFailure } from '../../activities/failures.ts';
import { createLog } from '../../src/observe/log.ts';
import { sdkLogger } from '../../src/observe/sdk-log.ts';
import { scrubberOf } from '../../src/observe/scrub.ts';
import { StigmemNetworkError } from '../../src/stigmem/errors.ts';

const secrets = {
  adminKey: 'sk-admin-"quoted"-c4n4ry',
  agentKey: 'agent c4n4ry/with+signs',
  webhook: 'https://hooks.example/services/T0C4N4RY/B0/x?token=c4n4ry-query',
};
const Line = z.looseObject({ level: z.string(), time: z.string(), msg: z.string() });

function logged(level: Parameters<typeof createLog>[0] = 'trace') {
  const raw: string[] = [];
  const log = createLog(level, scrubberOf(Object.values(secrets)), { destination: { write: (text: string) => void raw.push(text) } });
  return { log, raw, lines: () => raw.map((text) => Line.parse(JSON.parse(text))) };
}

describe('secrets', () => {
  test.each(Object.entries(secrets))('%s is cut out wherever it stands', (_name, secret) => {
    const { log, raw, lines } = logged();
    log.info({ deep: { list: [secret, { text: `a ${secret} b` }] }, [secret]: 1 }, `says ${secret}`);
    log.error({ err: new Error(`failed with ${secret}`, { cause: new Error(secret) }) }, 'failed');
    log.warn({ url: encodeURIComponent(secret) }, JSON.stringify({ inner: secret }));
    const text = raw.join('');
    for (const written of [secret, JSON.stringify(secret).slice(1, -1), encodeURIComponent(secret), 'T0C4N4RY', 'c4n4ry-query']) {
      expect(text.includes(written), written).toBe(false);
    }
    expect(text.match(/\[secret\]/g)?.length).toBeGreaterThanOrEqual(6);
    expect(lines()).toHaveLength(3);
  });

  test('fields that are named like secrets are never shown, known or not', () => {
    const { log, raw } = logged();
    log.info(
      { adminKey: 'never-told-of', config: { webhookUrl: 'https://other.example/1', headers: { authorization: 'Bearer other' } } },
      'x',
    );
    expect(raw.join('')).not.toMatch(/never-told-of|other/);
  });

  test('no secret, and one that is too short to be one, change nothing', () => {
    for (const scrub of [scrubberOf([]), scrubberOf([undefined, 'info', ''])]) expect(scrub('{"level":"info"}')).toBe('{"level":"info"}');
  });
});

test('times are UTC, levels are words, and what is below the level is left out', () => {
  const { log, lines } = logged('warn');
  log.info('quiet');
  log.warn('loud');
  expect(lines()).toEqual([
    { level: 'warn', service: 'cordon', time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]{12}Z$/), msg: 'loud' },
  ]);
});

test('errors keep their type and their causes; what Temporal is told has no cause', () => {
  const cause = new StigmemNetworkError({ method: 'GET', path: '/x' }, { errno: 'ECONNREFUSED', text: 'refused' }, new Error('connect'));
  const failure = toApplicationFailure(cause);
  const { log, lines } = logged();
  log.warn({ err: failure }, 'failed');
  log.warn({ err: new TypeError('odd') }, 'failed');
  log.warn({ err: 'no error at all' }, 'failed');
  const [known, unknown, text] = lines().map(({ err }) => err);
  expect(known).toEqual({
    name: 'ApplicationFailure',
    type: 'StigmemUnavailable',
    message: expect.stringContaining('ECONNREFUSED'),
    retryable: true,
    cause: {
      name: 'StigmemNetworkError',
      type: 'STIGMEM_NETWORK',
      message: expect.any(String),
      cause: expect.objectContaining({ message: 'connect' }),
    },
  });
  expect(failure).toBeInstanceOf(ApplicationFailure);
  expect(failure).toHaveProperty('cause', undefined);
  expect(unknown).toMatchObject({ name: 'TypeError', message: 'odd', stack: expect.stringContaining('observe-log.test') });
  expect(text).toEqual({ name: 'string', message: 'no error at all' });
});

describe("the SDK's lines", () => {
  const meta = {
    workflowId: 'peer-compromise:p',
    runId: 'run-1',
    workflowType: 'PeerCompromise',
    taskToken: 'dG9rZW4=',
    namespace: 'default',
  };

  test('name the incident and its run, and no task token', () => {
    const { log, raw, lines } = logged();
    const told: Readonly<Record<string, unknown>>[] = [];
    const sdk = sdkLogger(log, (fields) => void told.push(fields));
    sdk.info('from the workflow', { ...meta, event: 'phase_ended' });
    sdk.debug('from an activity', { ...meta, runId: undefined, workflowRunId: 'run-1', activityType: 'fenceInbound', attempt: 2 });
    sdk.warn('of a sealing workflow', {
      ...meta,
      workflowId: 'cordon-seal:a:b',
      workflowType: 'SealHistory',
      incident: 'peer-compromise:p',
    });
    for (const line of lines()) expect(line).toMatchObject({ incident: 'peer-compromise:p', run: 'run-1' });
    expect(lines()[1]).toMatchObject({ level: 'debug', activity: 'fenceInbound', attempt: 2 });
    expect(lines()[2]).toMatchObject({ workflow: 'cordon-seal:a:b' });
    expect(raw.join('')).not.toContain('dG9rZW4');
    expect(told.map(({ event }) => event)).toEqual(['phase_ended', undefined, undefined]);
  });

  test('of a claim are not about an incident', () => {
    const { log, lines } = logged();
    sdkLogger(log).info('claimed', { ...meta, workflowId: 'cordon-claim:1', workflowType: 'PeerClaim' });
    expect(lines()[0]).toMatchObject({ workflow: 'cordon-claim:1', workflowType: 'PeerClaim' });
    expect(lines()[0]).not.toHaveProperty('incident');
  });
});
