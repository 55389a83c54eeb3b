import type { Status, Waiting } from '../contract/schemas.ts';
import type { Answer, Cli } from './cli.ts';
import { askStatus, findIncident } from './incident.ts';
import { readOffline, renderOffline } from './offline.ts';
import { clean, shellWord, table, when } from './text.ts';

/** `show`: the workflow's status; with no worker alive what the server itself knows, and that it is only that. */
export async function show(cli: Cli, text: string): Promise<Answer> {
  const session = await cli.temporal();
  const incident = await findIncident(session, text);
  // Both at once: the answer has to be there within seconds with nobody alive.
  const [status, offline] = await cli.working(
    'asking the workflow',
    Promise.all([askStatus(session, incident.id), readOffline(session, incident)]),
  );
  if (status === undefined) return renderOffline(cli, offline);
  return { next: nextOf(status), text: render(cli, status), json: { source: 'workflow', status } };
}

/** The first line: what a person has to do now. */
export function nextOf(status: Status): string {
  const id = shellWord(status.incident);
  if (status.state === 'closed') return `closed: ${status.outcome ?? 'no outcome'}; next: cordon audit ${id}`;
  const gate = status.waitingFor.find((w) => w.kind === 'gate');
  const more = status.waitingFor.length > 1 ? ` (1 of ${status.waitingFor.length} things that wait)` : '';
  if (gate !== undefined) return `next: decide gate ${gate.gate}: cordon plan ${id} --gate ${gate.gate}${more}`;
  const step = status.waitingFor[0];
  if (step?.kind === 'step') return `next: step ${clean(step.step)} is stuck: ${clean(step.how)}${more}`;
  return `nothing to do now: ${status.phase} is ${status.state}`;
}

function render(cli: Cli, s: Status): string[] {
  const { bold, dim } = cli.colors;
  const now = cli.io.now();
  const drill = s.mode === 'drill' ? ' · DRILL' : '';
  const known = s.coverage.filter((c) => !c.complete);
  const lines = [
    '',
    `${bold(clean(s.incident))} · run ${clean(s.run.slice(0, 8))}${drill}`,
    `peer     ${clean(s.peer.nodeId)} ${dim(clean(s.peer.url))}`,
    `phase    ${s.phase}, round ${s.round}, ${s.state}`,
  ];
  if (s.firstBadAt !== null) lines.push(`first bad ${clean(s.firstBadAt.at)} (${clean(s.firstBadAt.from)})`);
  for (const warning of s.warnings) lines.push(cli.colors.yellow(`warning  ${clean(warning)}`));
  if (s.waitingFor.length > 0) lines.push('', bold('Waiting for'), ...s.waitingFor.flatMap((w) => waiting(w, now)));
  if (s.steps.length > 0) {
    const rows = s.steps.map((x) => [x.name, mark(x.outcome), x.way, when(x.at, now), x.detail]);
    lines.push('', bold('Steps'), table(['step', 'outcome', 'way', 'when', 'detail'], rows, cli.width, [17, 12, 6, 11]));
  }
  if (s.residual.length > 0) {
    const rows = s.residual.map((r) => [String(r.count), r.what, r.why]);
    lines.push('', bold('Residual risk: not undone'), table(['count', 'what', 'why'], rows, cli.width, [6, 30]));
  }
  if (known.length > 0) {
    const rows = known.map((c) => [c.what, String(c.seen), c.why]);
    lines.push('', bold('Could not be checked in full'), table(['what', 'seen', 'why'], rows, cli.width, [26, 7]));
  }
  if (s.refused.count > 0) {
    const rows = s.refused.last.map((r) => [when(r.at, now), r.by, r.because, r.detail ?? '']);
    lines.push('', bold(`Refused: ${s.refused.count}`), table(['when', 'by', 'because', 'detail'], rows, cli.width, [11, 16, 20]));
  }
  if (s.notes.length > 0) {
    const rows = s.notes.map((n) => [when(n.at, now), n.by, n.text]);
    lines.push('', bold('Notes'), table(['when', 'by', 'text'], rows, cli.width, [11, 16]));
  }
  const alerts = `${s.alerts.corroborated} of ${s.alerts.count} alerts found in the node's audit`;
  lines.push('', dim(`${alerts} · evidence: ${s.evidence.entries} entries`), dim(`head ${clean(s.evidence.head)}`));
  return lines;
}

function waiting(w: Waiting, now: number): string[] {
  if (w.kind === 'step') return [`  step ${clean(w.step)}: ${clean(w.why)}`, `    ${clean(w.how)}`];
  const expires = when(w.expiresAt, now).replace('in ', 'expires in ');
  return [
    `  gate ${w.gate}, opening ${w.opening}: ${w.have} of ${w.need} approvals, ${expires}`,
    `    ${clean(w.summary)}`,
    `    ${clean(w.digest)}`,
    `    ${clean(w.how)}`,
  ];
}

function mark(outcome: Status['steps'][number]['outcome']): string {
  return outcome === 'verified' || outcome === 'manual' ? outcome : outcome.toUpperCase();
}
