import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { approveBySignal, approveByUpdate } from '../helpers/honest.ts';
import { bytes, json, junk, knownSignals, large, rawSignal, rawUpdate, unknownSignals, type RawPayload } from '../helpers/raw-messages.ts';
import { approve, closeAs, devServer, gateOpen, plan, status, until, withIncident, type Incident } from '../helpers/workflow-env.ts';

let env: Awaited<ReturnType<typeof devServer>>;
beforeAll(async () => {
  env = await devServer('messages');
});
afterAll(async () => {
  await env?.stop();
});

const signals = [...knownSignals, ...unknownSignals];

async function startRaw(
  payloads: readonly RawPayload[],
  over: object = {},
): Promise<{ type: string; message: string; nonRetryable: boolean }> {
  const workflowId = `raw-${randomUUID()}`;
  return withIncident(env, fakeWorld(), async (other) => {
    const { taskQueue } = await other.describe();
    const { runId } = await env.client.workflowService.startWorkflowExecution({
      namespace: 'default',
      workflowId,
      workflowType: { name: 'PeerCompromise' },
      taskQueue: { name: taskQueue },
      input: { payloads: [...payloads] },
      requestId: randomUUID(),
      ...over,
    });
    const handle = env.client.workflow.getHandle(workflowId, runId, { followRuns: false });
    await expect(handle.result()).rejects.toThrow();
    const failure = (await handle.fetchHistory()).events?.at(-1)?.workflowExecutionFailedEventAttributes?.failure;
    // A schedule would start the next run.
    await env.client.workflow
      .getHandle(workflowId)
      .terminate('the test is over')
      .catch(() => undefined);
    const { type, nonRetryable } = failure?.applicationFailureInfo ?? {};
    return { type: type ?? '', message: failure?.message ?? '', nonRetryable: nonRetryable ?? false };
  });
}

