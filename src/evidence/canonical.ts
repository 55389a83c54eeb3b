import { createHash } from 'node:crypto';

import { EvidenceError } from './errors.ts';

/**
 * RFC 8785 canonical JSON of `value`, without a final newline. Properties that are undefined are left out, undefined
 * in an array is null, `toJSON` functions are honoured, as JSON.stringify does.
 *
 * Not json-canonicalize: that one takes one object held as both `a` and `ab` for a circle and throws, and leaves an
 * object unsorted that has a property named toJSON, which a hostile peer may send.
 *
 * Throws EvidenceError `invalid` for what JSON would lose in silence: NaN, bigint, functions, Map, Set, bytes inside an
 * object, circles, or nesting deeper than the stack.
 */
export function canonicalJson(value: unknown): string {
  try {
    return write(value, '$', new Set());
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw invalid('$', 'is nested too deeply for JSON; seal its raw bytes instead');
  }
}

/** Lower-case hex of sha256. */
export function sha256Hex(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

function invalid(path: string, what: string): EvidenceError {
  return new EvidenceError('invalid', path.slice(0, 200), what);
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
  return typeof value.toJSON === 'function' ? value.toJSON() : value;
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
