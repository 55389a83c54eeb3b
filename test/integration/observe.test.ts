import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { repoRoot } from '../../src/lab/tools.ts';
import { waitUntil } from '../../src/lab/processes.ts';
import { traceIdOf } from '../../src/observe/tracing.ts';
import { observeIncident, type Observed } from '../helpers/observed-incident.ts';
import { alertQueries, dashboardQueries } from '../helpers/dashboard.ts';
import { spansOf } from '../helpers/receivers.ts';

// One incident on real parts, from start to close, and what is seen of it from outside.

let seen: Observed;
let incident: string;
let lines: Record<string, unknown>[];

beforeAll(async () => {
  seen = await observeIncident();
  ({ incident } = seen);
}, 420_000);
afterAll(async () => {
  await seen?.stop();
});

test('health says 200 while it runs, and 503 while Temporal is away', async () => {
  const { healthUrl, server, worker, rawLines } = seen;
  const health = async () => (await fetch(healthUrl, { signal: AbortSignal.timeout(5_000) })).status;
  expect(await health()).toBe(200);
  expect((await fetch(healthUrl.replace('/healthz', '/'))).status).toBe(404);
  await server.kill();
  expect(await health()).toBe(503);
  await server.start();
  await waitUntil('health again', async () => (await health()) === 200);
  // What comes next is about a worker that has ended.
  await worker.stop(20_000);
  await expect(health()).rejects.toThrow();
  lines = rawLines().map((line): Record<string, unknown> => z.record(z.string(), z.unknown()).parse(JSON.parse(line)));
});

describe('log lines', () => {
  test('each is a JSON object with a UTC time, a level and a message', () => {
    expect(lines.length).toBeGreaterThan(50);
    for (const { time, level, msg } of lines) {
      expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      expect(['trace', 'debug', 'info', 'warn', 'error', 'fatal']).toContain(level);
      expect(msg).toEqual(expect.any(String));
    }
    expect(lines.at(-1)).toMatchObject({ level: 'info', msg: 'cordon worker has stopped' });
  });

  test('each of an activity names incident, run, activity and attempt; those of a step its phase, round and step', () => {
    const all = lines.filter(({ component, activity }) => component === 'activity' || activity !== undefined);
    // The sealing workflow has an id of its own, and its activity starts before anybody read what it is about.
    const own = all.filter(({ activity, msg }) => activity !== 'exportHistory' || msg !== 'Activity started');
    expect(own.length).toBeGreaterThan(30);
    for (const line of own) {
      expect(line).toMatchObject({ incident, run: expect.any(String), activity: expect.any(String), attempt: expect.any(Number) });
      expect(line).not.toHaveProperty('taskToken');
    }
    expect(own.find(({ activity, msg }) => activity === 'fenceInbound' && String(msg).startsWith('fenceInbound '))).toMatchObject({
      phase: 'contain',
      round: 1,
      step: 'fenceInbound',
      mode: 'live',
    });
    expect(own.filter(({ activity }) => activity === 'exportHistory')).not.toEqual([]);
  });

  test('each of the workflow names incident and run; phases, gates, votes and steps are told once', () => {
    const own = lines.filter(({ component }) => component === 'workflow');
    expect(own.length).toBeGreaterThan(20);
    for (const line of own) expect(line).toMatchObject({ incident: expect.any(String), run: expect.any(String) });
    const told = (event: string) => own.filter((line) => line['event'] === event && line['incident'] === incident);
    expect(told('phase_ended').map(({ phase }) => phase)).toEqual(['identify', 'contain', 'investigate', 'retract', 'rotate']);
    expect(told('gate_opened').map(({ gate }) => gate)).toEqual(['retract', 'close']);
    expect(told('gate_ended').map(({ gate, how }) => [gate, how])).toEqual([
      ['retract', 'approved'],
      ['close', 'approved'],
    ]);
    expect(told('vote_counted').map(({ gate, by }) => [gate, by])).toEqual([
      ['retract', 'bob'],
      ['close', 'bob'],
    ]);
    expect(told('message_refused').map(({ because }) => because)).toEqual(['malformed', 'malformed', 'malformed', 'stale_digest']);
    expect(told('incident_closed')).toMatchObject([{ outcome: 'expelled', firstRun: seen.firstRun }]);
    const ended = told('step_ended').map(({ step }) => step);
    expect(ended).toEqual(expect.arrayContaining(['fenceInbound', 'undoFacts', 'seal']));
    expect(ended.filter((step) => step === 'fenceInbound')).toHaveLength(1);
  });

  test('levels: a failed attempt and its repeat warn, with the type of the error and its cause; what works is info', () => {
    const [failed] = lines.filter(({ msg, err }) => msg === 'Activity failed' && err !== undefined);
    expect(failed).toMatchObject({
      level: 'warn',
      attempt: 1,
      step: expect.stringMatching(/^fence/),
      err: { type: 'StigmemUnavailable', retryable: true, cause: { type: 'STIGMEM_HTTP', message: expect.stringContaining('503') } },
    });
    const again = lines.filter(({ msg }) => String(msg).endsWith(' is tried again'));
    expect(again).toMatchObject([{ level: 'warn', attempt: 2, activity: failed?.['activity'] }]);
    expect(lines.find(({ msg }) => msg === 'fenceInbound verified')).toMatchObject({ level: 'info', outcome: 'verified', way: 'http' });
    const unverified = lines.filter(({ event, outcome }) => event === 'step_ended' && outcome === 'unverified');
    expect(unverified.length).toBeGreaterThan(0);
    expect(new Set(unverified.map(({ level }) => level))).toEqual(new Set(['warn']));
  });
});

