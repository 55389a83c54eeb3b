import { DefaultLogger, type LogEntry, type Logger } from '@temporalio/worker';
import { workflowType as incidentType } from '../contract/names.ts';
import type { Log } from './log.ts';

const pinoLevels = { TRACE: 'trace', DEBUG: 'debug', INFO: 'info', WARN: 'warn', ERROR: 'error' } as const;

/**
 * The SDK's lines, and those of workflows and activities, in the words of the rest: the incident and its run on
 * each. Task tokens are left out: who has one can answer for the activity.
 * @param also - is told of each line, whatever the level
 */
export function sdkLogger(log: Log, also: (fields: Readonly<Record<string, unknown>>) => void = () => undefined): Logger {
  return new DefaultLogger('TRACE', ({ level, message, meta, timestampNanos }: LogEntry) => {
    const time = new Date(Number(timestampNanos / 1_000_000n)).toISOString();
    const fields = fieldsOf(meta ?? {});
    also(fields);
    log[pinoLevels[level]]({ time, ...fields }, message);
  });
}

function fieldsOf(meta: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { taskToken: _token, sdkComponent, workflowId, runId, workflowRunId, activityType, namespace, taskQueue, error, ...rest } = meta;
  const { isLocal: _local, spanContexts: _spans, workflowType, incident, ...others } = rest;
  const run = workflowRunId ?? runId;
  const isIncident = workflowType === undefined || workflowType === incidentType;
  // Claims and seals run under ids of their own: what they are about, only their input says.
  const about = incident ?? (isIncident ? workflowId : undefined);
  return {
    ...(sdkComponent === undefined ? {} : { component: sdkComponent }),
    ...(workflowId === undefined
      ? { ...(namespace === undefined ? {} : { namespace }), ...(taskQueue === undefined ? {} : { taskQueue }) }
      : {}),
    ...(about === undefined ? {} : { incident: about }),
    ...(run === undefined ? {} : { run }),
    ...(isIncident ? {} : { workflow: workflowId, workflowType }),
    ...(activityType === undefined ? {} : { activity: activityType }),
    ...others,
    ...(error === undefined ? {} : { err: error }),
  };
}
