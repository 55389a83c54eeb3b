import { z } from 'zod';
import proto from '@temporalio/proto';
import { searchAttributes, workflowType } from '../contract/names.ts';
import { isNotFound, withDeadline, type TemporalSession } from '../temporal.ts';
import { about, type Check, type Finding } from './doctor-finding.ts';
import { describe, serverMs } from './incident.ts';
import { clean, shellWord } from './text.ts';

const keyword = proto.temporal.api.enums.v1.IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD;
const shortRetentionDays = 30;
/** So many open incidents are looked at one by one. */
const lookedAt = 100;
/** The checks that ask the Temporal server, each by itself: one that fails does not hide the others. */
export function temporalChecks(session: TemporalSession): Check[] {
  return [
    { name: 'search attributes', look: () => attributesCheck(session) },
    { name: 'workflow tasks', look: () => failingCheck(session) },
    { name: 'ended without outcome', look: () => abandonedCheck(session) },
  ];
}

/** Is the namespace there, and are closed runs kept long enough? Without it nothing else can be asked. */
export async function namespaceCheck({ client, settings }: TemporalSession): Promise<Finding> {
  const { namespace } = settings;
  const { ok, warn, fail } = about('namespace');
  const flags = `--namespace ${shellWord(namespace)} --retention ${shortRetentionDays}d`;
  let days: number;
  try {
    const answer = await withDeadline(client, serverMs, () => client.workflowService.describeNamespace({ namespace }));
    days = Number(answer.config?.workflowExecutionRetentionTtl?.seconds ?? 0) / 86_400;
  } catch (error) {
    if (!isNotFound(error)) throw error;
    return fail(`${clean(namespace)} is not there`, `set TEMPORAL_NAMESPACE, or: temporal operator namespace create ${flags}`);
  }
  const found = `${namespace}, closed runs are kept ${Number(days.toFixed(1))} days`;
  if (days >= shortRetentionDays) return ok(found);
  return warn(`${found}: shorter than an incident with its watch may take`, `temporal operator namespace update ${flags}`);
}

async function attributesCheck({ client, settings }: TemporalSession): Promise<Finding> {
  const { namespace } = settings;
  const { ok, warn } = about('search attributes');
  const answer = await withDeadline(client, serverMs, () => client.connection.operatorService.listSearchAttributes({ namespace }));
  const names = Object.values(searchAttributes);
  const missing = names.filter((name) => !Object.hasOwn(answer.customAttributes, name));
  const wrong = names.filter((name) => !missing.includes(name) && answer.customAttributes[name] !== keyword);
  if (wrong.length > 0) {
    const remove = wrong.map((name) => `temporal operator search-attribute remove --namespace ${shellWord(namespace)} --name ${name}`);
    return warn(`not of type Keyword: ${wrong.join(', ')}; cordon leaves them out`, `${remove.join('; ')}; then run doctor again`);
  }
  if (missing.length === 0) return ok(names.join(', '));
  const flags = missing.map((name) => `--name ${name} --type Keyword`).join(' ');
  const mend = `temporal operator search-attribute create --namespace ${shellWord(namespace)} ${flags}`;
  return warn(`not registered: ${missing.join(', ')}; lists in the Web UI show less`, mend);
}

/**
 * Open incidents whose workflow task fails again and again: a worker with other code than the history was made
 * with, or a bug. They stand still, and nothing in them can say so.
 */
async function failingCheck(session: TemporalSession): Promise<Finding> {
  const { ok, fail } = about('workflow tasks');
  const query = `WorkflowType='${workflowType}' AND ExecutionStatus='Running'`;
  const ids = await withDeadline(session.client, serverMs, async () => {
    const found: string[] = [];
    for await (const { workflowId } of session.client.workflow.list({ query, pageSize: lookedAt + 1 })) {
      found.push(workflowId);
      if (found.length > lookedAt) break;
    }
    return found;
  });
  const looked = ids.slice(0, lookedAt);
  const described = await Promise.all(looked.map((id) => describe(session, id)));
  const failing = described.flatMap((incident) => {
    const attempt = Number(incident?.description.raw.pendingWorkflowTask?.attempt ?? 0);
    // The second attempt is also what waits for a worker that died in the middle of the first.
    return incident !== undefined && attempt > 2 ? [{ id: incident.id, attempt }] : [];
  });
  const those = `${looked.length} open incident${looked.length === 1 ? '' : 's'}${ids.length > lookedAt ? ' (the newest)' : ''} looked at`;
  if (failing.length === 0) return ok(`none fails; ${those}`);
  const which = failing.slice(0, 5).map(({ id, attempt }) => `${clean(id)} (attempt ${attempt})`);
  return fail(
    `failing in ${failing.length} of ${those}: ${which.join(', ')}; they stand still`,
    "the worker's log says why (WorkflowTaskFailed); run the version of cordon they were started with, or a newer one, on every worker",
  );
}

