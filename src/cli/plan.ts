import { join } from 'node:path';
import { gates, isGate } from '../contract/names.ts';
import { PlanAnswer, PlanItem } from '../contract/schemas.ts';
import { listIncidentFolders } from '../evidence/find.ts';
import { splitLines } from '../evidence/lines.ts';
import { digestFile, fileChunks, objectPath } from '../evidence/objects.ts';
import type { Answer, Cli } from './cli.ts';
import { CliError } from './exit.ts';
import { ask, findIncident } from './incident.ts';
import { clean, shellWord, table } from './text.ts';

/** Longer reasons are cut in the table, in characters; --json has them whole. */
const shownReason = 140;
const maxLineBytes = 4 * 1024 * 1024;

/** `plan`: what a gate is about, item by item, with the digest a decision has to name. */
export async function plan(cli: Cli, text: string, options: { gate?: string; limit?: string }): Promise<Answer> {
  const { gate } = options;
  if (gate !== undefined && !isGate(gate)) {
    throw new CliError('usage', `--gate: expected one of ${gates.join(', ')}; got ${JSON.stringify(gate)}`);
  }
  const session = await cli.temporal();
  const incident = await findIncident(session, text);
  const id = shellWord(incident.id);
  const answer = await cli.working('asking for the plan', ask(session, incident.id, 'plan', gate === undefined ? [] : [{ gate }]));
  if (answer === undefined) {
    const what = 'no worker answers, so no digest is known now; sealed plans lie in the evidence folder';
    throw new CliError('unconfirmed', what, `cordon doctor, then cordon plan ${id}`);
  }
  const found = PlanAnswer.parse(answer);
  if (found.gate === null) {
    return { next: `no gate waits; next: cordon show ${id}`, text: [], json: { plan: found } };
  }
  const sealed = found.items === undefined && found.evidence !== undefined ? await fromEvidence(cli, found.evidence) : undefined;
  const items = found.items ?? sealed ?? [];
  const missing = found.items === undefined && sealed === undefined && found.evidence !== undefined;
  const counts = Object.entries(found.counts).map(([action, n]) => `${clean(action)} ${n}`);
  const limit = Math.max(Number.parseInt(options.limit ?? '40', 10) || 40, 1);
  const head = ['action', 'rule', 'scope', 'fact', 'entity · relation: reason'];
  const cells = items.slice(0, limit).map((i) => [i.action, i.rule, i.scope, i.id, `${i.entity} · ${i.relation}: ${gist(i)}`]);
  const lines = [
    `gate ${found.gate}, opening ${found.opening}: ${counts.join(', ') || 'no items'}`,
    `digest ${clean(found.digest)}`,
    ...(cells.length === 0 ? [] : ['', table(head, cells, cli.width, [8, 14, 8, 14])]),
    ...(items.length > limit ? [`… ${items.length - limit} more: --limit ${items.length}, or --json for whole ids`] : []),
    ...(missing
      ? [
          '',
          `The items are evidence ${clean(found.evidence ?? '')}, which is not under ${cli.config.evidenceDir}:`,
          'run this where the evidence is, or set CORDON_EVIDENCE_DIR.',
        ]
      : []),
    '',
    `reject: cordon reject ${id} --gate ${found.gate} --digest ${clean(found.digest)} --by YOU`,
    ...(found.gate === 'retract' ? [`keep a fact: cordon amend ${id} --digest ${clean(found.digest)} --keep 'FACT=WHY' --by YOU`] : []),
  ];
  const next = `next: read it, then cordon approve ${id} --gate ${found.gate} --digest ${clean(found.digest)} --by YOU`;
  return {
    next,
    text: lines,
    json: { plan: found, ...(sealed === undefined ? {} : { items: sealed }) },
    ...(missing ? { exit: 'failed' as const } : {}),
  };
}

/** The first of the reasons; what has to be done by hand is shown whole. */
function gist({ action, reason }: PlanItem): string {
  return action === 'hold' || reason.length <= shownReason ? reason : `${reason.slice(0, shownReason - 1)}…`;
}

/** The plan's lines from the evidence folders here; undefined when none of them holds it. */
async function fromEvidence(cli: Cli, id: string): Promise<PlanItem[] | undefined> {
  const sha256 = /^sha256:([0-9a-f]{64})$/.exec(id)?.[1];
  if (sha256 === undefined) throw new CliError('failed', `the plan names evidence ${clean(id)}, which is no evidence id`);
  for (const { dir } of await listIncidentFolders(cli.config.evidenceDir)) {
    const file = objectPath(dir, sha256);
    const digest = await digestFile(file);
    if (digest === undefined) continue;
    if (digest.sha256 !== sha256) {
      throw new CliError('unverified', `the sealed plan was changed: ${file}`, `cordon verify ${shellWord(join(dir))}`);
    }
    return await readItems(file);
  }
  return undefined;
}

async function readItems(file: string): Promise<PlanItem[]> {
  const items: PlanItem[] = [];
  for await (const line of splitLines(fileChunks(file), maxLineBytes)) {
    const parsed = PlanItem.safeParse(JSON.parse(line.bytes.toString('utf8')));
    if (!parsed.success) throw new CliError('failed', `line ${items.length + 1} of the sealed plan is no plan item: ${file}`);
    items.push(parsed.data);
  }
  return items;
}
