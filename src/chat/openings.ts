import { HistoryError } from '../audit/history.ts';
import { readHistory } from '../audit/read.ts';
import { project } from '../audit/project.ts';
import { describe, ask, askStatus, type Patience } from '../cli/incident.ts';
import type { Gate } from '../contract/names.ts';
import { PlanAnswer, type Status } from '../contract/schemas.ts';
import { isNotFound, withDeadline, type TemporalSession } from '../temporal.ts';
import type { Ending, Opening } from './card.ts';

/** Slack has its acknowledgement already: chat can wait longer than a person at a terminal. */
export const chatPatience: Patience = { workerMs: 5_000, serverMs: 15_000, verdictMs: 30_000 };
const historyMs = 20_000;

/** What waits for people in an incident now; undefined when no worker answers. */
export async function openingsOf(session: TemporalSession, id: string): Promise<Opening[] | undefined> {
  const status = await askStatus(session, id, chatPatience);
  if (status === undefined) return undefined;
  return status.waitingFor.flatMap((waiting) => {
    if (waiting.kind !== 'gate') return [];
    const { gate, opening, digest, have, need, since, expiresAt, summary } = waiting;
    return [
      {
        incident: id,
        run: status.run,
        mode: status.mode,
        peer: peerName(status),
        phase: status.phase,
        round: status.round,
        gate,
        opening,
        digest,
        have,
        need,
        since,
        expiresAt,
        summary,
        evidence: status.evidence.head,
        approvedBy: [],
      },
    ];
  });
}

/** With what a card tells beside the status: who approved so far, and where the plan lies. */
export async function inFull(session: TemporalSession, opening: Opening): Promise<Opening> {
  const [evidence, approvedBy] = await Promise.all([
    planEvidence(session, opening.incident, opening.gate, opening.digest),
    opening.have === 0 ? [] : votesOf(session, opening).then(({ approvedBy: names }) => names),
  ]);
  return { ...opening, evidence: evidence ?? opening.evidence, approvedBy };
}

/** How an opening ended that does not wait any more. History says it, whoever decided and wherever: no worker is needed. */
export async function endingOf(session: TemporalSession, opening: Opening, waiting: readonly Opening[]): Promise<Ending> {
  const { decided } = await votesOf(session, opening);
  if (decided !== undefined) {
    return { how: decided.approved ? 'approved' : 'rejected', by: decided.by, detail: `Decided at ${decided.at}` };
  }
  const [incident, newer] = [await describe(session, opening.incident, chatPatience), waiting.find(({ gate }) => gate === opening.gate)];
  if (incident === undefined || !incident.isOpen || incident.runId !== opening.run) {
    const state = incident === undefined ? 'gone from Temporal' : incident.description.status.name.toLowerCase();
    if (newer === undefined && incident?.isOpen !== true) return { how: 'closed', by: [], detail: `The incident is ${state}.` };
    return { how: 'superseded', by: [], detail: `The incident goes on in run ${incident?.runId ?? ''}.` };
  }
  if (Date.parse(opening.expiresAt) <= Date.now()) return { how: 'expired', by: [], detail: '' };
  if (newer !== undefined) return { how: 'superseded', by: [], detail: `The plan is another one: ${newer.summary}.` };
  return { how: 'closed', by: [], detail: '' };
}

interface Votes {
  readonly decided: { readonly approved: boolean; readonly by: readonly string[]; readonly at: string } | undefined;
  readonly approvedBy: readonly string[];
}

async function votesOf({ client }: TemporalSession, { incident, gate, opening, run }: Opening): Promise<Votes> {
  const nothing: Votes = { decided: undefined, approvedBy: [] };
  const reading = withDeadline(client, historyMs, () => readHistory({ kind: 'workflow', id: incident, client }));
  const history = await reading.catch((error: unknown) => {
    // Gone, or not readable: the card says less, the audit says why. Anything else is tried again.
    if (isNotFound(error) || error instanceof HistoryError) return undefined;
    throw error;
  });
  if (history === undefined) return nothing;
  const { decided, decisions } = project(history);
  const isThis = (named: { gate: Gate; opening: number; runId: string } | null) =>
    named !== null && named.gate === gate && named.opening === opening && named.runId === run;
  const approvedBy = decisions.filter((vote) => isThis(vote.named) && vote.refusedBecause === null && vote.decision === 'approve');
  return { decided: decided.find(isThis), approvedBy: approvedBy.map(({ by }) => by) };
}

async function planEvidence(session: TemporalSession, id: string, gate: Gate, digest: string): Promise<string | undefined> {
  const answer = await ask(session, id, 'plan', [{ gate }], chatPatience);
  const plan = PlanAnswer.safeParse(answer).data;
  return plan !== undefined && plan.digest === digest ? plan.evidence : undefined;
}

function peerName({ peer, incident }: Status): string {
  return peer.nodeId || peer.url || incident;
}