/** Incidents that the server or an operator ended before they had an outcome, and that no later start has taken over. */
async function abandonedCheck(session: TemporalSession): Promise<Finding> {
  const { ok, fail } = about('ended without outcome');
  const query = `WorkflowType='${workflowType}' AND ExecutionStatus IN ('Terminated','TimedOut','Failed','Canceled')`;
  const ids = await withDeadline(session.client, serverMs, async () => {
    const found = new Set<string>();
    for await (const { workflowId } of session.client.workflow.list({ query })) {
      found.add(workflowId);
      if (found.size >= 50) break;
    }
    return [...found];
  });
  const ended = (await Promise.all(ids.map((id) => stillEnded(session, id)))).filter((one) => one !== undefined);
  // A drill changes nothing, so nothing of it is left behind.
  const live = ended.filter(({ isDrill }) => !isDrill);
  const takenOver = await takenOverAfter(session, live);
  const abandoned = live.filter((one) => !takenOver(one));
  const [first] = abandoned;
  if (first === undefined) return ok('no incident');
  const names = abandoned.slice(0, 5).map(({ id }) => clean(id));
  const found = `${abandoned.length}: ${names.join(', ')}${abandoned.length > 5 ? ', …' : ''}`;
  const peer = first.peer === undefined ? '<the peer it was about>' : shellWord(first.peer);
  return fail(
    `${found}; what they fenced is still fenced`,
    `take over its fences and evidence: cordon start ${peer} --reason 'takes over an ended run'`,
  );
}

/** An incident whose last run ended without an outcome. */
interface Ended {
  readonly id: string;
  readonly at: number;
  /** By its memo: an id chosen outside says nothing. */
  readonly peer: string | undefined;
  readonly isDrill: boolean;
}

const Memo = z.looseObject({
  peer: z.string().optional().catch(undefined),
  cordon: z.looseObject({ peer: z.string(), mode: z.string() }).optional().catch(undefined),
});

/** Who was taken over: a start about the same peer joins no run that has ended, whatever id either has. */
async function takenOverAfter({ client }: TemporalSession, ended: readonly Ended[]): Promise<(one: Ended) => boolean> {
  if (ended.length === 0) return () => false;
  const since = new Date(Math.min(...ended.map(({ at }) => at))).toISOString();
  const query = `WorkflowType='${workflowType}' AND ExecutionStatus IN ('Running','Completed','ContinuedAsNew') AND StartTime >= '${since}'`;
  const later: { readonly at: number; readonly peer: string | undefined }[] = [];
  await withDeadline(client, serverMs, async () => {
    for await (const { startTime, memo } of client.workflow.list({ query })) {
      const { peer, isDrill } = aboutWhom(memo);
      if (!isDrill) later.push({ at: startTime.getTime(), peer });
      if (later.length >= 1_000) break;
    }
  });
  return ({ peer, at }) => peer !== undefined && later.some((one) => one.peer === peer && one.at >= at);
}

function aboutWhom(memo: unknown): Pick<Ended, 'peer' | 'isDrill'> {
  const { cordon, peer } = Memo.safeParse(memo).data ?? {};
  return { peer: cordon?.peer ?? peer, isDrill: cordon?.mode === 'drill' };
}

async function stillEnded(session: TemporalSession, id: string): Promise<Ended | undefined> {
  const incident = await describe(session, id);
  if (incident === undefined || incident.isOpen) return undefined;
  const { status, closeTime, memo } = incident.description;
  if (status.name === 'COMPLETED' || status.name === 'CONTINUED_AS_NEW') return undefined;
  if (status.name === 'FAILED' && (await refusedAtTheDoor(session, id, incident.runId))) return undefined;
  const { peer, isDrill } = aboutWhom(memo);
  return { id, at: closeTime?.getTime() ?? 0, peer, isDrill: isDrill || id.startsWith('peer-compromise-drill:') };
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
