import type { FailureType } from '../src/contract/failures.ts';
import type { PeerRef } from '../src/contract/steps.ts';
import type { PeerNames } from '../src/policy/facts.ts';
import type { Stigmem } from '../src/stigmem/client.ts';
import type { Peer } from '../src/stigmem/wire.ts';

type Found =
  | { readonly row: Peer; readonly by: string; readonly entityUri?: string }
  | { readonly failure: FailureType; readonly why: string };

/**
 * The peers row that a person meant. The list holds no entity URI, so one is looked up by the facts that
 * came under it as their source, and what remains unclear is asked, never guessed.
 */
export async function matchPeers(node: Stigmem, rows: readonly Peer[], asked: string, signal: AbortSignal): Promise<Found> {
  const direct = rows.filter((row) => row.peer_id === asked || row.node_id === asked || sameUrl(row.node_url, asked));
  const byNode = new Set(direct.map(({ node_id }) => node_id));
  const [first] = preferActive(direct);
  if (first && byNode.size === 1) return { row: first, by: 'found by id or URL' };
  if (byNode.size > 1) return ambiguous(direct, `${byNode.size} peers match ${asked}`);
  if (!asked.includes('://') || /^https?:/i.test(asked)) {
    return {
      failure: 'PeerNotFound',
      why: `none of the node's ${rows.length} peers has the node_id, peer_id or URL ${asked.slice(0, 300)}`,
    };
  }
  const { facts } = await node.factsPage(
    { source: asked, include_contradicted: true, include_expired: true, include_low_trust: true, limit: 500 },
    signal,
  );
  const senders = new Set(facts.flatMap(({ received_from: from }) => (from === null ? [] : [from])));
  const speaking = rows.filter(({ node_id }) => senders.has(node_id));
  const [only] = preferActive(speaking);
  if (only && new Set(speaking.map(({ node_id }) => node_id)).size === 1)
    return { row: only, by: 'found by the facts that came under this entity URI', entityUri: asked };
  return ambiguous(
    rows,
    `the node's peer list holds no entity URIs, and facts under ${asked.slice(0, 300)} came from ${speaking.length} of its peers`,
  );
}

/** Every row of the same attacker: the same node_id, or the same URL under another. */
export function clusterOf<T extends Pick<Peer, 'node_id' | 'node_url'>>(rows: readonly T[], row: T): T[] {
  return rows.filter((other) => other.node_id === row.node_id || sameUrl(other.node_url, row.node_url));
}

function preferActive(rows: readonly Peer[]): Peer[] {
  return rows.toSorted((a, b) => Number(b.status === 'active') - Number(a.status === 'active'));
}

function ambiguous(rows: readonly Peer[], why: string): Found {
  const names = rows.slice(0, 10).map(({ node_id, node_url }) => `${node_id} at ${node_url}`);
  return { failure: 'PeerAmbiguous', why: `${why}: say which by \`retry\` with its node_id as the note. Peers: ${names.join('; ')}` };
}

/** Origins compare by scheme, host and port; a slash at the end or upper case makes no other peer. */
function sameUrl(a: string, b: string): boolean {
  const [x, y] = [URL.parse(a), URL.parse(b)];
  return x !== null && y !== null && x.origin === y.origin && x.origin !== 'null' && trim(x.pathname) === trim(y.pathname);
}

function trim(path: string): string {
  return path.replace(/\/+$/, '');
}

/** Who the peer is and what it was granted, as the rules take it. */
export function namesOf(peer: PeerRef | null): PeerNames {
  const uri = peer?.entityUri ?? '';
  return {
    nodeIds: new Set(peer?.nodeIds ?? []),
    entityUris: new Set(uri === '' ? [] : [uri]),
    allowedScopes: new Set(peer?.allowedScopes ?? []),
  };
}
