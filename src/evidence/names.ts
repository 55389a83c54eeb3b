import { sha256Hex } from './canonical.ts';

export const SAFE_FILE_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;

/**
 * The folder name of an incident: at most 40 readable characters of [a-z0-9-] and the first 16 hex digits of the id's
 * sha256. Ids are chosen by strangers: two that differ have different folders, and none leaves the root.
 */
export function incidentFolderName(incidentId: string): string {
  const slug = incidentId
    .slice(0, 400)
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 40)
    .replace(/^-+|-+$/g, '');
  return `${slug === '' ? 'incident' : slug}-${sha256Hex(Buffer.from(incidentId, 'utf16le')).slice(0, 16)}`;
}

/**
 * A file name that is safe anywhere for `name`: unchanged if it already is one, else made of [A-Za-z0-9._-] with a
 * piece of the sha256 of what was asked for before its extension.
 */
export function safeFileName(name: string): string {
  if (SAFE_FILE_NAME.test(name)) return name;
  const flat = name
    .slice(-100)
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[.-]+/, '');
  const extension = /\.[A-Za-z0-9]{1,8}$/.exec(flat)?.[0] ?? '';
  const stem = flat.slice(0, flat.length - extension.length).slice(0, 60);
  return `${stem === '' ? 'file' : stem}-${sha256Hex(Buffer.from(name, 'utf16le')).slice(0, 8)}${extension}`;
}
