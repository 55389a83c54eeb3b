import { z } from 'zod';
import type { PeerRef } from '../../src/contract/steps.ts';
import { cancelSignal, type Deps } from '../deps.ts';

/** routes/federation/peers.py, patch_peer_policy: names the columns that were set, not their values. */
const Updated = z.looseObject({ updated: z.array(z.string()) });

/** When the fence that stands now went up, by our node's own audit; null when none stands or the audit does not say. */
export async function fencedAt(deps: Deps, peer: PeerRef | null): Promise<string | null> {
  if (peer === null) return null;
  const rows = (await deps.node.peers(cancelSignal())).filter(({ peer_id: id }) => peer.peerIds.includes(id));
  // Of a row that the host worker revoked its own listing tells when: no route shows what its audit rows say.
  if (rows.length === 0 || !rows.every((row) => row.ingest_tenant?.startsWith('cordon'))) return null;
  const page = await deps.node.federationAuditPage({ eventType: 'peer_policy_updated', limit: 500 }, cancelSignal());
  const times = page.entries
    .filter(
      ({ peer_id: id, detail }) =>
        id !== null && peer.peerIds.includes(id) && (Updated.safeParse(detail).data?.updated.includes('ingest_tenant') ?? false),
    )
    .map(({ ts }) => ts)
    .sort();
  // The latest one: what came in before it may have come through a row that was still open.
  return times.at(-1) ?? null;
}