describe('metrics', () => {
  test('show the open incident, its gate and how long it waits, and forget it when it closed', () => {
    expect(seen.atGate.sum('cordon_incidents')).toBe(1);
    expect(seen.atGate.sum('cordon_incidents', { phase: 'retract', mode: 'live' })).toBe(1);
    expect(seen.atGate.sum('cordon_gates_waiting')).toBe(1);
    expect(seen.atGate.sum('cordon_gate_oldest_wait_seconds', { gate: 'retract', mode: 'live' })).toBeLessThan(60);
    expect(seen.atGate.sum('cordon_steps_pending', { kind: 'parked' })).toBe(0);
    expect(seen.atGate.sum('cordon_steps_pending', { kind: 'manual' })).toBeGreaterThan(0);
    expect(seen.atGate.sum('cordon_steps_not_verified')).toBeGreaterThan(0);
    expect(seen.atGate.sum('cordon_evidence_free_bytes')).toBeGreaterThan(0);
    expect(Math.abs(seen.atGate.sum('cordon_overview_timestamp_seconds') - Date.now() / 1_000)).toBeLessThan(600);
    for (const name of ['cordon_gates_waiting', 'cordon_gate_oldest_wait_seconds', 'cordon_steps_pending', 'cordon_steps_not_verified']) {
      expect(seen.atEnd.sum(name), name).toBe(0);
    }
  });

  test('count what was refused, how steps ended and how the incident closed, in the same series from 0 on', () => {
    expect(seen.atGate.sum('cordon_messages_refused_total', { because: 'malformed' })).toBe(3);
    expect(seen.atGate.sum('cordon_messages_refused_total', { because: 'stale_digest' })).toBe(1);
    expect(seen.atGate.sum('cordon_incidents_closed_total')).toBe(0);
    expect(seen.atEnd.sum('cordon_incidents_closed_total', { outcome: 'expelled', mode: 'live' })).toBe(1);
    expect(seen.atEnd.sum('cordon_steps_ended_total', { phase: 'contain', outcome: 'verified' })).toBeGreaterThan(0);
    for (const because of ['malformed', 'closed']) {
      const series = seen.atEnd.series.filter(
        ({ name, labels }) => name === 'cordon_messages_refused_total' && labels['because'] === because,
      );
      expect(series, because).toHaveLength(1);
    }
  });

  test('docs/reference/metrics.md has every metric of ours with its labels, and none that is not there', () => {
    const text = readFileSync(join(repoRoot, 'docs', 'reference', 'metrics.md'), 'utf8');
    const names = (cell = '') => [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name).toSorted();
    const rows = [...text.matchAll(/^\| `(\w+)` \|(.*)\|$/gm)].map(([, name = '', rest = '']) => ({
      name,
      labels: names(rest.split('|')[0]),
    }));
    const everywhere = new Set(['namespace', 'taskQueue', 'workflowType']);
    const own = new Map(seen.atEnd.series.filter(({ name }) => name.startsWith('cordon_')).map(({ name, labels }) => [name, labels]));
    const inScrape = [...own].map(([name, labels]) => ({ name, labels: Object.keys(labels).filter((label) => !everywhere.has(label)) }));
    const byName = (a: { readonly name: string }, b: { readonly name: string }) => a.name.localeCompare(b.name);
    const sorted = inScrape.map(({ name, labels }) => ({ name, labels: labels.toSorted() })).toSorted(byName);
    expect(rows.filter(({ name }) => name.startsWith('cordon_')).toSorted(byName)).toEqual(sorted);
    const sdk = rows.filter(({ name }) => name.startsWith('temporal_')).map(({ name }) => name);
    expect(sdk.length).toBeGreaterThan(5);
    expect(sdk.filter((name) => !seen.atEnd.text.includes(`# TYPE ${name} `))).toEqual([]);
  });

  test('the dashboard and the alerts ask only for metrics and labels that are there', () => {
    const names = new Map<string, Set<string>>();
    for (const { name, labels } of seen.atEnd.series) {
      names.set(name, new Set([...(names.get(name) ?? []), ...Object.keys(labels), 'instance']));
    }
    const asked = [...dashboardQueries(), ...alertQueries()];
    expect(asked.length).toBeGreaterThan(25);
    for (const query of asked) {
      const used = [...query.matchAll(/\b((?:cordon|temporal)_\w+)(?:\{([^}]*)\})?/g)];
      expect(used.length, query).toBeGreaterThan(0);
      const grouped = [...query.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, by = '']) => by.split(',').map((label) => label.trim()));
      for (const [, name = '', selector = ''] of used) {
        expect([...names.keys()], query).toContain(name);
        const selected = [...selector.matchAll(/(\w+)\s*=~?/g)].map(([, label = '']) => label);
        for (const label of [...selected, ...grouped]) expect([...(names.get(name) ?? [])], `${label} in ${query}`).toContain(label);
      }
    }
  });

  test("the SDK's own are there, in seconds", () => {
    for (const name of ['temporal_activity_execution_latency_seconds_count', 'temporal_workflow_task_execution_latency_seconds_count']) {
      expect(seen.atEnd.sum(name), name).toBeGreaterThan(0);
    }
    expect(seen.atEnd.sum('temporal_activity_execution_failed_total')).toBe(1);
  });
});

