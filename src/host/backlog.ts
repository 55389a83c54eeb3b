import { z } from 'zod';
import { HostRefusedError, HostSchemaError, type HostDatabase } from './database.ts';
import { ownKey, peerToken } from './peer-token.ts';
import { readPeers, type HostPeer } from './peers.ts';
import { readHostNode } from './schema.ts';
import { depthOf } from '../stigmem/bounded-json.ts';
import { connectPeer, reasonOf, type PeerConnection } from '../stigmem/peer-reader.ts';
import type { AllowPrivate } from '../stigmem/address-policy.ts';

/** One line of what waits behind the fence. What the peer sent is kept as text: nothing in it can break what seals it. */
export const BacklogLine = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('backlog'), peerId: z.string(), cursor: z.string().nullable(), fetchedAt: z.string() }),
  z.object({ kind: z.literal('entry'), json: z.string() }),
  z.object({ kind: z.literal('end'), pages: z.int(), facts: z.int(), complete: z.boolean(), why: z.string() }),
]);
export type BacklogLine = z.infer<typeof BacklogLine>;

/** models/federation.py, FederationFactsResponse. What stands in `facts` is looked at one by one. */
const Page = z.object({
  v: z.literal(2),
  facts: z.array(z.unknown()).max(1_000),
  cursor: z.string().max(2_000).nullable(),
  has_more: z.boolean(),
});

/** Facts in one page, as the node itself asks (federation_pull.py, pull_from_peer_once). */
const pageSize = 100;
const pageBytes = 16 * 1024 * 1024;

export interface BacklogOptions {
  /** Peers rows that are the peer's. */
  readonly peerIds: readonly string[];
  readonly nodeId: string;
  /** The node's own federation key where it is configured; else the one in its database. A secret. */
  readonly privateKey: string | undefined;
  readonly allowPrivate: AllowPrivate;
  /** A peer that serves without end is cut off here, and that is said. */
  readonly maxFacts: number;
  readonly signal: AbortSignal;
  /**
   * For one page, in milliseconds.
   * @default 30000
   */
  readonly pageMs?: number;
  /** After each page. */
  readonly onPage?: (facts: number) => void;
}

/**
 * All that the peer would deliver at the next pull, fetched as the node would, with its own credentials, from where its
 * cursor stands; nothing is stored in the node and the cursor does not move. Whatever the peer answers ends it in words,
 * never in an error. Throws {@link HostRefusedError} when the door is not shut: then the node takes it all the while.
 */
export async function* walkBacklog(database: HostDatabase, options: BacklogOptions): AsyncGenerator<BacklogLine> {
  const row = await shutRow(database, options);
  const { cursor: from = null } = row.cursors.find(({ direction }) => direction === 'inbound') ?? {};
  yield { kind: 'backlog', peerId: row.id, cursor: from, fetchedAt: new Date().toISOString() };
  const read = { pages: 0, facts: 0 };
  const why = yield* entries(database, row, from, options, read);
  yield { kind: 'end', ...read, complete: why === undefined, why: why ?? 'the peer says that there is no more' };
}

async function shutRow(database: HostDatabase, { peerIds, nodeId }: BacklogOptions): Promise<HostPeer> {
  const row = (await readPeers(database)).find(({ id, node_id: of }) => peerIds.includes(id) && of === nodeId);
  if (row === undefined) throw new HostRefusedError(`peers: expected a row of ${nodeId.slice(0, 200)}, came none`);
  if (row.status !== 'revoked')
    throw new HostRefusedError(`peers.status: expected revoked while the backlog is fetched, came ${row.status}`);
  return row;
}

/** Gives every entry; ends with what kept it from being all, if anything did. */
async function* entries(
  database: HostDatabase,
  row: HostPeer,
  from: string | null,
  options: BacklogOptions,
  read: { pages: number; facts: number },
): AsyncGenerator<BacklogLine, string | undefined> {
  const { allowPrivate, signal, maxFacts } = options;
  const connection = await connectPeer(row.node_url, { allowPrivate, signal });
  if ('error' in connection) return connection.error;
  const ask = await asker(database, row, connection, options);
  const seen = new Set<string>();
  try {
    for (let cursor = from; ;) {
      const page = await ask(cursor);
      if (typeof page === 'string') return page;
      read.pages += 1;
      for (const entry of page.facts.slice(0, maxFacts - read.facts)) {
        read.facts += 1;
        yield { kind: 'entry', json: textOf(entry) };
      }
      options.onPage?.(read.facts);
      if (read.facts >= maxFacts && (page.has_more || page.facts.length > 0)) return `cut off after ${maxFacts} facts`;
      if (!page.has_more) return undefined;
      // A cursor that comes again leads round in a circle for ever.
      if (page.cursor === null || page.cursor === cursor || seen.has(page.cursor) || page.facts.length === 0)
        return 'the peer says that there is more, and does not say where';
      seen.add(page.cursor);
      cursor = page.cursor;
    }
  } finally {
    await connection.close();
  }
}

/** No fact is nested like this; what walks through it later would run out of stack. */
const maxDepth = 64;

function textOf(entry: unknown): string {
  return JSON.stringify(depthOf(entry, maxDepth) > maxDepth ? `nested deeper than ${maxDepth} levels` : entry);
}

type Ask = (cursor: string | null) => Promise<z.infer<typeof Page> | string>;

/** Each request carries a token of its own: the peer takes none twice. */
async function asker(database: HostDatabase, row: HostPeer, connection: PeerConnection, options: BacklogOptions): Promise<Ask> {
  const { privateKey, signal, pageMs = 30_000 } = options;
  const key = await ownKey(database, privateKey);
  const { nodeId: ours } = await readHostNode(database);
  const scopes = scopesOf(row);
  return async (cursor) => {
    const bearer = peerToken(key, { from: ours, to: row.node_id, scopes });
    const query = { limit: String(pageSize), ...(cursor === null ? {} : { cursor }) };
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), pageMs);
    const either = AbortSignal.any([signal, deadline.signal]);
    try {
      return await connection.get({ path: '/v1/federation/facts', query, bearer, schema: Page, maxBytes: pageBytes, signal: either });
    } catch (error) {
      signal.throwIfAborted();
      return deadline.signal.aborted ? `no complete page within ${pageMs / 1_000} s` : reasonOf(error);
    } finally {
      clearTimeout(timer);
    }
  };
}

function scopesOf({ id, allowed_scopes: text }: HostPeer): readonly string[] {
  const parsed = z
    .string()
    .transform((json): unknown => JSON.parse(json))
    .pipe(z.array(z.string()))
    .safeParse(text);
  if (parsed.success) return parsed.data;
  throw new HostSchemaError(`peers.allowed_scopes of ${id}: expected a list of scopes in JSON, came another shape`);
}
