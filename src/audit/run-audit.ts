import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { incidentFolderName, safeFileName } from '../evidence/names.ts';
import { verifyFolder } from '../evidence/verify.ts';
import { project } from './project.ts';
import { readHistory, type AuditSource } from './read.ts';
import { renderAudit } from './render.ts';

export interface AuditAnswer {
  readonly markdownPath: string;
  readonly jsonPath: string;
  /** What a person should know first, line by line. */
  readonly summary: readonly string[];
  /** false: a change without a valid approval before it, or evidence that does not verify. */
  readonly ok: boolean;
}

/**
 * Audits one incident from its history and its evidence; needs no worker, and with a file no server. Reads only,
 * but for the two files it writes into `outDir`. Throws HistoryError for a history that can't be read.
 */
export async function runAudit(of: { source: AuditSource; evidenceDir: string; outDir: string }): Promise<AuditAnswer> {
  const { source, evidenceDir, outDir } = of;
  const folderOf = (incident: string) => join(evidenceDir, incidentFolderName(incident === '' ? 'unknown' : incident));
  const told = project(await readHistory(source, folderOf));
  const evidenceFolder = folderOf(told.incident);
  const evidence = await verifyFolder(evidenceFolder, { expectHead: told.heads });
  const wrong = evidence.ok
    ? []
    : [`evidence does NOT verify: ${evidence.firstProblem?.where ?? ''}: ${evidence.firstProblem?.what ?? ''}`];
  const audit = { ...told, problems: [...told.problems, ...wrong] };
  const ok = audit.problems.length === 0;
  const named = source.kind === 'file' ? `history file ${source.path}` : `Temporal server, workflow ${source.id}`;
  const base = safeFileName(`audit-${incidentFolderName(told.incident === '' ? 'unknown' : told.incident)}`);
  const [markdownPath, jsonPath] = [join(outDir, `${base}.md`), join(outDir, `${base}.json`)];
  await mkdir(outDir, { recursive: true });
  await writeFile(markdownPath, renderAudit({ audit, source: named, evidence, evidenceFolder, ok }), { mode: 0o600 });
  // Inputs and results stand in the history already, and can be large: the JSON names their events.
  const lean = {
    ...audit,
    activities: audit.activities.map(({ input: _input, result: _result, ...rest }) => rest),
    mutations: audit.mutations.map(({ record, ...rest }) => ({
      ...rest,
      name: record.name,
      runId: record.runId,
      eventId: record.eventId,
      at: record.at,
    })),
  };
  await writeFile(jsonPath, `${JSON.stringify({ format: 1, ok, source: named, evidence, ...lean }, null, 2)}\n`, { mode: 0o600 });
  const { mutations, decisions, messages, gaps, problems, result } = audit;
  return {
    markdownPath,
    jsonPath,
    ok,
    summary: [
      `incident ${audit.incident}: ${result?.outcome ?? 'no outcome'}, ${audit.runs.length} runs`,
      `${mutations.length} changes on the node, ${mutations.filter(({ wrong }) => wrong !== null).length} without a valid approval`,
      `${decisions.length} decisions, ${messages.filter(({ refused }) => refused).length} messages refused`,
      ...(evidence.ok ? [`evidence verifies: ${evidence.entries} entries`] : []),
      ...problems.map((problem) => `problem: ${problem}`),
      ...gaps.map((gap) => `not covered: ${gap}`),
    ],
  };
}
