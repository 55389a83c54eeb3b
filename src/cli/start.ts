import { randomUUID } from 'node:crypto';
import { incidentId, workflowType } from '../contract/names.ts';
import { PolicyTightening } from '../contract/policy.ts';
import { StartPayload } from '../contract/schemas.ts';
import { parseNodeConfig } from '../config.ts';
import { Stigmem } from '../stigmem/client.ts';
import { withDeadline, type TemporalSession } from '../temporal.ts';
import type { Answer, Cli } from './cli.ts';
import { lastPoll } from './doctor-workers.ts';
import { CliError } from './exit.ts';
import { describe, send, serverMs } from './incident.ts';
import { checked, parseAlert, readDataFile } from './input.ts';
import { clean, shellWord } from './text.ts';

export interface StartOptions {
  alert?: string[];
  reportedBy?: string;
  reason?: string;
  firstBadAt?: string;
  watch?: string;
  drill?: boolean;
  policy?: string;
  id?: string;
}

/** `start`: opens the incident of this peer, or joins the one that is open. */
export async function start(cli: Cli, peer: string, options: StartOptions): Promise<Answer> {
  const payload = readPayload(peer, options);
  const { taskQueue } = cli.config;
  const session = await cli.temporal();
  const known = await cli.working('asking our node for the peer', resolvePeer(cli, payload.peer));
  const mode = payload.mode ?? 'live';
  const id = options.id ?? incidentId(known.nodeId ?? payload.peer, mode);
  if (id.length > 1_000) throw new CliError('usage', '--id: expected at most 1000 characters');
  await notAnotherNodes(session, id, taskQueue);
  const { alerts = [], ...input } = payload;
  const [first, ...others] = alerts;
  const opening = first === undefined ? noteFor(payload) : { signal: 'alert', body: first };
  const startRequest = randomUUID();
  await withDeadline(session.client, serverMs * 2, () =>
    session.client.workflow.signalWithStart<(payload: unknown) => Promise<unknown>, [object]>(workflowType, {
      workflowId: id,
      taskQueue,
      args: [input],
      signal: opening.signal,
      signalArgs: [opening.body],
      workflowTaskTimeout: '5s',
      staticSummary: cutBytes(`${mode === 'drill' ? 'DRILL: ' : ''}peer compromise of ${known.nodeId ?? payload.peer}`, 400),
      staticDetails: 'Runbook R-PEER-COMPROMISE. See Current Details, or `cordon show`, for where it is and what it waits for.',
      // Ids only; startRequest tells a start from a join.
      memo: { peer: (known.nodeId ?? payload.peer).slice(0, 500), startRequest },
    }),
  );
  for (const alert of others) await send(session, id, 'alert', alert);
  const incident = await describe(session, id);
  const joined = incident !== undefined && incident.description.memo?.['startRequest'] !== startRequest;
  if (joined && first !== undefined) await send(session, id, 'note', noteFor(payload).body);
  const [next, ...rest] = joined
    ? [
        `joined the incident that is already open; next: cordon show ${shellWord(id)}`,
        `Its ${Math.max(alerts.length, 1)} message(s) were added; the rest of this start is on record there as a note.`,
      ]
    : [`started; next: cordon show ${shellWord(id)}`];
  const text = [...rest, `incident ${clean(id)}`, `run      ${incident?.runId ?? 'not read back'}`, ...known.warnings];
  if ((await lastPoll(session, taskQueue).catch(() => 0)) === undefined) {
    text.push(`warning: no worker polls task queue ${taskQueue}: nothing happens until one runs (cordon worker)`);
  }
  return { next, text, json: { incident: id, run: incident?.runId ?? null, joined, alerts: alerts.length, warnings: known.warnings } };
}

