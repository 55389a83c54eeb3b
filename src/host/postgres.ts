import pg from 'pg';
import { checked, HostSchemaError, HostUnavailableError, type HostDatabase, type Session } from './database.ts';

const connectMs = 10_000;
const statementMs = 60_000;
const lockMs = 10_000;

/** What {@link openPostgres} works with; both from the environment that the node reads itself. */
export interface PostgresSettings {
  /** STIGMEM_PG_DSN: a secret, nothing here repeats it. */
  readonly dsn: string;
  /** STIGMEM_PG_SCHEMA; undefined: the role's own search path. */
  readonly schema?: string | undefined;
}

/** The node's PostgreSQL database. Throws {@link HostSchemaError} for a DSN that is no URL. */
export function openPostgres({ dsn, schema }: PostgresSettings): HostDatabase {
  if (!/^postgres(ql)?:\/\//.test(dsn) || !URL.canParse(dsn))
    throw new HostSchemaError(
      'STIGMEM_PG_DSN: expected a URL, postgresql://user:password@host:port/database (the node takes key=value too, cordon does not), came something else (not shown)',
    );
  if (schema !== undefined && !/^[a-z][a-z0-9_]{0,62}$/.test(schema))
    throw new HostSchemaError(`STIGMEM_PG_SCHEMA: expected a lower-case name, came ${JSON.stringify(schema.slice(0, 100))}`);
  const pool = new pg.Pool({
    connectionString: dsn,
    max: 4,
    application_name: 'cordon host-worker',
    connectionTimeoutMillis: connectMs,
    statement_timeout: statementMs,
    // A server that went silent: the socket itself would wait for hours.
    query_timeout: statementMs + lockMs,
    keepAlive: true,
    lock_timeout: lockMs,
    // A worker that is stopped in the middle must not keep the node waiting.
    idle_in_transaction_session_timeout: lockMs,
    ...(schema === undefined ? {} : { options: `-c search_path=${schema}` }),
  });
  // A connection that breaks says so here besides, whether anybody uses it or not, and would end the process.
  pool.on('error', () => undefined);
  pool.on('connect', (client) => void client.on('error', () => undefined));
  const within = async <T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> => {
    const client = await told(() => pool.connect());
    let broken: Error | undefined;
    try {
      return await work(client);
    } catch (error) {
      broken = error instanceof HostUnavailableError ? error : undefined;
      throw error;
    } finally {
      client.release(broken);
    }
  };
  const sessionOf = (client: pg.PoolClient): Session => ({
    rows: async (shape, sql, ...values) => checked(shape, (await told(() => client.query<object>(numbered(sql), [...values]))).rows, sql),
    run: async (sql, ...values) => (await told(() => client.query(numbered(sql), [...values]))).rowCount ?? 0,
    lock: async (table) => void (await told(() => client.query(`LOCK TABLE ${table} IN SHARE ROW EXCLUSIVE MODE`))),
  });
  return {
    kind: 'postgres',
    read: (work) => within((client) => work(sessionOf(client))),
    change: (work) =>
      within(async (client) => {
        await told(() => client.query('BEGIN'));
        try {
          const result = await work(sessionOf(client));
          await told(() => client.query('COMMIT'));
          return result;
        } catch (error) {
          // A connection that is gone has rolled back by itself.
          await client.query('ROLLBACK').catch(() => undefined);
          throw error;
        }
      }),
    close: () => pool.end(),
  };
}

/** `?` as PostgreSQL counts them. No statement here has one in a literal. */
function numbered(sql: string): string {
  let count = 0;
  return sql.replaceAll('?', () => `$${++count}`);
}

/** Connection failures, lock and statement timeouts, a server that shuts down or is full: classes of SQLSTATE. */
const passing = /^(08|25P03|25006|28|3D|40|53|55P03|57|58)/;

async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    const isServers = error instanceof pg.DatabaseError;
    if (isServers && !passing.test(code)) throw error;
    if (!isServers && !(error instanceof Error)) throw error;
    throw new HostUnavailableError(`the node's database: ${code === '' ? '' : `${code}: `}${error instanceof Error ? error.message : ''}`, {
      cause: error,
    });
  }
}
