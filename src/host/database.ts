import type { z } from 'zod';

/** A value as both kinds of database take it. */
export type Value = string | number | null;

/** Statements of one connection. SQL stands in this folder alone, with `?` for each value. */
export interface Session {
  /** Rows, each checked against what is expected of it. Throws {@link HostSchemaError} for a row of another shape. */
  rows<T>(shape: z.ZodType<T>, sql: string, ...values: readonly Value[]): Promise<T[]>;
  /** Gives how many rows were changed. */
  run(sql: string, ...values: readonly Value[]): Promise<number>;
  /** Until the change ends nobody else writes to this table: what was read there is still so when it is written. */
  lock(table: Table): Promise<void>;
}
export type Table =
  | 'peers'
  | 'api_keys'
  | 'agent_keys'
  | 'capability_tokens'
  | 'subscriptions'
  | 'garden_members'
  | 'fact_validity_overrides'
  | 'quarantine_rules'
  | 'tombstone_revocations';

/** The database of our own node, beside the node that runs on it. */
export interface HostDatabase {
  readonly kind: 'sqlite' | 'postgres';
  read<T>(work: (session: Session) => Promise<T>): Promise<T>;
  /** One short transaction: all of it, or nothing. */
  change<T>(work: (session: Session) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** The database is not one this cordon knows: nothing in it was touched. */
export class HostSchemaError extends Error {
  override readonly name = 'HostSchemaError';
}

/** The database can't be reached or opened, or is kept busy by the node for too long. */
export class HostUnavailableError extends Error {
  override readonly name = 'HostUnavailableError';
}

/** The host's own files or programs did not do what they are for. */
export class HostFileError extends Error {
  override readonly name = 'HostFileError';
}

/** It would do harm on a node that is set up like this one, so it is not done. */
export class HostRefusedError extends Error {
  override readonly name = 'HostRefusedError';
}

/** `?, ?, ?` for a list of values. */
export function placeholders(values: readonly Value[]): string {
  return values.map(() => '?').join(', ');
}

/** Checks rows as they come from a database. */
export function checked<T>(shape: z.ZodType<T>, rows: readonly unknown[], sql: string): T[] {
  return rows.map((row) => {
    const parsed = shape.safeParse(row);
    if (parsed.success) return parsed.data;
    const [issue] = parsed.error.issues;
    // No value: a row may hold a secret.
    const column = issue?.path.join('.') ?? '';
    throw new HostSchemaError(`${tableOf(sql)}.${column}: ${issue?.message ?? 'not as expected'}, so this is no schema that cordon knows`);
  });
}

function tableOf(sql: string): string {
  return /\b(?:FROM|INTO|UPDATE)\s+(\w+)/i.exec(sql)?.[1] ?? 'a table';
}
