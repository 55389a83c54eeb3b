import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex, utf8ToBytes } from '@noble/hashes/utils.js';
import type { Gate } from './names.ts';

/** What can't be written as JSON without losing something in silence. `path` names where, `$` for the whole. */
export class CanonicalError extends Error {
  override readonly name = 'CanonicalError';
  readonly path: string;
  constructor(path: string, what: string) {
    super(what);
    this.path = path.slice(0, 200);
  }
}

/**
 * RFC 8785 canonical JSON of `value`, without a final newline. Properties that are undefined are left out, undefined
 * in an array is null, `toJSON` functions are honoured, as JSON.stringify does. Pure: the same in the workflow
 * sandbox, the CLI and the verifier.
 *
 * Not json-canonicalize: that one takes one object held as both `a` and `ab` for a circle and throws, and leaves an
 * object unsorted that has a property named toJSON, which a hostile peer may send.
 *
 * @throws CanonicalError for what JSON would lose in silence: NaN, bigint, functions, Map, Set, bytes inside an
 * object, circles, or nesting deeper than the stack
 */
export function canonicalJson(value: unknown): string {
  try {
    return write(value, '$', new Set());
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw invalid('$', 'is nested too deeply for JSON; seal its raw bytes instead');
  }
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

function invalid(path: string, what: string): CanonicalError {
  return new CanonicalError(path, what);
}

function write(given: unknown, path: string, above: Set<object>): string {
  const value = unwrap(given);
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return JSON.stringify(value);
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw invalid(path, `${value} is no JSON number`);
    return JSON.stringify(value);
  }
  if (typeof value !== 'object') throw invalid(path, `a ${typeof value} is no JSON value`);
  if (above.has(value)) throw invalid(path, 'refers back to an object that holds it');
  above.add(value);
  const text = Array.isArray(value) ? writeArray(value, path, above) : writeObject(value, path, above);
  above.delete(value);
  return text;
}

function unwrap(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || !('toJSON' in value)) return value;
  return typeof value.toJSON === 'function' ? value.toJSON.call(value) : value;
}

function writeArray(values: readonly unknown[], path: string, above: Set<object>): string {
  const parts: string[] = [];
  for (const [index, item] of values.entries()) {
    parts.push(item === undefined ? 'null' : write(item, `${path}[${index}]`, above));
  }
  return `[${parts.join(',')}]`;
}

function writeObject(value: object, path: string, above: Set<object>): string {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw invalid(path, `a ${value.constructor.name} would be lost in JSON; turn it into plain data first`);
  }
  const members: [string, unknown][] = Object.entries(value);
  // RFC 8785 sorts by UTF-16 code units, as < on strings does.
  members.sort(([a], [b]) => (a < b ? -1 : 1));
  const parts: string[] = [];
  for (const [name, item] of members) {
    if (item !== undefined) parts.push(`${JSON.stringify(name)}:${write(item, `${path}.${name}`, above)}`);
  }
  return `{${parts.join(',')}}`;
}
