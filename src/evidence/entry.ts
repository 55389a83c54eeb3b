import * as z from 'zod';

import { canonicalJson, sha256Hex } from './canonical.ts';
import { SAFE_FILE_NAME } from './names.ts';

/** `prev` of the first entry. */
export const NO_PREVIOUS = '0'.repeat(64);
/** No line of index.jsonl is longer, in bytes. */
export const MAX_LINE_BYTES = 65_536;

const hex = z.string().regex(/^[0-9a-f]{64}$/);
const text = z.string().min(1).max(2_000);

/**
 * What the caller says about one piece of evidence. `key`: idempotency key of the incident · `kind`: what it is, a word
 * such as `audit` · `name`: for people · `at`: ISO 8601 · `round`: from 1, 0 for what belongs to none.
 */
export const SealMeta = z.strictObject({
  key: text,
  kind: z.string().min(1).max(100),
  name: text,
  mediaType: z.string().min(1).max(200),
  at: z.iso.datetime({ offset: true }),
  phase: z.string().min(1).max(100),
  round: z.int().min(0),
});
export type SealMeta = z.infer<typeof SealMeta>;

/**
 * One line of index.jsonl. `seq` from 0 · `bytes`, `sha256` (hex) of the object · `revision` from 1: how many different
 * contents this key has had · `file`: its readable copy in files/ · `prev`: `hash` of the line before ·
 * `hash`: hex sha256 of the canonical JSON of this entry without `hash`.
 */
export const EvidenceEntry = SealMeta.extend({
  seq: z.int().min(0),
  sha256: hex,
  bytes: z.int().min(0),
  revision: z.int().min(1),
  file: z.string().regex(SAFE_FILE_NAME).optional(),
  prev: hex,
  hash: hex,
});
export type EvidenceEntry = z.infer<typeof EvidenceEntry>;

/** The entry with its hash, and its line without newline. */
export function closeEntry(open: Omit<EvidenceEntry, 'hash'>): { entry: EvidenceEntry; line: string } {
  const entry = { ...open, hash: sha256Hex(canonicalJson(open)) };
  return { entry, line: canonicalJson(entry) };
}

/**
 * Reads one line and holds it against the entry before it. Returns the entry, or in plain words what does not fit;
 * never throws.
 */
export function readEntry(line: Uint8Array, previous: EvidenceEntry | undefined): EvidenceEntry | { wrong: string } {
  let raw: unknown;
  let decoded: string;
  try {
    decoded = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(line);
    raw = JSON.parse(decoded);
  } catch {
    return { wrong: `expected one JSON object in UTF-8, found ${excerpt(line)}` };
  }
  const parsed = EvidenceEntry.safeParse(raw);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return { wrong: `is not an index entry: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`.trimEnd() };
  }
  const { hash, ...open } = parsed.data;
  if (canonicalJson(parsed.data) !== decoded) return { wrong: 'is not in canonical form: the line was rewritten' };
  const actual = sha256Hex(canonicalJson(open));
  if (actual !== hash) return { wrong: `its own hash does not fit: expected ${actual}, found ${hash}` };
  const seq = previous === undefined ? 0 : previous.seq + 1;
  if (open.seq !== seq) return { wrong: `expected entry number ${seq}, found ${open.seq}: lines are missing or moved` };
  const prev = previous?.hash ?? NO_PREVIOUS;
  if (open.prev !== prev) return { wrong: `the chain is broken: expected prev ${prev}, found ${open.prev}` };
  return parsed.data;
}

function excerpt(line: Uint8Array): string {
  return line.length === 0
    ? 'an empty line'
    : `${line.length} bytes: ${JSON.stringify(Buffer.from(line.subarray(0, 40)).toString('latin1'))}`;
}
