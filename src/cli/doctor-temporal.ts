import { z } from 'zod';
import proto from '@temporalio/proto';
import { spanWords } from '../contract/duration.ts';
import { searchAttributes, workflowType } from '../contract/names.ts';
import { withDeadline, type TemporalSession } from '../temporal.ts';
import { describe, serverMs } from './incident.ts';
import { clean, shellWord } from './text.ts';

/** One line of the doctor's report; `mend` is what to do about it. */
export interface Finding {
  check: string;
  state: 'ok' | 'warn' | 'fail';
  found: string;
  mend?: string;
}

const workflowQueue = proto.temporal.api.enums.v1.TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW;
const keyword = proto.temporal.api.enums.v1.IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD;
const shortRetentionDays = 30;
/** A worker with nothing to do asks again after a minute; the server remembers dead ones longer than that. */
const longPollMs = 75_000;

/** Milliseconds since a worker last asked for workflow tasks; undefined when none did for a while. */
export async function lastPoll(session: TemporalSession, name: string): Promise<number | undefined> {
  const { client, settings } = session;
  const answer = await withDeadline(client, serverMs, () =>
    client.workflowService.describeTaskQueue({
      namespace: settings.namespace,
      taskQueue: { name },
      taskQueueType: workflowQueue,
    }),
  );
  const ages = answer.pollers.map(({ lastAccessTime }) => Date.now() - Number(lastAccessTime?.seconds ?? 0) * 1_000);
  const age = Math.min(...ages);
  return age > longPollMs ? undefined : Math.max(age, 0);
}

/** The checks that ask the Temporal server, each by itself: one that fails does not hide the others. */
export function temporalChecks(session: TemporalSession, taskQueue: string): (() => Promise<Finding>)[] {
  return [
    () => namespaceCheck(session),
    () => attributesCheck(session),
    () => pollersCheck(session, taskQueue),
    () => abandonedCheck(session),
  ];
}

async function namespaceCheck({ client, settings }: TemporalSession): Promise<Finding> {
  const { namespace } = settings;
  const check = 'namespace';
  const answer = await withDeadline(client, serverMs, () => client.workflowService.describeNamespace({ namespace }));
  const days = Number(answer.config?.workflowExecutionRetentionTtl?.seconds ?? 0) / 86_400;
  const found = `${namespace}, closed runs are kept ${Number(days.toFixed(1))} days`;
  if (days >= shortRetentionDays) return { check, state: 'ok', found };
  const mend = `temporal operator namespace update --namespace ${shellWord(namespace)} --retention ${shortRetentionDays}d`;
  return { check, state: 'warn', found: `${found}: shorter than an incident with its watch may take`, mend };
}

async function attributesCheck({ client, settings }: TemporalSession): Promise<Finding> {
  const { namespace } = settings;
  const check = 'search attributes';
  const answer = await withDeadline(client, serverMs, () => client.connection.operatorService.listSearchAttributes({ namespace }));
  const names = Object.values(searchAttributes);
  const missing = names.filter((name) => !Object.hasOwn(answer.customAttributes, name));
  const wrong = names.filter((name) => !missing.includes(name) && answer.customAttributes[name] !== keyword);
  if (wrong.length > 0) {
    return { check, state: 'warn', found: `not of type Keyword: ${wrong.join(', ')}`, mend: 'cordon leaves them out' };
  }
  if (missing.length === 0) return { check, state: 'ok', found: names.join(', ') };
  const flags = missing.map((name) => `--name ${name} --type Keyword`).join(' ');
  const mend = `temporal operator search-attribute create --namespace ${shellWord(namespace)} ${flags}`;
  return { check, state: 'warn', found: `not registered: ${missing.join(', ')}; cordon list shows less`, mend };
}

async function pollersCheck(session: TemporalSession, taskQueue: string): Promise<Finding> {
  const check = 'worker';
  const age = await lastPoll(session, taskQueue);
  if (age !== undefined) return { check, state: 'ok', found: `polled task queue ${taskQueue} ${spanWords(age)} ago` };
  return { check, state: 'fail', found: `none polls task queue ${taskQueue}: incidents stand still`, mend: 'cordon worker' };
}

/** Incidents whose last run the server or an operator ended before it had an outcome. */
async function abandonedCheck(session: TemporalSession): Promise<Finding> {
  const check = 'ended without outcome';
  const query = `WorkflowType='${workflowType}' AND ExecutionStatus IN ('Terminated','TimedOut','Failed','Canceled')`;
  const ids = await withDeadline(session.client, serverMs, async () => {
    const found = new Set<string>();
    for await (const { workflowId } of session.client.workflow.list({ query })) {
      found.add(workflowId);
      if (found.size >= 50) break;
    }
    return [...found];
  });
  const ended = await Promise.all(ids.map((id) => stillEnded(session, id)));
  const abandoned = ended.filter((id) => id !== undefined);
  const [first] = abandoned;
  if (first === undefined) return { check, state: 'ok', found: 'no incident' };
  const found = `${abandoned.length}: ${abandoned.slice(0, 5).map(clean).join(', ')}${abandoned.length > 5 ? ', …' : ''}`;
  const peer = await peerOf(session, first);
  const drill = first.startsWith('peer-compromise-drill:') ? ' --drill' : '';
  const mend = `take over its fences and evidence: cordon start ${shellWord(peer)}${drill} --reason 'takes over an ended run'`;
  return { check, state: 'fail', found: `${found}; what they fenced is still fenced`, mend };
}

/** The peer an incident is about: from its memo, else from what it was started with. An id chosen outside says nothing. */
async function peerOf(session: TemporalSession, id: string): Promise<string> {
  const incident = await describe(session, id);
  const memo = z.looseObject({ cordon: z.looseObject({ peer: z.string() }) }).safeParse(incident?.description.memo);
  return memo.success ? memo.data.cordon.peer : id.replace(/^peer-compromise(-drill)?:/, '');
}

async function stillEnded(session: TemporalSession, id: string): Promise<string | undefined> {
  const incident = await describe(session, id);
  if (incident === undefined || incident.isOpen) return undefined;
  const state = incident.description.status.name;
  if (state === 'COMPLETED' || state === 'CONTINUED_AS_NEW') return undefined;
  return state === 'FAILED' && (await refusedAtTheDoor(session, id, incident.runId)) ? undefined : id;
}

/** A bad start payload or an unknown peer ends a run too, but nothing was done then. */
async function refusedAtTheDoor({ client, settings }: TemporalSession, workflowId: string, runId: string): Promise<boolean> {
  const answer = await withDeadline(client, serverMs, () =>
    client.workflowService.getWorkflowExecutionHistoryReverse({
      namespace: settings.namespace,
      execution: { workflowId, runId },
      maximumPageSize: 1,
    }),
  );
  const type = answer.history?.events?.[0]?.workflowExecutionFailedEventAttributes?.failure?.applicationFailureInfo?.type;
  return type === 'InvalidInput' || type === 'PeerNotFound';
}
