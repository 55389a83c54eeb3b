import { Client, Connection } from '@temporalio/client';
import type { MetricGauge, MetricMeter, MetricTags } from '@temporalio/common';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { waitUntil } from '../../src/lab/processes.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { watchOverview } from '../../src/observe/overview.ts';

// Many open incidents that nobody works on: the gauges must not need a worker that holds them.

const many = 450;
const dir = join(repoRoot, '.test', 'overview');
let server: TemporalServer;
let connection: Connection;
let client: Client;

beforeAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  server = await startTemporal({ dir: join(dir, 'temporal') });
  connection = await Connection.connect({ address: server.address });
  client = new Client({ connection });
  const since = new Date(Date.now() - 3_600_000).toISOString();
  const start = (i: number, taskQueue: string) =>
    client.workflow.start('PeerCompromise', {
      taskQueue,
      workflowId: `${taskQueue}-${i}`,
      memo: {
        cordon: { phase: 'retract', mode: 'live', steps: ['revokeKeys:manual'], since: { retract: since }, notVerified: { unverified: 2 } },
      },
    });
  for (let from = 0; from < many; from += 50) await Promise.all(Array.from({ length: 50 }, (_unused, i) => start(from + i, 'ours')));
  await start(0, 'theirs');
}, 120_000);
afterAll(async () => {
  await connection?.close();
  await server?.stop();
});

/** Watches until it has looked once, as a worker that has just started does. */
async function lookOnce(temporal = client): Promise<{ readonly values: Map<string, number>; readonly stale: readonly string[] }> {
  const values = new Map<string, number>();
  const gauge = (name: string): MetricGauge => {
    const set = (value: number, { namespace: _n, taskQueue: _q, ...tags }: MetricTags = {}): void => {
      values.set([name, ...Object.values(tags)].join(' '), value);
    };
    return { name, kind: 'gauge', valueType: 'float', set, withTags: () => gauge(name) };
  };
  const meter: Pick<MetricMeter, 'createGauge'> = { createGauge: gauge };
  const ending = new AbortController();
  const stale: string[] = [];
  const watching = watchOverview({
    temporal,
    taskQueue: 'ours',
    namespace: 'default',
    evidenceDir: join(dir, 'not', 'there', 'yet'),
    meter,
    stale: (what, error) => void (error === undefined || stale.push(what)),
    signal: ending.signal,
  });
  await waitUntil('a look', async () => values.has('cordon_evidence_free_bytes'));
  ending.abort();
  await watching;
  return { values, stale };
}

test('a worker that has just started shows them all, page by page, of its own queue; what closed is gone', async () => {
  const now = await waitUntil('Visibility to have all', async () => {
    const { values, stale } = await lookOnce();
    expect(stale).toEqual([]);
    return values.get('cordon_incidents retract live') === many ? values : undefined;
  });
  expect(now.get('cordon_gates_waiting retract live')).toBe(many);
  expect(now.get('cordon_gate_oldest_wait_seconds retract live')).toBeGreaterThanOrEqual(3_600);
  expect(now.get('cordon_steps_pending manual live')).toBe(many);
  expect(now.get('cordon_steps_not_verified unverified live')).toBe(2 * many);
  expect(now.get('cordon_incidents retract drill')).toBe(0);

  await Promise.all(Array.from({ length: 40 }, (_unused, i) => client.workflow.getHandle(`ours-${i}`).terminate()));
  const later = await waitUntil('the closed ones to be gone', async () => {
    const { values, stale } = await lookOnce();
    expect(stale).toEqual([]);
    return values.get('cordon_incidents retract live') === many - 40 ? values : undefined;
  });
  expect(later.get('cordon_gates_waiting retract live')).toBe(many - 40);
}, 120_000);

test('a server that does not answer leaves the gauges as old as their time says, and is told; the evidence folder is looked at all the same', async () => {
  const away = new Client({ connection: Connection.lazy({ address: '127.0.0.1:1' }) });
  try {
    const { values, stale } = await lookOnce(away);
    expect(stale).toEqual(['incidents']);
    expect([...values.keys()]).toEqual(['cordon_evidence_free_bytes']);
  } finally {
    await away.connection.close();
  }
});
