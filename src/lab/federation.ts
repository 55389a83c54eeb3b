import { createHash } from 'node:crypto';
import { nodeTool } from './python.ts';
import { field, text } from './shapes.ts';
import { waitUntil } from './processes.ts';
import type { StigmemNode } from './stigmem-node.ts';

/** What may flow which way: `scopesAtoB` is what B may read from A, `scopesBtoA` what A may read from B. */
export interface FederationTerms {
  /** @default ['company', 'public'] */
  readonly scopesAtoB?: readonly string[];
  /** @default ['company', 'public'] */
  readonly scopesBtoA?: readonly string[];
}

/** The ids of the two peers rows: B's row in A's database, and A's row in B's. */
export interface FederationLink {
  readonly peerIdOnA: string;
  readonly peerIdOnB: string;
}

/**
 * Makes two running nodes peers of each other, approved on both sides, and waits until both rows
 * are active with a bound entity URI (without it a node skips every fact of the other).
 */
export async function federate(a: StigmemNode, b: StigmemNode, terms: FederationTerms = {}): Promise<FederationLink> {
  const [peerIdOnA, peerIdOnB] = await Promise.all([
    introduce(b, a, terms.scopesAtoB ?? ['company', 'public']),
    introduce(a, b, terms.scopesBtoA ?? ['company', 'public']),
  ]);
  return { peerIdOnA, peerIdOnB };
}

/** Registers `guest` with `host` for the scopes it may read there, and approves it. Returns host's peer_id. */
export async function introduce(guest: StigmemNode, host: StigmemNode, scopes: readonly string[]): Promise<string> {
  const declaration = await nodeTool('declare', { local_url: guest.url, scopes }, { env: guest.env, cwd: guest.dir });
  const registered = await host.request('POST', '/v1/federation/peers', declaration);
  if (registered.status !== 201) throw refused(host, 'registering', registered.body);
  const peerId = text(field(registered.body, 'peer_id'));
  const approved = await host.request('POST', `/v1/federation/peers/${peerId}/approve`, {
    pubkey_fingerprint: fingerprint(text(field(declaration, 'federation_pubkey'))),
  });
  if (approved.status !== 200) throw refused(host, 'approving', approved.body);
  await waitUntil(`${host.name} to bind ${guest.name}'s entity URI`, async () => {
    const [row] = await host.sql('SELECT status, entity_uri FROM peers WHERE id = ?', [peerId]);
    return row?.['status'] === 'active' && row['entity_uri'] === guest.entityUri;
  });
  return peerId;
}

/** The fingerprint of a base64url public key, as the approve route takes it. */
export function fingerprint(publicKey: string): string {
  return `sha256:${createHash('sha256').update(publicKey).digest('hex')}`;
}

function refused(host: StigmemNode, what: string, body: unknown): Error {
  return new Error(`${host.name} refused ${what} the peer: ${JSON.stringify(body)}`);
}

/** One stored fact, as the node's database has it. */
export interface StoredFact {
  readonly id: string;
  readonly entity: string;
  readonly relation: string;
  readonly value: string;
  readonly source: string;
  readonly scope: string;
  readonly timestamp: string;
  readonly confidence: number;
  readonly interpretAs: string;
  readonly receivedFrom: string | null;
  readonly originNodeId: string | null;
  readonly quarantineStatus: string | null;
}

/** All facts of a node, meta-facts too, in the order they came in. */
export async function storedFacts(node: StigmemNode): Promise<StoredFact[]> {
  const order = node.env['STIGMEM_STORAGE_BACKEND'] === 'postgres' ? 'ctid' : 'rowid';
  const found = await node.sql(`SELECT * FROM facts ORDER BY ${order}`);
  return found.map((row) => ({
    id: text(row['id']),
    entity: text(row['entity']),
    relation: text(row['relation']),
    value: String(row['value_v']),
    source: text(row['source']),
    scope: text(row['scope']),
    timestamp: text(row['timestamp']),
    confidence: Number(row['confidence']),
    interpretAs: String(row['interpret_as'] ?? 'content'),
    receivedFrom: nullable(row['received_from']),
    originNodeId: nullable(row['origin_node_id']),
    quarantineStatus: nullable(row['quarantine_status']),
  }));
}

function nullable(value: unknown): string | null {
  return value === null || value === undefined ? null : text(value);
}

/** Waits until a stored fact satisfies the predicate (default 20 s) and returns it. Throws in vain. */
export async function waitForFact(node: StigmemNode, predicate: (fact: StoredFact) => boolean, timeoutMs = 20_000): Promise<StoredFact> {
  const look = async (): Promise<StoredFact | undefined> => (await storedFacts(node)).find(predicate);
  return waitUntil(`a fact on ${node.name}`, look, { timeoutMs, everyMs: 250 });
}

/** POSTs a text fact as the node's own agent would. Returns its id. Throws unless 201. */
export async function assertFact(
  node: StigmemNode,
  fact: {
    readonly entity: string;
    readonly relation: string;
    readonly value: string;
    readonly scope?: string;
    readonly source?: string;
  },
  key: string = node.adminKey,
): Promise<string> {
  const body = {
    entity: fact.entity,
    relation: fact.relation,
    value: { type: 'text', v: fact.value },
    source: fact.source ?? node.entityUri,
    scope: fact.scope ?? 'company',
    confidence: 0.9,
  };
  const answer = await node.request('POST', '/v1/facts', body, key);
  if (answer.status !== 201) throw new Error(`${node.name}: fact refused with ${answer.status}: ${JSON.stringify(answer.body)}`);
  return text(field(answer.body, 'id'));
}
