import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';

import { errnoOf, toEvidenceError } from './errors.ts';
import { incidentFolderName } from './names.ts';
import { INCIDENT_FILE } from './store.ts';

/** Content of incident.json, entry 0 of every chain. `at`: when the folder was made, ISO 8601. */
export const IncidentFile = z.strictObject({ at: z.string(), format: z.literal(1), incident: z.string() });
export type IncidentFile = z.infer<typeof IncidentFile>;

/** `dir`: the folder's path · `incident`: its id, or null with `why` if incident.json can't be believed. */
export type IncidentFolder = { dir: string; folder: string; incident: string | null; why?: string };

/** The incident folders under `root`, by name; none if there is no root. Throws EvidenceError if it can't be listed. */
export async function listIncidentFolders(root: string): Promise<IncidentFolder[]> {
  let names: string[];
  try {
    const found = await readdir(root, { withFileTypes: true });
    names = found.filter((item) => item.isDirectory() && !item.name.startsWith('.')).map((item) => item.name);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw toEvidenceError(error, root, 'listing the incidents');
  }
  return Promise.all(names.toSorted().map((folder) => describe(root, folder)));
}

async function describe(root: string, folder: string): Promise<IncidentFolder> {
  const dir = join(root, folder);
  try {
    const { incident } = IncidentFile.parse(JSON.parse(await readFile(join(dir, INCIDENT_FILE), 'utf8')));
    if (incidentFolderName(incident) === folder) return { dir, folder, incident };
    return { dir, folder, incident: null, why: `${INCIDENT_FILE} names an incident that belongs in another folder` };
  } catch {
    return { dir, folder, incident: null, why: `${INCIDENT_FILE} is missing or can not be read` };
  }
}
