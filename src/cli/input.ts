import { readFileSync, statSync } from 'node:fs';
import { parse as parseYaml } from 'yaml';
import type { z } from 'zod';
import { explainIssues } from '../contract/schemas.ts';
import { CliError } from './exit.ts';

/** Parses what will be sent. A mismatch is said field by field: expected, and what came. Nothing is sent. */
export function checked<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new CliError('usage', `${what} is not valid, nothing was sent: ${explainIssues(parsed.error, value)}`);
}

const maxFileBytes = 8 * 1024 * 1024;

/** A YAML or JSON file given by the operator. */
export function readDataFile(file: string, what: string): unknown {
  const bad = (why: string) => new CliError('usage', `${what} ${file}: ${why}`);
  let text: string;
  try {
    if (statSync(file).size > maxFileBytes) throw bad(`expected at most ${maxFileBytes} bytes`);
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw bad(`expected a readable file, got ${error instanceof Error && 'code' in error ? String(error.code) : 'an error'}`);
  }
  try {
    const value: unknown = parseYaml(text, { maxAliasCount: 50 });
    return value;
  } catch (error) {
    throw bad(`expected YAML or JSON: ${error instanceof Error ? (error.message.split('\n')[0] ?? '') : ''}`);
  }
}

/** `name[@time][=detail]` as an alert; its fields are checked with the whole payload. */
export function parseAlert(text: string): { name: string; at?: string; detail?: string } {
  const equals = text.indexOf('=');
  const head = equals === -1 ? text : text.slice(0, equals);
  const sign = head.indexOf('@');
  return {
    name: sign === -1 ? head : head.slice(0, sign),
    ...(sign === -1 ? {} : { at: head.slice(sign + 1) }),
    ...(equals === -1 ? {} : { detail: text.slice(equals + 1) }),
  };
}

/** `factId=justification`; fact ids hold no `=`. */
export function parseKeep(text: string): { factId: string; justification: string } {
  const equals = text.indexOf('=');
  if (equals < 1) throw new CliError('usage', `--keep: expected factId=justification, got ${JSON.stringify(text.slice(0, 100))}`);
  return { factId: text.slice(0, equals), justification: text.slice(equals + 1) };
}

/** An option that must be there. */
export function required(value: string | undefined, flag: string, what: string): string {
  if (value === undefined || value.trim() === '') throw new CliError('usage', `${flag} is needed: ${what}`);
  return value;
}
