import { z } from 'zod';
import { digestMatches } from '../contract/canonical.ts';
import { gates, isGate } from '../contract/names.ts';
import { AmendAnswer, Amendment, Decision, PlanAnswer } from '../contract/schemas.ts';
import type { TemporalSession } from '../temporal.ts';
import type { Answer, Cli } from './cli.ts';
import { CliError } from './exit.ts';
import { ask, findIncident, send, type Incident } from './incident.ts';
import { checked, parseKeep, readDataFile, required } from './input.ts';
import { askVerdict, sameId, sendDecision } from './send-decision.ts';
import { clean, shellWord } from './text.ts';

export interface DecideOptions {
  gate?: string;
  digest?: string;
  by?: string;
  note?: string;
  fingerprint?: string;
}

/** `approve` and `reject`: the verdict by update; without a worker the signal, said to be unconfirmed. */
export async function decide(cli: Cli, decision: 'approve' | 'reject', text: string, options: DecideOptions): Promise<Answer> {
  const gate = required(options.gate, '--gate', `one of ${gates.join(', ')}`);
  const by = required(options.by, '--by', 'the name of the person who decides');
  if (options.digest === undefined && cli.io.ask === undefined) required(undefined, '--digest', 'see cordon plan');
  // All but the digest is checked before anything connects.
  const fields = { decision, gate, by, ...optional('note', options.note), ...optional('fingerprint', options.fingerprint) };
  checked(Decision, { ...fields, digest: options.digest ?? `sha256:${'0'.repeat(12)}` }, 'the decision');
  const session = await cli.temporal();
  const incident = open(await findIncident(session, text));
  const digest = options.digest ?? (await typedDigest(cli, session, incident, gate));
  const payload = checked(Decision, { ...fields, digest }, 'the decision');
  const updateId = sameId('decide', { ...payload, run: incident.runId });
  const verdict = await cli.working('waiting for the verdict', sendDecision(session, incident.id, payload, updateId));
  if (verdict === undefined) return unconfirmed(incident.id, `your ${decision} for gate ${gate}`, { decision: payload });
  const { accepted, refusedBecause, have, need } = verdict;
  const count = `${have} of ${need} approvals`;
  const next = accepted
    ? `counted: ${decision} of gate ${gate} by ${clean(by)} (${count})`
    : `REFUSED (${refusedBecause ?? 'no reason given'}): nothing was counted for gate ${clean(gate)} (${count})`;
  const hint = accepted ? `cordon show ${shellWord(incident.id)}` : `cordon plan ${shellWord(incident.id)} --gate ${shellWord(gate)}`;
  const text_ = [...detailLines(verdict.detail), ...digestLines(verdict.digest), `next: ${hint}`];
  return { next, text: text_, json: { incident: incident.id, verdict }, exit: accepted ? 'ok' : 'failed' };
}

export interface AmendOptions {
  digest?: string;
  keep?: string[];
  keepFile?: string;
  by?: string;
}

/** `amend`: keeps facts out of the retract plan. Only ever narrows; makes a new opening with a new digest. */
export async function amend(cli: Cli, text: string, options: AmendOptions): Promise<Answer> {
  const listed = z.array(z.unknown()).safeParse(options.keepFile === undefined ? [] : readDataFile(options.keepFile, '--keep-file'));
  if (!listed.success) throw new CliError('usage', '--keep-file: expected a list of {factId, justification}');
  const keep = [...listed.data, ...(options.keep ?? []).map(parseKeep)];
  const digest = required(options.digest, '--digest', 'see cordon plan --gate retract');
  const by = required(options.by, '--by', 'the name of the person who amends');
  const payload = checked(Amendment, { gate: 'retract', digest, keep, by }, 'the amendment');
  const session = await cli.temporal();
  const incident = open(await findIncident(session, text));
  const updateId = sameId('amend', { ...payload, run: incident.runId });
  const answer = await cli.working('waiting for the verdict', askVerdict(session, incident.id, 'amend', payload, updateId));
  if (answer === undefined) {
    await send(session, incident.id, 'amend', payload, { requestId: updateId });
    return unconfirmed(incident.id, 'your amendment', { amendment: payload });
  }
  const verdict = AmendAnswer.parse(answer);
  const next = verdict.accepted
    ? `amended: ${keep.length} facts stay; the plan has a new digest, earlier approvals are void`
    : `REFUSED (${verdict.refusedBecause ?? 'no reason given'}): the plan is unchanged`;
  const follow = `next: cordon plan ${shellWord(incident.id)} --gate retract`;
  const text_ = [...detailLines(verdict.detail), ...digestLines(verdict.digest), follow];
  return { next, text: text_, json: { incident: incident.id, verdict }, exit: verdict.accepted ? 'ok' : 'failed' };
}

/** Shows what is about to be decided and has the person type the digest's first digits: never pre-filled. */
async function typedDigest(cli: Cli, session: TemporalSession, incident: Incident, gate: string): Promise<string> {
  const args = isGate(gate) ? [{ gate }] : [];
  const answer = await cli.working('asking for the plan', ask(session, incident.id, 'plan', args));
  if (answer === undefined) {
    throw new CliError('unconfirmed', 'no worker answers, so the plan can not be shown: give --digest', 'cordon doctor');
  }
  const plan = PlanAnswer.parse(answer);
  if (plan.gate !== gate) throw new CliError('failed', `gate ${clean(gate)} does not wait`, `cordon show ${shellWord(incident.id)}`);
  const counts = Object.entries(plan.counts).map(([action, n]) => `${clean(action)} ${n}`);
  cli.io.out(`${clean(incident.id)}, gate ${plan.gate}, opening ${plan.opening}: ${counts.join(', ') || 'no items'}`);
  cli.io.out(`digest ${clean(plan.digest)}`);
  const typed = (await cli.io.ask?.('Type the first 12 hex digits of the digest to go on'))?.trim() ?? '';
  const given = typed.startsWith('sha256:') ? typed : `sha256:${typed}`;
  if (digestMatches(given, plan.digest)) return plan.digest;
  throw new CliError('usage', 'what was typed is not this digest: nothing was sent');
}

/** What a sent message is without a worker's answer. */
export function unconfirmed(id: string, what: string, json: Record<string, unknown>): Answer {
  const text = [
    'It stands in the history and counts, or is refused, when a worker runs. Sending it again does no harm.',
    `next: cordon doctor, then cordon show ${shellWord(id)}`,
  ];
  return {
    next: `UNCONFIRMED: ${clean(what)} was sent as a signal; no worker answered`,
    text,
    json: { incident: id, ...json },
    exit: 'unconfirmed',
  };
}

function open(incident: Incident): Incident {
  if (incident.isOpen) return incident;
  const state = incident.description.status.name.toLowerCase();
  throw new CliError('failed', `${clean(incident.id)} is closed (${state}): nothing was sent`, `cordon show ${shellWord(incident.id)}`);
}

const detailLines = (detail: string | undefined) => (detail === undefined ? [] : [clean(detail)]);
const digestLines = (digest: string | undefined) => (digest === undefined ? [] : [`digest now: ${clean(digest)}`]);

function optional<K extends string>(key: K, value: string | undefined): Partial<Record<K, string>> {
  const made: Partial<Record<K, string>> = {};
  if (value !== undefined) made[key] = value;
  return made;
}
