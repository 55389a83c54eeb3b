import type { MetricMeter } from '@temporalio/common';
import { outcomes, phases, refusals, stepOutcomes, workflowType } from '../contract/names.ts';
import { counters } from '../contract/telemetry.ts';

/**
 * Begins every counter at 0: of a series that only appears with its first event, Prometheus never sees that event.
 * The tags are those the SDK puts on what a workflow counts.
 */
export function zeroCounters(meter: MetricMeter, namespace: string, taskQueue: string): void {
  const zero = ({ name, help }: { readonly name: string; readonly help: string }, tags: Readonly<Record<string, string>>): void =>
    meter.createCounter(name, '', help).add(0, { namespace, taskQueue, workflowType, ...tags });
  for (const because of refusals) zero(counters.messagesRefused, { because });
  for (const phase of phases) for (const outcome of stepOutcomes) zero(counters.stepsEnded, { phase, outcome });
  for (const outcome of outcomes) for (const mode of ['live', 'drill']) zero(counters.incidentsClosed, { outcome, mode });
}
