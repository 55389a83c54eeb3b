import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex, utf8ToBytes } from '@noble/hashes/utils.js';
import { canonicalize } from 'json-canonicalize';
import type { Gate } from './names.ts';

/** RFC 8785 canonical JSON of a JSON value. Pure: the same in the workflow sandbox, the CLI and the verifier. */
export function canonicalJson(value: unknown): string {
  return canonicalize(value);
}

/** `sha256:<64 lower-case hex>` of a string's UTF-8 bytes. */
export function sha256Id(text: string): string {
  return `sha256:${bytesToHex(sha256(utf8ToBytes(text)))}`;
}

/**
 * What a decision is about: exactly one opening of one gate with one plan in one run.
 * Made in workflow code from the run id, so that a reset voids every approval given before it.
 */
export function gateDigest(of: { gate: Gate; opening: number; planHash: string; runId: string }): string {
  return sha256Id(canonicalJson(of));
}

/** Does a digest typed by a person (`sha256:` and 12 hex digits or more) name this full digest? */
export function digestMatches(given: string, full: string): boolean {
  return /^sha256:[0-9a-f]{12,64}$/.test(given) && full.startsWith(given);
}

/** planHash: sha256 of the canonical JSON of the plan's (id, action, content hash), sorted by id. */
export function planHash(items: readonly { id: string; action: string; contentHash: string }[]): string {
  const rows = items
    .map(({ id, action, contentHash }) => [id, action, contentHash])
    .toSorted((a, b) => ((a[0] ?? '') < (b[0] ?? '') ? -1 : (a[0] ?? '') > (b[0] ?? '') ? 1 : 0));
  return sha256Id(canonicalJson(rows));
}
