import { existsSync } from 'node:fs';
import { HistoryError } from '../audit/history.ts';
import type { AuditSource } from '../audit/read.ts';
import type { Answer, Cli } from './cli.ts';
import { CliError } from './exit.ts';
import { findIncident } from './incident.ts';
import { clean } from './text.ts';

/** `audit`: history to report. Needs no worker; with an exported history no Temporal server either. */
export async function audit(cli: Cli, target: string, options: { out?: string }): Promise<Answer> {
  const { evidenceDir } = cli.config;
  const source = await sourceOf(cli, target);
  // Loaded when asked for: no other command pays for reading histories.
  const { runAudit } = await import('../audit/run-audit.ts');
  const work = runAudit({ source, evidenceDir, outDir: options.out ?? '.' });
  const { ok, summary, markdownPath, jsonPath } = await cli.working('reading the history', work).catch((error: unknown) => {
    if (error instanceof HistoryError)
      throw new CliError('usage', error.message, 'give a history as `temporal workflow show --output json` writes it');
    throw error;
  });
  const next = ok ? `audit passed: read ${markdownPath}` : `AUDIT FAILED: read ${markdownPath}`;
  const json = { ok, markdown: markdownPath, json: jsonPath, summary };
  return { next, text: [...summary.map(clean), `also as JSON: ${jsonPath}`], json, exit: ok ? 'ok' : 'unverified' };
}

async function sourceOf(cli: Cli, target: string): Promise<AuditSource> {
  if (existsSync(target)) return { kind: 'file', path: target };
  const session = await cli.temporal();
  const { id } = await findIncident(session, target);
  return { kind: 'workflow', id, client: session.client };
}
