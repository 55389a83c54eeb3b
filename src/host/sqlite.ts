import { existsSync } from 'node:fs';
import Database from 'libsql';
import { checked, HostUnavailableError, type HostDatabase, type Session, type Value } from './database.ts';

/** How long a statement waits for the node's own write to end. */
const busyMs = 3_000;

/**
 * The node's SQLite file. The node writes to it all the time: every change here is one short `BEGIN IMMEDIATE`, and
 * they go one after the other.
 *
 * This process must not open the file in any other way, not even to read it: with any file descriptor of it that is
 * closed POSIX takes away all locks this process has on it, and what is written after that is lost.
 */
export function openSqlite(path: string): HostDatabase {
  if (!existsSync(path)) throw new HostUnavailableError(`STIGMEM_DB_PATH: expected the node's database, came no file at ${path}`);
  const database = opened(path);
  const session: Session = {
    rows: async (shape, sql, ...values) =>
      checked(
        shape,
        told(() => whole(database, sql, values)),
        sql,
      ),
    run: async (sql, ...values) => told(() => database.prepare(sql).run(...values)).changes,
    // BEGIN IMMEDIATE has it already.
    lock: async () => undefined,
  };
  let last: Promise<unknown> = Promise.resolve();
  const alone = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = last.catch(() => undefined).then(work);
    last = mine;
    return mine;
  };
  const exec = (sql: string): void => void told(() => database.exec(sql));
  return {
    kind: 'sqlite',
    read: (work) => alone(() => work(session)),
    change: (work) =>
      alone(async () => {
        exec('BEGIN IMMEDIATE');
        try {
          const result = await work(session);
          exec('COMMIT');
          return result;
        } catch (error) {
          if (database.inTransaction) exec('ROLLBACK');
          throw error;
        }
      }),
    close: async () => {
      await last.catch(() => undefined);
      database.close();
    },
  };
}

/**
 * Rows as JSON that SQLite itself writes: the library ends every text at its first NUL, and a peer may put one into an
 * id, an entity or a value.
 */
function whole(database: Database.Database, sql: string, values: readonly Value[]): unknown[] {
  const names = database
    .prepare(sql)
    .columns()
    .map(({ name }) => `'${name}', "${name}"`);
  const rows = database.prepare(`SELECT json_object(${names.join(', ')}) AS row FROM (${sql})`).all(...values);
  return rows.map((row): unknown => JSON.parse((row as { readonly row: string }).row));
}

function opened(path: string): Database.Database {
  try {
    return new Database(path, { timeout: busyMs });
  } catch (error) {
    throw new HostUnavailableError(`STIGMEM_DB_PATH: expected the node's database at ${path}, came: ${wordsOf(error)}`, { cause: error });
  }
}

/** What the file itself answers, in words: busy, locked, not a database, no right to write. */
function told<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (!/^SQLITE_(BUSY|LOCKED|CANTOPEN|READONLY|IOERR|FULL|NOTADB|CORRUPT|PERM|AUTH)/.test(code)) throw error;
    throw new HostUnavailableError(`the node's database: ${code}: ${wordsOf(error)}`, { cause: error });
  }
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
