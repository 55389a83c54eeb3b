import type { Client } from '@temporalio/client';
import type { MetricGauge, MetricMeter } from '@temporalio/common';
import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { gates, phases, workflowType, type Phase } from '../contract/names.ts';
import { gauges } from '../contract/telemetry.ts';

/** How often the gauges are brought up to date. */
const everyMs = 15_000;
/** One answer of the server may take this long; the gauges then stay as old as their timestamp says. */
const answerMs = 10_000;
const pageSize = 200;

const modes = ['live', 'drill'] as const;
const kinds = ['parked', 'manual', 'held', 'paced'] as const;
const notVerified = ['unverified', 'unavailable'] as const;

/** The incident's own summary of itself, as the workflow keeps it in its memo. */
const Memo = z.object({
  cordon: z.object({
    phase: z.enum(phases),
    mode: z.enum(modes),
    steps: z.array(z.string()),
    // Not in what 0.1.0 wrote.
    since: z.record(z.string(), z.iso.datetime().nullable()).default({}),
    notVerified: z.record(z.string(), z.int()).default({}),
  }),
});
export type Summary = z.infer<typeof Memo>['cordon'];

/** The summary in a memo; one that has none yet has only just begun. */
export function summaryOf(memo: unknown): Summary {
  const first: Phase = 'identify';
  return Memo.safeParse(memo).data?.cordon ?? { phase: first, mode: 'live', steps: [], since: {}, notVerified: {} };
}

/** One value of one gauge. */
export interface Sample {
  readonly gauge: keyof typeof gauges;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/**
 * Everything the gauges show of these incidents. Every label is there each time, with 0 where there is nothing:
 * a gauge keeps its last value for ever, and a closed incident would stay in it.
 */
export function samplesOf(incidents: readonly Summary[], nowMs: number): Sample[] {
  return modes.flatMap((mode) => {
    const of = incidents.filter((incident) => incident.mode === mode);
    const waits = (gate: string) => of.flatMap(({ since }) => (since[gate] === null || since[gate] === undefined ? [] : [since[gate]]));
    const oldest = (gate: string) => Math.max(0, ...waits(gate).map((since) => (nowMs - Date.parse(since)) / 1_000));
    return [
      ...phases.map((phase): Sample => ({
        gauge: 'incidents',
        labels: { phase, mode },
        value: of.filter((incident) => incident.phase === phase).length,
      })),
      ...gates.map((gate): Sample => ({ gauge: 'gatesWaiting', labels: { gate, mode }, value: waits(gate).length })),
      ...gates.map((gate): Sample => ({ gauge: 'gateOldestWait', labels: { gate, mode }, value: oldest(gate) })),
      ...kinds.map((kind): Sample => ({
        gauge: 'stepsPending',
        labels: { kind, mode },
        value: of.flatMap(({ steps }) => steps).filter((step) => step.endsWith(`:${kind}`)).length,
      })),
      ...notVerified.map((outcome): Sample => ({
        gauge: 'stepsNotVerified',
        labels: { outcome, mode },
        value: of.reduce((sum, incident) => sum + (incident.notVerified[outcome] ?? 0), 0),
      })),
    ];
  });
}

/** What {@link watchOverview} works with. */
export interface OverviewOptions {
  readonly temporal: Client;
  readonly taskQueue: string;
  readonly namespace: string;
  readonly evidenceDir: string;
  readonly meter: Pick<MetricMeter, 'createGauge'>;
  /** What was not brought up to date, and why: undefined once it is again. */
  readonly stale: (what: 'incidents' | 'evidence folder', error: unknown) => void;
  readonly signal: AbortSignal;
}

/**
 * Keeps the gauges right: asks Visibility again and again for the open incidents of this task queue, a page of 200
 * at a time. No workflow is woken for it, so a thousand that wait cost five short answers; it knows nothing of its
 * own, so a restart or a second worker changes nothing.
 */
export async function watchOverview({ temporal, taskQueue, namespace, evidenceDir, meter, stale, signal }: OverviewOptions): Promise<void> {
  const made = Object.entries(gauges).map(([key, { name, help }]): [string, MetricGauge] => [
    key,
    meter.createGauge(name, 'float', '', help),
  ]);
  const byKey = new Map(made);
  const set = ({ gauge, labels, value }: Sample): void => byKey.get(gauge)?.set(value, { namespace, taskQueue, ...labels });
  while (!signal.aborted) {
    try {
      const incidents = await openIncidents(temporal, taskQueue);
      for (const sample of samplesOf(incidents, Date.now())) set(sample);
      set({ gauge: 'overviewTime', labels: {}, value: Math.floor(Date.now() / 1_000) });
      stale('incidents', undefined);
    } catch (error) {
      stale('incidents', error);
    }
    try {
      set({ gauge: 'evidenceFree', labels: {}, value: await freeBytes(evidenceDir) });
      stale('evidence folder', undefined);
    } catch (error) {
      stale('evidence folder', error);
    }
    await sleep(everyMs, undefined, { signal }).catch(() => undefined);
  }
}

async function openIncidents(temporal: Client, taskQueue: string): Promise<Summary[]> {
  const query = `WorkflowType='${workflowType}' AND ExecutionStatus='Running' AND TaskQueue='${taskQueue}'`;
  return await temporal.connection.withDeadline(Date.now() + answerMs, async () => {
    const found: Summary[] = [];
    for await (const { memo } of temporal.workflow.list({ query, pageSize })) found.push(summaryOf(memo));
    return found;
  });
}

/** Of the folder, or of the nearest one above it: it is made with the first incident. */
async function freeBytes(dir: string): Promise<number> {
  let at = resolve(dir);
  while (!existsSync(at) && at !== dirname(at)) at = dirname(at);
  const { bavail, bsize } = await statfs(at);
  return bavail * bsize;
}
