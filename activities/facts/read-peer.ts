import type { PeerRef } from '../../src/contract/steps.ts';
import { authorityOf } from '../../src/policy/entity.ts';
import { short } from '../../src/policy/rule.ts';
import { readPeer as readEndpoints, type PeerReading } from '../../src/stigmem/peer-reader.ts';
import { collectAudit } from '../../src/stigmem/paging.ts';
import { cancelSignal, type Deps } from '../deps.ts';
import { beat } from '../heartbeat.ts';
import { writtenWithKeysOf } from './by-key.ts';
import { answered } from './shape.ts';

/** What the peer says of itself, held against what our node has. */
export interface PeerSaid {
  readonly reading: PeerReading | null;
  readonly entityUri: string;
  readonly findings: readonly string[];
  /** Both documents were read and nothing in them contradicts our node. */
  readonly consistent: boolean;
}

/** One bounded try at the peer's own endpoints. Whatever they answer, or not, is a finding and never a failure. */
export async function askPeer(deps: Deps, peer: PeerRef | null): Promise<PeerSaid> {
  if (peer === null) return { reading: null, entityUri: '', findings: ['no peer to ask: resolvePeer was skipped'], consistent: false };
  const reading = await readEndpoints(peer.url, { allowPrivate: deps.peerAllow, signal: cancelSignal() });
  const { wellKnown, manifest, fingerprint, manifestFingerprint } = reading;
  const findings = reading.errors.map((error) => `not read: ${error}`);
  if (wellKnown && !peer.nodeIds.includes(wellKnown.node_id)) {
    findings.push(`it calls itself node ${short(wellKnown.node_id)}; our node knows ${peer.nodeIds.map(short).join(', ')}`);
  }
  if (fingerprint && manifestFingerprint && fingerprint !== manifestFingerprint) {
    findings.push(
      `its two documents show different keys (well-known ${fingerprint}, manifest ${manifestFingerprint}): a rotation that is not complete, or two hands`,
    );
  }
  const rotations = manifest?.rotation_events ?? [];
  if (rotations.length > 0) {
    findings.push(
      `its manifest has ${rotations.length} rotation event${rotations.length === 1 ? '' : 's'}, the last at ${short(rotations.at(-1)?.rotated_at ?? '')}`,
    );
  }
  const belief = await believeEntity(deps, peer, reading);
  if (belief.why !== '') findings.push(belief.why);
  const isWhole = wellKnown !== undefined && manifest !== undefined && reading.errors.length === 0;
  const isSame = isWhole && peer.nodeIds.includes(wellKnown.node_id) && fingerprint === manifestFingerprint;
  const consistent = isSame && belief.uri !== '' && belief.why === '';
  return { reading, entityUri: belief.uri, findings, consistent };
}

/**
 * The entity URI is believed only if nothing speaks against it: the document is of the node_id our node knows, its
 * manifest names the same one, it is not under our own authority, and no fact under it was written here or came
 * from anybody else. What our node knows already wins.
 */
async function believeEntity(deps: Deps, peer: PeerRef, { wellKnown, manifest }: PeerReading): Promise<{ uri: string; why: string }> {
  const said = manifest?.entity_uri ?? wellKnown?.entity_uri ?? '';
  const not = (why: string) => ({ uri: peer.entityUri, why: `its entity URI ${short(said)} is not believed: ${why}` });
  if (said === '') return { uri: peer.entityUri, why: '' };
  if (peer.entityUri !== '') return said === peer.entityUri ? { uri: said, why: '' } : not(`our node has ${short(peer.entityUri)}`);
  if (!wellKnown || !peer.nodeIds.includes(wellKnown.node_id)) return not('it is said by another node_id than the one our node knows');
  if (typeof wellKnown.entity_uri === 'string' && wellKnown.entity_uri !== said)
    return not(`its well-known says ${short(wellKnown.entity_uri)}`);
  if (said.length > 2_048) return not('it is too long');
  const ours = await deps.node.wellKnown(cancelSignal());
  if (authorityOf(said) === null || authorityOf(said) === authorityOf(ours.entity_uri ?? '')) return not('it is no URI of its own');
  const everything = { include_contradicted: true, include_expired: true, include_low_trust: true, limit: 500 } as const;
  const page = await answered(() => deps.node.factsPage({ source: said, ...everything }, cancelSignal()));
  if (typeof page === 'string') return not(`our node does not show the facts under it (${page})`);
  const others = page.facts.filter(({ received_from: from }) => from === null || !peer.nodeIds.includes(from));
  if (others.length === 0) return { uri: said, why: '' };
  // A key that was once issued to the peer's entity writes here under its name: that is the peer too.
  const audit = await collectAudit(deps.node, { signal: cancelSignal(), onPage: () => beat() });
  const byKey = writtenWithKeysOf(audit.items, [said]);
  const strangers = others.filter(({ id }) => !byKey.has(id));
  return strangers.length > 0 ? not(`${strangers.length} facts under it were written here or came from others`) : { uri: said, why: '' };
}
