import type { Outcome } from '../contract/names.ts';
import type { Closure } from '../contract/closing.ts';
import type { Status, StepStatus } from '../contract/schemas.ts';
import type { HeldAlert } from '../contract/steps.ts';
import { firstOf, inlineCode, section } from '../notify/markdown.ts';

export interface ReportInput {
  readonly status: Status;
  readonly alerts: readonly HeldAlert[];
  readonly outcome: Outcome | null;
  /** Who asked for this end and why, where a person did. */
  readonly closing?: Pick<Closure, 'outcome' | 'by' | 'reason'>;
  readonly drill: boolean;
}

/** What each outcome means to somebody who never saw cordon. */
const outcomeWords: Readonly<Record<Outcome, string>> = {
  restored: 'the peer is federated again, with new keys and after a watch',
  expelled: 'the peer stays cut off for good',
  dismissed: 'a false alarm: what had been switched off was switched on again',
  duplicate: 'another incident holds this peer; the alerts were handed over to it',
};

const maxRows = 200;

/**
 * The incident's report from its last status, in Markdown. Strings of peers and people stand in code spans, so that
 * none of them becomes a link or a heading.
 */
export function renderReport({ status, alerts, outcome, closing, drill }: ReportInput): string {
  const { peer } = status;
  const open = status.steps.filter((step) => !isDone(step));
  return [
    ...(drill ? ['**DRILL: a rehearsal. Nothing on the node was changed, nobody outside was told.**', ''] : []),
    '# Incident report: compromised federation peer',
    '',
    outcome ? `Outcome: **${outcome}** (${outcomeWords[outcome]}).` : 'Outcome: **none yet**.',
    ...(closing
      ? ['', `Closed as ${closing.outcome} on the request of ${inlineCode(closing.by)}: ${inlineCode(closing.reason, 1_000)}`]
      : []),
    ...section(
      'Incident',
      [
        `Incident: ${inlineCode(status.incident, 400)}, run ${inlineCode(status.run)}, round ${status.round}`,
        `Peer node id: ${inlineCode(peer.nodeId)}`,
        `Peer URL: ${inlineCode(peer.url)}`,
        `Peer entity URI: ${peer.entityUri === '' ? 'not known' : inlineCode(peer.entityUri)}`,
        `Peers rows: ${peer.peerIds.length === 0 ? 'none' : firstOf(peer.peerIds, 20, (id) => inlineCode(id)).join(', ')}`,
        status.firstBadAt
          ? `First sign of bad behaviour: ${inlineCode(status.firstBadAt.at)} (known from: ${inlineCode(status.firstBadAt.from)})`
          : 'First sign of bad behaviour: not known',
      ],
      '',
    ),
    ...section(
      `Residual risk: ${status.residual.length} items`,
      firstOf(status.residual, maxRows, ({ what, why, count }) => `${inlineCode(what)} (${count}): ${inlineCode(why, 600)}`),
      'None is known.',
    ),
    ...section(
      `Steps: ${status.steps.length - open.length} of ${status.steps.length} done`,
      firstOf(status.steps, maxRows, stepLine),
      'No step was taken.',
    ),
    '',
    'A step is done when it is `verified` (done by the program and read back) or `manual` (done by a person and read back). `unverified` means that its effect was not seen, `unavailable` that this node has no such thing.',
    ...section(
      `Alerts: ${status.alerts.corroborated} of ${status.alerts.count} corroborated by the node's audit`,
      firstOf(alerts, maxRows, alertLine),
      'None was given.',
    ),
    ...section(
      'What could not be checked in full',
      firstOf(
        status.coverage.filter(({ complete }) => !complete),
        maxRows,
        coverageLine,
      ),
      'All that was looked at could be checked in full.',
    ),
    ...section(
      'What was checked in full',
      firstOf(
        status.coverage.filter(({ complete }) => complete),
        maxRows,
        coverageLine,
      ),
      'Nothing.',
    ),
    ...section(
      `Refused messages: ${status.refused.count}`,
      firstOf(
        status.refused.last,
        maxRows,
        ({ at, by, because, detail = '' }) =>
          `${inlineCode(at)} ${inlineCode(by)}: ${because}${detail === '' ? '' : `, ${inlineCode(detail, 300)}`}`,
      ),
      'None.',
    ),
    ...section(
      'Warnings',
      firstOf(status.warnings, maxRows, (warning) => inlineCode(warning, 600)),
      'None.',
    ),
    ...section(
      'Notes',
      firstOf(status.notes, maxRows, ({ at, by, text }) => `${inlineCode(at)} ${inlineCode(by)}: ${inlineCode(text, 1_000)}`),
      'None.',
    ),
    ...section(
      'Evidence',
      [
        `Head of the chain when this was written: ${inlineCode(status.evidence.head)}, ${status.evidence.entries} entries`,
        'Check the folder with `cordon verify`, and who decided what with `cordon audit`.',
      ],
      '',
    ),
    '',
  ].join('\n');
}

function isDone({ outcome }: StepStatus): boolean {
  return outcome === 'verified' || outcome === 'manual';
}

function stepLine(step: StepStatus): string {
  const outcome = isDone(step) ? step.outcome : `**${step.outcome}**`;
  const way = step.way === 'none' ? '' : ` by ${step.way}`;
  return `${inlineCode(step.at)} ${step.phase}, ${inlineCode(step.name)} (round ${step.round}): ${outcome}${way}. ${inlineCode(step.detail, 600)}`;
}

function alertLine({ name, at, corroborated, why, eventIds }: HeldAlert): string {
  const events = eventIds.length === 0 ? '' : ` Events: ${firstOf(eventIds, 20, (id) => inlineCode(id)).join(', ')}.`;
  return `${inlineCode(name)} at ${inlineCode(at ?? 'no time given')}: ${corroborated ? 'corroborated' : 'not corroborated'}. ${inlineCode(why, 300)}${events}`;
}

function coverageLine({ what, seen, why }: Status['coverage'][number]): string {
  return `${inlineCode(what)}: ${seen} seen. ${inlineCode(why, 400)}`;
}
