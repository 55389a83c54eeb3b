import { z } from 'zod';
import { TokenRow } from './access.ts';
import type { HostDatabase, Session, Value } from './database.ts';

const Text = z.string().nullable();

// No column that is a secret or a bearer of rights: not token_json, not the nonce of a token.
const kinds = {
  /** Deleted when they have expired. */
  tokens: {
    table: 'capability_tokens',
    key: 'id',
    shape: TokenRow,
  },
  /** Which peer called when: deleted when they have expired. They are spent: once used, each is refused. */
  nonces: {
    table: 'nonce_cache',
    key: 'nonce',
    shape: z.object({ nonce: z.string(), peer_id: z.string(), expires_at: z.string() }),
  },
  /** What was sent to whom: deleted some time after it was delivered. */
  deliveries: {
    table: 'subscription_events',
    key: 'id',
    shape: z.object({
      id: z.string(),
      subscription_id: z.string(),
      event_type: z.string(),
      entity_uri: Text,
      fact_id: Text,
      created_at: z.string(),
      delivered_at: Text,
      delivery_status: z.string(),
    }),
  },
} as const;

/** What the node deletes by itself some day. */
export type Vanishing = keyof typeof kinds;
export const vanishing = Object.keys(kinds) as Vanishing[];

/**
 * One page of it, in the order of its key, so that it is sealed before the node forgets it.
 * @param after - `next` of the page before; empty for the first
 */
export async function vanishingPage(
  database: HostDatabase,
  kind: Vanishing,
  after: string,
  limit: number,
): Promise<{ readonly rows: readonly object[]; readonly next: string | undefined }> {
  const { table, key, shape } = kinds[kind];
  const columns = Object.keys(shape.shape).join(', ');
  const rows = await database.read((session: Session) =>
    session.rows<Record<string, Value>>(shape, `SELECT ${columns} FROM ${table} WHERE ${key} > ? ORDER BY ${key} LIMIT ?`, after, limit),
  );
  const last = rows.at(-1)?.[key];
  return { rows, next: rows.length < limit || typeof last !== 'string' ? undefined : last };
}