describe('a bad start fails at once with InvalidInput, and says which field, what was expected, what came', () => {
  const start = (value: unknown): readonly RawPayload[] => [json(JSON.stringify(value))];
  const cases: readonly (readonly [string, readonly RawPayload[], RegExp])[] = [
    ['no arguments', [], /expected exactly one JSON object, got 0 arguments/],
    ['two arguments', [json('{"peer":"x"}'), json('{"recordedRun":"x"}')], /expected exactly one JSON object, got 2 arguments/],
    ['a wrong type of one field', start({ peer: 42 }), /peer: expected string, got 42/],
    ['no peer', start({}), /peer: expected string, got undefined/],
    ['an unknown field', start({ peer: 'x', watchers: 1 }), /Unrecognized key: "watchers"/],
    ['a bad time', start({ peer: 'x', firstBadAt: 'yesterday' }), /firstBadAt: expected an ISO 8601 time.*got "yesterday"/],
    ['a bad duration', start({ peer: 'x', watch: '1 day' }), /watch: expected a duration.*got "1 day"/],
    ['a bad alert', start({ peer: 'x', alerts: [{ name: '' }] }), /alerts\.0\.name: .*got ""/],
    [
      'a policy that loosens',
      start({ peer: 'x', policy: { gates: { retract: { expiresAfter: '9d' } } } }),
      /policy\.gates\.retract\.expiresAfter: .*expected at most 24h/,
    ],
    ['a list', start(['x']), /\(whole payload\): expected object, got \["x"\]/],
    ['null', start(null), /\(whole payload\): expected object, got null/],
    ['undecodable bytes', [json('{"peer":')], /expected object, got "undecodable payload of 8 bytes/],
    ['an unknown encoding', [json('{}', 'made/up')], /undecodable payload of 2 bytes/],
    ['no metadata', [{ data: bytes('{}') }], /undecodable payload/],
    ...Object.entries(junk).map(
      ([kind, payloads]) => [`junk: ${kind}`, payloads, /^start: /] satisfies [string, readonly RawPayload[], RegExp],
    ),
    [
      'two arguments of 900 KB',
      [...start('x'.repeat(900_000)), ...start('y'.repeat(900_000))],
      /expected exactly one JSON object, got 2 arguments/,
    ],
    ['a string of 1.5 MB', large, /expected object, got "xxx/],
    ['an unknown field with a name of 1.5 MB', start({ peer: 'x', ['y'.repeat(1_500_000)]: 1 }), /Unrecognized key: "yyy/],
    [
      'alerts of more than one payload can carry on',
      start({ peer: 'x', alerts: Array.from({ length: 400 }, () => ({ name: 'n', detail: 'd'.repeat(3_900) })) }),
      /alerts: expected at most 300000 characters in all, got 15/,
    ],
  ];
  for (const [name, payloads, expected] of cases) {
    test(`with ${name}`, async () => {
      expect(await startRaw(payloads)).toEqual({ type: 'InvalidInput', nonRetryable: true, message: expect.stringMatching(expected) });
    });
  }

  test('an empty signal name is refused by the server itself', async () => {
    await withIncident(env, fakeWorld(), async (incident) => {
      await expect(rawSignal(env, incident, '', [])).rejects.toThrow(/SignalName is not set/);
    });
  });

  test('a schedule of runs', async () => {
    const failed = await startRaw(start({ peer: 'x' }), { cronSchedule: '@every 1s' });
    expect(failed).toMatchObject({ type: 'InvalidInput', message: expect.stringContaining('expected no cron schedule') });
  });
});

test('malformed signals of every kind under every name are on record, and an honest decision still counts', async () => {
  const world = fakeWorld();
  await withIncident(env, world, async (incident) => {
    await gateOpen(incident, 'retract');
    let sent = 0;
    for (const name of signals) {
      for (const payloads of Object.values(junk)) {
        await rawSignal(env, incident, name, payloads);
        sent += 1;
      }
    }
    for (const name of ['approve', 'alert', 'sudo']) {
      await rawSignal(env, incident, name, large);
      sent += 1;
    }
    expect(sent).toBeGreaterThan(100);
    const after = await until(incident, ({ refused }) => refused.count === sent, `${sent} refusals`);
    expect(new Set(after.refused.last.map(({ because }) => because))).toEqual(new Set(['malformed']));
    expect(after).toMatchObject({ phase: 'retract', alerts: { count: 0 }, notes: [] });
    const { opening, have } = await gateOpen(incident, 'retract');
    expect({ opening, have }).toEqual({ opening: 1, have: 0 });
    // 4 MB of junk may make it continue as new, which shows a new digest.
    await approveBySignal(incident, 'bob');
    await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
    expect([...world.undone.keys()]).toEqual(['fact-a', 'fact-b']);
    expect(await closeAs(incident, 'expelled')).toMatchObject({ outcome: 'expelled' });
  });
});

test('signals that came with the start, before anything was known, are on record too', async () => {
  await withIncident(env, fakeWorld(), async (other) => {
    const { taskQueue } = await other.describe();
    const workflowId = `with-start-${randomUUID()}`;
    await env.client.workflowService.signalWithStartWorkflowExecution({
      namespace: 'default',
      workflowId,
      workflowType: { name: 'PeerCompromise' },
      taskQueue: { name: taskQueue },
      input: { payloads: [json('{"peer":"x"}')] },
      signalName: '__temporal_made_up',
      signalInput: { payloads: [json('{')] },
      requestId: randomUUID(),
    });
    const incident: Incident = env.client.workflow.getHandle(workflowId);
    await gateOpen(incident, 'retract');
    expect((await status(incident)).refused).toMatchObject({
      count: 1,
      last: [{ because: 'malformed', detail: expect.stringContaining('__temporal_made_up') }],
    });
    expect(await closeAs(incident, 'expelled')).toMatchObject({ outcome: 'expelled' });
  });
});

test('malformed and unknown updates are answered and on record', async () => {
  await withIncident(env, fakeWorld(), async (incident) => {
    await gateOpen(incident, 'retract');
    let sent = 0;
    for (const name of ['decide', 'amend', 'sudo', '__temporal_made_up']) {
      for (const [kind, payloads] of Object.entries({ ...junk, large })) {
        expect(await rawUpdate(env, incident, name, payloads), `${name} with ${kind}`).toMatchObject({
          accepted: false,
          refusedBecause: 'malformed',
          detail: expect.any(String),
        });
        sent += 1;
      }
    }
    expect((await status(incident)).refused.count).toBe(sent);
    // So much came that the run is switched, before this decision or under it.
    const { digest } = await gateOpen(incident, 'retract');
    expect(await approveByUpdate(incident, 'bob', digest)).toMatchObject({ accepted: true });
    expect(await closeAs(incident, 'expelled')).toMatchObject({ outcome: 'expelled' });
  });
});

test('the largest messages that fit their shape wedge nothing', async () => {
  await withIncident(env, fakeWorld(), async (incident) => {
    const { digest } = await gateOpen(incident, 'retract');
    const keep = Array.from({ length: 900 }, (_, index) => ({ factId: `fact-${index}`, justification: 'j'.repeat(1_900) }));
    await incident.signal('amend', { gate: 'retract', digest, keep, by: 'bob' });
    await until(incident, ({ refused }) => refused.last.at(-1)?.because === 'malformed', 'refused');
    for (let index = 0; index < 30; index += 1) await incident.signal('alert', { name: `alert ${index}`, detail: 'd'.repeat(4_000) });
    await incident.signal('note', { by: 'alice', text: 't'.repeat(4_000) });
    await until(incident, ({ alerts, notes }) => alerts.count === 30 && notes.length === 1, 'taken');
    expect(await closeAs(incident, 'expelled')).toMatchObject({ outcome: 'expelled' });
  });
});

test('a query with bad arguments fails only itself', async () => {
  await withIncident(env, fakeWorld(), async (incident) => {
    await gateOpen(incident, 'retract');
    for (const bad of ['nonsense', { gate: 'nonsense' }, { gates: 1 }, [], 'x'.repeat(100_000)]) {
      await expect(incident.query('plan', bad)).rejects.toThrow(/plan: /);
    }
    await expect(incident.query('made_up')).rejects.toThrow();
    expect(await plan(incident, 'close')).toMatchObject({ gate: null });
    expect((await status(incident)).refused.count).toBe(0);
    expect(await closeAs(incident, 'expelled')).toMatchObject({ outcome: 'expelled' });
  });
});

test('a cancel request changes nothing but the record: every message still works', async () => {
  const world = fakeWorld();
  await withIncident(env, world, async (incident) => {
    const { digest } = await gateOpen(incident, 'retract');
    await incident.cancel();
    const asked = await until(
      incident,
      ({ warnings }) => warnings.some((warning) => warning.includes('Cancel was requested')),
      'the record',
    );
    expect(asked).toMatchObject({ phase: 'retract', state: 'waiting', outcome: null });
    await incident.signal('approve', { gate: 'retract', digest: `sha256:${'0'.repeat(64)}`, by: 'mallory' });
    await incident.signal('amend', { gate: 'retract', digest, keep: [{ factId: 'fact-a', justification: 'checked' }], by: 'bob' });
    await gateOpen(incident, 'retract', 2);
    expect(await approve(incident, 'retract')).toMatchObject({ accepted: true });
    const now = await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
    expect(now.refused.last.map(({ because }) => because)).toEqual(['stale_digest']);
    expect([...world.undone.keys()]).toEqual(['fact-b']);
    expect(await closeAs(incident, 'dismissed')).toMatchObject({ outcome: 'dismissed' });
  });
});
