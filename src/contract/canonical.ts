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
    return write(value, new Trail());
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

/** Where the writer is: the objects it is inside of, and the member of each. The path is put together only for an error. */
class Trail {
  readonly #above: object[] = [];
  readonly #members: (string | number)[] = [];

  enter(value: object): void {
    if (this.#above.includes(value)) throw this.invalid('refers back to an object that holds it');
    this.#above.push(value);
    this.#members.push('');
  }

  at(member: string | number): void {
    this.#members[this.#members.length - 1] = member;
  }

  leave(): void {
    this.#above.pop();
    this.#members.pop();
  }

  invalid(what: string): CanonicalError {
    return invalid(['$', ...this.#members.map((member) => (typeof member === 'number' ? `[${member}]` : `.${member}`))].join(''), what);
  }
}

function write(given: unknown, trail: Trail): string {
  if (typeof given === 'string') return quoted(given);
  const value = unwrap(given);
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return JSON.stringify(value);
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw trail.invalid(`${value} is no JSON number`);
    return JSON.stringify(value);
  }
  if (typeof value !== 'object') throw trail.invalid(`a ${typeof value} is no JSON value`);
  return Array.isArray(value) ? writeArray(value, trail) : writeObject(value, trail);
}

/** Nearly all strings are printable ASCII with nothing to escape; JSON.stringify takes twice as long for those. */
function quoted(text: string): string {
  return /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/.test(text) ? `"${text}"` : JSON.stringify(text);
}

function unwrap(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || !('toJSON' in value)) return value;
  return typeof value.toJSON === 'function' ? value.toJSON.call(value) : value;
}

function writeArray(values: readonly unknown[], trail: Trail): string {
  trail.enter(values);
  let text = '';
  for (let index = 0; index < values.length; index += 1) {
    trail.at(index);
    const item = values[index];
    text += `${index === 0 ? '' : ','}${item === undefined ? 'null' : write(item, trail)}`;
  }
  trail.leave();
  return `[${text}]`;
}

function writeObject(value: object, trail: Trail): string {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw trail.invalid(`a ${value.constructor.name} would be lost in JSON; turn it into plain data first`);
  }
  trail.enter(value);
  let text = '';
  for (const name of sortedNames(value)) {
    const item: unknown = Reflect.get(value, name);
    if (item === undefined) continue;
    trail.at(name);
    text += `${text === '' ? '' : ','}${quoted(name)}:${write(item, trail)}`;
  }
  trail.leave();
  return `{${text}}`;
}

/** RFC 8785 sorts by UTF-16 code units, as sort() without a comparison does. Many are sorted: finding that out is cheaper. */
function sortedNames(value: object): string[] {
  const names = Object.keys(value);
  return names.every((name, at) => at === 0 || (names[at - 1] ?? '') < name) ? names : names.sort();
}
