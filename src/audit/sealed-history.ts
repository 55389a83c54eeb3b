import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { objectPath } from '../evidence/objects.ts';

const Entry = z.looseObject({ key: z.string(), kind: z.literal('history'), sha256: z.string().regex(/^[0-9a-f]{64}$/) });

/**
 * The history of a run as it was sealed into the incident's evidence after the run had ended; undefined if there is
 * none. Whether the folder can be believed is the verifier's business, and stands beside in the audit.
 */
export async function sealedHistory(evidenceFolder: string, runId: string): Promise<string | undefined> {
  try {
    const lines = (await readFile(join(evidenceFolder, 'index.jsonl'), 'utf8')).split('\n');
    const entries = lines.flatMap((line) => (line.includes('"history:') ? [Entry.safeParse(JSON.parse(line)).data] : []));
    const entry = entries.findLast((other) => other?.key === `history:${runId}`);
    return entry && (await readFile(objectPath(evidenceFolder, entry.sha256), 'utf8'));
  } catch {
    // No folder, no index, a damaged line: then it holds nothing that could be used.
    return undefined;
  }
}
