import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HostSchemaError, HostUnavailableError } from '../../src/host/database.ts';
import { walkFacts, type HostFact } from '../../src/host/facts.ts';
import { openPostgres } from '../../src/host/postgres.ts';
import { readHostNode } from '../../src/host/schema.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { restoreFacts, suppressFacts } from '../../src/host/suppress.ts';
import { startPostgres, type PostgresServer } from '../../src/lab/postgres.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { effectOf, undoing } from '../helpers/host-scene.ts';

// Databases that are not what the host worker knows: each is refused before anything in it is touched.

const dir = join(repoRoot, '.test', 'host-schema');
const wrong = [
  ['older', "DELETE FROM schema_migrations WHERE version LIKE '058%'", 'older than this cordon understands'],
  ['newer', "INSERT INTO schema_migrations (version, applied_at) VALUES ('059_more', 'now')", 'newer than this cordon understands'],
  ['of no node', 'DROP TABLE schema_migrations', "expected a Stigmem node's database"],
] as const;

let node: StigmemNode;
let postgres: PostgresServer;
beforeAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  postgres = await startPostgres(join(dir, 'postgres'));
  await postgres.create('stigmem');
  node = await startStigmemNode({ name: 'ours', dir: join(dir, 'ours') });
  await node.stop();
}, 120_000);
afterAll(async () => {
  await node?.stop();
  await postgres?.stop();
});

describe('a SQLite file', () => {
  it.each(wrong)('that is %s is refused', async (name, script, words) => {
    const copy = join(dir, `${name}.db`);
    execFileSync('cp', [node.dbPath, copy]);
    const database = openSqlite(copy);
    try {
      await database.change((session) => session.run(script));
      const refused = readHostNode(database);
      await expect(refused).rejects.toThrow(HostSchemaError);
      await expect(refused).rejects.toThrow(words);
    } finally {
      await database.close();
    }
  });

  it('that is not there, or is none, is said in words', async () => {
    expect(() => openSqlite(join(dir, 'nowhere.db'))).toThrow(HostUnavailableError);
    writeFileSync(join(dir, 'text.db'), 'no database, but long enough to be taken for one\n'.repeat(100));
    const text = openSqlite(join(dir, 'text.db'));
    await expect(readHostNode(text)).rejects.toThrow(/SQLITE_NOTADB/);
    await text.close();
  });
});

// PostgreSQL takes no NUL in a text; SQLite does, and so does the node's pull.
it('facts with a NUL in their id or value are listed whole, each once, suppressed and restored', async () => {
  const ids = ['nul\u0000a', 'nul\u0000b', 'nul\u0000c'];
  for (const id of ids)
    await node.exec(
      `INSERT INTO facts (id, entity, relation, value_type, value_v, source, timestamp, confidence, scope, received_from)
         VALUES ('nul' || char(0) || '${id.slice(-1)}', 'stigmem://x.test/y', 'memory:z', 'string', 'harmless' || char(0) || 'poison', 's', '2026-01-01', 0.9, 'company', 'stigmem:node:nul')`,
    );
  const database = openSqlite(node.dbPath);
  try {
    const found: HostFact[] = [];
    for await (const fact of walkFacts(database, { nodeIds: ['stigmem:node:nul'], entityUris: [] }, 2)) found.push(fact);
    expect(found.map(({ id }) => id)).toEqual(ids);
    expect(new Set(found.map(({ value_v: value }) => value))).toEqual(new Set(['harmless\u0000poison']));
    const suppress = effectOf('suppressFacts', 'nul');
    expect((await suppressFacts(database, suppress, ids)).record.suppressed.map(({ id }) => id).toSorted()).toEqual(ids);
    expect((await restoreFacts(database, undoing(suppress, 'restoreFacts'))).record.restored.toSorted()).toEqual(ids);
  } finally {
    await database.close();
  }
});

describe('a PostgreSQL database', () => {
  it('without a node is refused; one that does not answer is said in words, without its password', async () => {
    const empty = openPostgres({ dsn: postgres.dsn('stigmem') });
    await expect(readHostNode(empty)).rejects.toThrow("expected a Stigmem node's database");
    await empty.close();
    const dsn = postgres
      .dsn('stigmem')
      .replace('cordon@', 'cordon:secret-4711@')
      .replace(/:\d+\//, ':1/');
    const away = openPostgres({ dsn });
    const failed = await readHostNode(away).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(HostUnavailableError);
    expect(String(failed)).toContain('ECONNREFUSED');
    expect(JSON.stringify(failed) + String(failed)).not.toContain('4711');
    await away.close();
  });

  it('is named by a URL, and its schema by a name; what came is not shown', () => {
    for (const dsn of ['host=127.0.0.1 dbname=stigmem password=4711', 'mysql://cordon:4711@127.0.0.1/x', '']) {
      expect(() => openPostgres({ dsn })).toThrow(/STIGMEM_PG_DSN: expected a URL/);
      expect(() => openPostgres({ dsn })).not.toThrow(/4711/);
    }
    expect(() => openPostgres({ dsn: postgres.dsn('stigmem'), schema: 'a; DROP' })).toThrow(
      /STIGMEM_PG_SCHEMA: expected a lower-case name/,
    );
  });

  it('whose server is killed in the middle of a query fails that query alone', async () => {
    const database = openPostgres({ dsn: postgres.dsn('stigmem') });
    try {
      const asking = database.change((session) => session.run('SELECT pg_sleep(20)')).catch((error: unknown) => error);
      await sleep(300);
      await postgres.kill();
      expect(await asking).toBeInstanceOf(HostUnavailableError);
      await postgres.start();
      await expect(readHostNode(database)).rejects.toThrow(HostSchemaError);
    } finally {
      await database.close();
    }
  });

  it('whose server is killed and started again is used again', async () => {
    const database = openPostgres({ dsn: postgres.dsn('stigmem') });
    try {
      await expect(readHostNode(database)).rejects.toThrow(HostSchemaError);
      await postgres.kill();
      await expect(readHostNode(database)).rejects.toThrow(HostUnavailableError);
      await postgres.start();
      await expect(readHostNode(database)).rejects.toThrow(HostSchemaError);
    } finally {
      await database.close();
    }
  });
});
