import type { Verification } from '../evidence/verify.ts';
import { firstOf, inlineCode, section } from '../notify/markdown.ts';
import { readBackOf } from './checks.ts';
import type { Audit } from './project.ts';

export interface RenderInput {
  readonly audit: Audit;
  readonly source: string;
  readonly evidence: Verification;
  readonly evidenceFolder: string;
  readonly ok: boolean;
}

const maxRows = 5_000;
const q = (text: string, max = 300) => inlineCode(text, max);
const short = (runId: string) => inlineCode(runId.slice(0, 8));

/** The audit for somebody who never saw cordon. All that came from outside stands in code spans. */
export function renderAudit({ audit, source, evidence, evidenceFolder, ok }: RenderInput): string {
  const { status, result, start, mutations, decisions, messages } = audit;
  const drill = start?.mode === 'drill' || status?.mode === 'drill';
  const refused = messages.filter((message) => message.refused);
  return [
    ...(drill ? ['**DRILL: a rehearsal. Nothing on the node was changed.**', ''] : []),
    `# Audit of incident ${q(audit.incident)}`,
    '',
    ok
      ? '**Passed**: every change that needed people has a valid approval before it, and the evidence verifies.'
      : '**FAILED**: see the problems below.',
    '',
    "A peer of a Stigmem node looked compromised. A program (cordon, on a Temporal server) followed the operator runbook R-PEER-COMPROMISE: it cut the peer off at once, found what the peer had written, and asked people at *gates* before it undid, trusted or closed anything. This audit is made from the server's event history, which no program needs to run for, and from the evidence folder. A decision counts only under a *digest*: a hash of the gate, the number of its opening, the plan it is about, and the run. All digests below were made again by this audit from the history.",
    ...section(
      `Problems: ${audit.problems.length}`,
      firstOf(audit.problems, maxRows, (problem) => q(problem, 1_000)),
      'None.',
    ),
    ...section(
      'Outcome',
      [
        `Outcome: ${result ? `**${result.outcome}**` : 'none: the incident has not ended, or not by itself'}`,
        `Peer: ${status ? `${q(status.peer.nodeId)} at ${q(status.peer.url)}` : q(start?.peer ?? 'unknown')}`,
        `Started by ${q(audit.startedBy || 'nobody named')}${start?.reportedBy ? `, reported by ${q(start.reportedBy)}` : ''}${start?.reason ? `: ${q(start.reason, 1_000)}` : ''}`,
        `Alerts at the start: ${start?.alerts?.length ?? 0}`,
        `Source: ${q(source)}`,
        ...audit.notes.map((note) => q(note)),
      ],
      '',
    ),
    ...section(
      'Not covered by this audit',
      firstOf(audit.gaps, maxRows, (gap) => q(gap, 600)),
      'Nothing is known to be missing.',
    ),
    ...section(
      'Runs',
      audit.runs.map(
        (run) =>
          `${q(run.runId)}: ${run.events} events; ${q(run.ended)}${run.continuedFrom === '' ? '' : `; continues ${short(run.continuedFrom)}`}${run.resetFrom === '' ? '' : `; reset copy of ${short(run.resetFrom)} up to event ${run.copiedUpTo}`}`,
      ),
      '',
    ),
    ...section('Who decided what', firstOf(decisions, maxRows, decisionLine), 'Nobody decided anything.'),
    '',
    'Names are what the sender wrote. Unless "seen by the server" stands beside one, nobody checked who it was.',
    ...section(
      'What opened the way',
      firstOf(
        audit.decided,
        maxRows,
        ({ gate, opening, about, approved, by, at, runId }) =>
          `${q(at)} gate ${gate}, opening ${opening}, run ${short(runId)}: ${approved ? 'approved' : 'rejected'} by ${by.map((name) => q(name)).join(', ')}; ${q(about, 600)}`,
      ),
      'No gate was decided.',
    ),
    ...section(
      'Policy in force',
      Object.entries(audit.policy.gates).map(
        ([gate, { need, approvers, expiresAfter }]) =>
          `${gate}: ${need} approval${need === 1 ? '' : 's'} by ${approvers === null ? 'anybody who names themselves' : approvers.map((name) => q(name)).join(', ')}, each opening for ${expiresAfter}`,
      ),
      '',
    ),
    ...section(
      'What changed on the node, and how it was read back',
      firstOf(mutations, maxRows, (mutation) => {
        const { record, gate, approval, wrong } = mutation;
        const right =
          gate === null
            ? 'reversible, needs no approval'
            : approval
              ? `approved at gate ${gate} by ${approval.by.map((name) => q(name)).join(', ')} (event ${approval.eventId})`
              : `**NO VALID APPROVAL**: ${q(wrong ?? '', 500)}`;
        return `${q(record.at)} ${q(record.name)} (run ${short(record.runId)}, event ${record.eventId}, ${record.attempts} attempt${record.attempts === 1 ? '' : 's'}): ${right}. Read back: ${q(readBackOf(mutation), 600)}`;
      }),
      'Nothing.',
    ),
    ...section(
      `Refused messages: ${refused.length}`,
      firstOf(
        refused,
        maxRows,
        ({ at, eventId, runId, who, what }) => `${q(at)} event ${eventId}, run ${short(runId)}, from ${q(who)}: ${q(what, 600)}`,
      ),
      'None.',
    ),
    ...section(
      'Residual risk',
      firstOf(result?.residual ?? status?.residual ?? [], maxRows, ({ what, why, count }) => `${q(what)} (${count}): ${q(why, 600)}`),
      result || status ? 'None is known.' : 'Not known: the history holds no final status.',
    ),
    ...section(
      'Coverage',
      firstOf(
        status?.coverage ?? [],
        maxRows,
        ({ what, seen, complete, why }) =>
          `${q(what)}: ${seen} seen, ${complete ? 'complete' : '**not shown to be complete**'}. ${q(why, 400)}`,
      ),
      status ? 'Nothing was recorded.' : 'Not known: the history holds no final status.',
    ),
    ...section(
      'Evidence',
      [
        `Folder: ${q(evidenceFolder, 500)}`,
        evidence.ok
          ? `Verifies: ${evidence.entries} entries, ${evidence.objects} objects, head ${q(evidence.head)}`
          : `**DOES NOT VERIFY**: ${q(`${evidence.firstProblem?.where ?? ''}: ${evidence.firstProblem?.what ?? ''}`, 600)}`,
        `${audit.heads.length} heads named by the history were looked for in its chain`,
        ...firstOf(evidence.warnings, 50, (warning) => `warning: ${q(warning)}`),
      ],
      '',
    ),
    ...section(
      'Workers',
      firstOf(
        audit.workers,
        maxRows,
        ({ at, who, what, runId }) => `${q(at)} run ${short(runId)}: ${q(who)}, ${what.startsWith('another') ? q(what) : what}`,
      ),
      'None was seen.',
    ),
    ...section(
      'Timeline',
      firstOf(
        audit.timeline,
        maxRows,
        ({ at, runId, eventId, who, what }) =>
          `${q(at)} event ${eventId}, run ${short(runId)}${who === '' ? '' : `, ${q(who)}`}: ${q(what, 600)}`,
      ),
      'Empty.',
    ),
    '',
  ].join('\n');
}

function decisionLine({
  at,
  via,
  decision,
  gate,
  digest,
  by,
  note,
  identity,
  principal,
  named,
  refusedBecause,
  runId,
  eventId,
}: Audit['decisions'][number]): string {
  const who = `${q(by)} (sent as ${q(identity || 'nobody')}${principal === '' ? '' : `, seen by the server as ${q(principal)}`})`;
  const about = named
    ? `opening ${named.opening} in run ${short(named.runId)}, ${q(named.about, 600)}`
    : 'no opening that this history knows';
  return `${q(at)} event ${eventId}, run ${short(runId)}, ${via}: ${who} ${decision}s ${q(gate)} under ${q(digest)}, which is ${about}: ${refusedBecause === null ? '**counted**' : `refused (${refusedBecause})`}${note === '' ? '' : `. Note: ${q(note, 500)}`}`;
}
