import { z } from 'zod';
import { HostSchemaError, type HostDatabase } from './database.ts';

/** The newest migration of the node this cordon was written for, 0.9.0a12. */
export const knownMigration = '058_federation_audit_first_trust_confirm_rejected';

const Version = z.object({ version: z.string() });
const NodeId = z.object({ value: z.string() });

/** What stands in a database that cordon knows. */
export interface HostNode {
  readonly nodeId: string;
  readonly migration: string;
}

/**
 * Whose database it is, and that its schema is the one cordon knows. Throws {@link HostSchemaError} when the node is older
 * or newer: what a column means may have changed, so nothing is touched.
 */
export async function readHostNode(database: HostDatabase): Promise<HostNode> {
  const { versions, ids } = await database.read(async (session) => {
    const table = database.kind === 'sqlite' ? sqliteTable : postgresTable;
    if ((await session.rows(z.object({ name: z.string() }), table)).length === 0)
      throw new HostSchemaError("expected a Stigmem node's database, came one without the table schema_migrations");
    return {
      versions: await session.rows(Version, 'SELECT version FROM schema_migrations ORDER BY version DESC LIMIT 1'),
      ids: await session.rows(NodeId, "SELECT value FROM node_meta WHERE key = 'node_id'"),
    };
  });
  const migration = versions[0]?.version ?? 'none';
  if (migration !== knownMigration) {
    const which = migration > knownMigration ? 'newer than' : 'older than';
    throw new HostSchemaError(
      `the node's schema: expected ${knownMigration} as the last migration, came ${migration.slice(0, 100)}: the node is ${which} this cordon understands`,
    );
  }
  const nodeId = ids[0]?.value;
  if (nodeId === undefined) throw new HostSchemaError('node_meta.node_id: expected the node to have started once, came none');
  return { nodeId, migration };
}

const sqliteTable = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'";
const postgresTable =
  "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'schema_migrations'";