/** An incident belongs to the node whose workers poll its task queue: one of another node does nothing for ours. */
async function notAnotherNodes(session: TemporalSession, id: string, taskQueue: string): Promise<void> {
  const open = await describe(session, id);
  if (!open?.isOpen || open.description.taskQueue === taskQueue) return;
  throw new CliError(
    'failed',
    `${clean(id)} is open on task queue ${clean(open.description.taskQueue)}, and this is ${clean(taskQueue)}: nothing was sent. If that is another node's, start this one under an id of its own: --id ${shellWord(`${id}:${taskQueue}`)}`,
  );
}

function readPayload(peer: string, options: StartOptions): StartPayload {
  const policy = options.policy === undefined ? undefined : readDataFile(options.policy, '--policy');
  const alerts = options.alert?.map(parseAlert);
  return checked(
    StartPayload,
    {
      peer,
      ...(alerts === undefined ? {} : { alerts }),
      ...(options.reportedBy === undefined ? {} : { reportedBy: options.reportedBy }),
      ...(options.reason === undefined ? {} : { reason: options.reason }),
      ...(options.firstBadAt === undefined ? {} : { firstBadAt: options.firstBadAt }),
      ...(options.watch === undefined ? {} : { watch: options.watch }),
      ...(options.drill === true ? { mode: 'drill' } : {}),
      ...(policy === undefined ? {} : { policy: checked(PolicyTightening, policy, '--policy') }),
    },
    'the start',
  );
}

/** A start without an alert, or one that joins, leaves a note: the server drops a second start's input. */
function noteFor(p: StartPayload): { signal: string; body: object } {
  const said = [
    `cordon start ${p.peer}`,
    ...(p.reason === undefined ? [] : [`reason: ${p.reason}`]),
    ...(p.firstBadAt === undefined ? [] : [`first bad at: ${p.firstBadAt}`]),
    ...(p.watch === undefined ? [] : [`watch: ${p.watch}`]),
    ...(p.policy === undefined ? [] : [`policy: ${JSON.stringify(p.policy)}`]),
  ];
  return { signal: 'note', body: { by: p.reportedBy ?? 'cordon start', text: said.join('; ').slice(0, 4_000) } };
}

interface Resolved {
  nodeId: string | undefined;
  warnings: string[];
}

/** The peer's node_id from our node's own list. If the node can't be asked the start does not wait for it. */
async function resolvePeer(cli: Cli, peer: string): Promise<Resolved> {
  const anyway = (why: string) => ({
    nodeId: undefined,
    warnings: [`warning: ${why}; started under the name as typed. The worker looks the peer up itself.`],
  });
  const node = parseNodeConfig(cli.io.env);
  if (node === undefined) return anyway('our node was not asked (STIGMEM_URL and the admin key are not set)');
  const client = new Stigmem({ url: node.url, adminKey: node.adminKey, timeoutMs: 2_000 });
  try {
    const rows = await client.peers();
    const same = rows.filter((row) => row.node_id === peer || row.peer_id === peer || sameUrl(row.node_url, peer));
    const ids = [...new Set(same.map((row) => row.node_id))];
    const [only] = ids;
    if (ids.length === 1) return { nodeId: only, warnings: [] };
    if (only === undefined) return anyway("our node's peer list has no such node_id, peer_id or URL");
    const list = ids.map((id) => `  cordon start ${shellWord(id)}`);
    throw new CliError('usage', [`${ids.length} peers match ${clean(peer)}; nothing was started. Say which:`, ...list].join('\n'));
  } catch (error) {
    if (error instanceof CliError) throw error;
    return anyway(`our node could not be asked (${clean(error instanceof Error ? error.message : String(error))})`);
  } finally {
    await client.close();
  }
}

function sameUrl(a: string, b: string): boolean {
  if (!URL.canParse(a) || !URL.canParse(b)) return false;
  const plain = (text: string) => new URL(text).href.replace(/\/+$/, '');
  return plain(a) === plain(b);
}

/** At most `max` bytes of UTF-8, never half a character. */
function cutBytes(text: string, max: number): string {
  const letters = Array.from(clean(text));
  while (Buffer.byteLength(letters.join('')) > max) letters.pop();
  return letters.join('');
}