describe('traces', () => {
  test('one trace for the incident: each span names it, activities lie in their phase, phases in the incident', () => {
    const spans = spansOf(seen.collector);
    expect(spans.length).toBeGreaterThan(25);
    expect(new Set(spans.filter(({ name }) => name !== 'exportHistory').map(({ traceId }) => traceId))).toEqual(
      new Set([traceIdOf(seen.firstRun)]),
    );
    for (const { attributes, name } of spans) expect(attributes['cordon.incident'], name).toBe(incident);
    const [root, ...others] = spans.filter(({ name }) => name === 'incident');
    expect(others).toEqual([]);
    expect(root?.parentSpanId ?? '').toBe('');
    const byId = new Map(spans.map((span) => [span.spanId, span]));
    const phases = spans.filter(({ name }) => name.startsWith('phase '));
    expect(phases.map(({ name }) => name)).toEqual(
      ['identify', 'contain', 'investigate', 'retract', 'rotate'].map((name) => `phase ${name}`),
    );
    for (const { parentSpanId = '' } of phases) expect(byId.get(parentSpanId)?.name).toBe('incident');
    const fence = spans.filter(({ name }) => name === 'fenceInbound' || name === 'fenceOutbound');
    expect(fence.map(({ parentSpanId = '' }) => byId.get(parentSpanId)?.name)).toEqual(fence.map(() => 'phase contain'));
    expect(fence.filter(({ status }) => status?.code === 2)).toMatchObject([{ attributes: { 'cordon.attempt': 1 } }]);
    const gates = spans.filter(({ name }) => name.startsWith('gate '));
    expect(gates.map(({ name, attributes }) => [name, attributes['cordon.how']])).toEqual([
      ['gate retract', 'approved'],
      ['gate close', 'approved'],
    ]);
    const [retract] = gates;
    const seconds = (Number(retract?.endTimeUnixNano) - Number(retract?.startTimeUnixNano)) / 1e9;
    expect(seconds).toBeGreaterThan(0);
    expect(seconds).toBeLessThan(120);
  });
});

test('no key and no webhook is in lines, metrics or spans', () => {
  // The webhook was used, the keys were sent: they were there to leak.
  expect(seen.webhook.bodies.length).toBeGreaterThan(0);
  const texts = { lines: seen.rawLines().join('\n'), metrics: seen.atGate.text + seen.atEnd.text, spans: seen.collector.bodies.join('\n') };
  for (const [where, text] of Object.entries(texts)) {
    expect(text.length, where).toBeGreaterThan(1_000);
    for (const canary of seen.canaries) expect(text.includes(canary), `${where} holds ${canary.slice(0, 6)}…`).toBe(false);
  }
});
