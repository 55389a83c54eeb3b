import { z } from 'zod';
import { sha256Id } from '../src/contract/canonical.ts';
import type { FirstBad, IncidentRef, KeysVerified, PeerRef } from '../src/contract/steps.ts';
import type { EvidenceEntry } from '../src/evidence/entry.ts';
import type { Problem } from '../src/policy/manifest.ts';
import { judgeRotation, type KnownPeer, type RotationVerdict } from '../src/policy/rotation.ts';
import { readPeer } from '../src/stigmem/peer-reader.ts';
import { Manifest, WellKnown } from '../src/stigmem/wire.ts';
import { assertBoundNode, cancelSignal, effectKey, evidenceOf, headOf, isOf, seal, type Deps } from './deps.ts';
import { StepFailure } from './failures.ts';
import { beat } from './heartbeat.ts';

/** As readPeer sealed what the peer said of itself. */
const SaidByPeer = z.object({ reading: z.object({ wellKnown: WellKnown.optional(), manifest: Manifest.optional() }) });
type SaidByPeer = z.infer<typeof SaidByPeer>['reading'];
/** A peers row as the host worker sealed it; over HTTP it has no key. */
const HostRow = z.object({ node_id: z.string(), federation_pubkey: z.string().min(1) });
const HostRows = z.union([z.object({ rows: z.array(HostRow) }).transform(({ rows }) => rows), z.array(HostRow)]);

/** Recover 3: "Ask the peer operator to rotate compromised node or issuer keys", and see that it happened. Changes nothing on the node. */
export function rotateActivities(deps: Deps) {
  return {
    /**
     * One bounded try at the peer's endpoints: is there a new key, in both of its documents, never seen before, in a
     * manifest that verifies? Throws RotationPending until there is: whoever calls it waits by its retry policy.
     */
    async verifyKeys({
      ref,
      peer,
      firstBad,
      strict = false,
    }: {
      ref: IncidentRef;
      peer: PeerRef;
      firstBad: FirstBad | null;
      /** Is our node's trust mode strict? HTTP does not say. */
      strict?: boolean;
    }): Promise<KeysVerified> {
      const ours = await assertBoundNode(deps, ref);
      const known = await knownPeer(deps, ref, peer, ours.entity_uri ?? '');
      const { wellKnown, manifest, errors } = await readPeer(peer.url, { allowPrivate: deps.peerAllow, signal: cancelSignal() });
      if (wellKnown === undefined || manifest === undefined) throw pending(`its documents were not read: ${errors.join('; ')}`);
      const now = new Date().toISOString();
      const verdict = judgeRotation({ wellKnown, manifest, known, firstBad: firstBad?.at ?? null, now, strict });
      await sealOnce(deps, ref, verdict, { wellKnown, manifest });
      if (verdict.kind === 'notYet') throw pending(verdict.why);
      if (verdict.kind === 'bad') throw pending(`what it shows is no good new key: ${verdict.problems.map(inWords).join('; ')}`);
      const { keys } = verdict;
      await assertBoundNode(deps, ref);
      const sealed = await seal(deps, ref, 'verifyKeys', 'keys', { keys, known, wellKnown, manifest });
      return {
        outcome: 'verified',
        way: 'http',
        // Not the fingerprint: whoever approves brings it from outside.
        detail: ['well-known and manifest both show a new key', ...keys.remarks].join('; ').slice(0, 2_000),
        warnings: keys.remarks,
        keys,
        evidenceId: sealed.id,
        evidence: headOf(sealed),
      };
    },
  };
}

function pending(why: string): StepFailure {
  const message = `the peer has no new key yet: ${why}`.slice(0, 2_000);
  beat({ pending: message });
  return new StepFailure('RotationPending', message);
}

function inWords({ field, expected, came }: Problem): string {
  return `${field}: expected ${expected}, came ${came}`;
}

/** Seals what came, but not every look of days: the first of each kind of answer. */
async function sealOnce(deps: Deps, ref: IncidentRef, verdict: RotationVerdict, content: object): Promise<void> {
  if (verdict.kind === 'new') return;
  const said = verdict.kind === 'notYet' ? verdict.why : verdict.problems.map(({ field }) => field.replaceAll(/\d+/g, 'n')).join(' ');
  const item = `verifyKeys ${sha256Id(`${verdict.kind} ${said}`)}`;
  const key = effectKey(ref, item);
  if ((await (await evidenceOf(deps, ref)).entries()).some((entry) => entry.key === key)) return;
  await seal(deps, ref, item, 'keys', { ...content, verdict });
}

/**
 * What evidence has of the peer from before: the pin as the host worker sealed it, else what the peer itself showed when
 * it was read, in the newest round that has any; and every key ever seen in this incident's folder.
 */
async function knownPeer(deps: Deps, ref: IncidentRef, peer: PeerRef, ourEntityUri: string): Promise<KnownPeer> {
  const store = await evidenceOf(deps, ref);
  const said: { entry: EvidenceEntry; reading: SaidByPeer }[] = [];
  const rows: { entry: EvidenceEntry; row: z.infer<typeof HostRow> }[] = [];
  for (const entry of await store.entries()) {
    if (entry.kind !== 'peer' && entry.kind !== 'peers') continue;
    const content = await store.readJson(`sha256:${entry.sha256}`);
    const reading = entry.kind === 'peer' ? SaidByPeer.safeParse(content).data?.reading : undefined;
    if (reading !== undefined) said.push({ entry, reading });
    const listed = entry.kind === 'peers' ? HostRows.safeParse(content).data : undefined;
    for (const row of listed ?? []) rows.push({ entry, row });
  }
  const keys = [...said.flatMap(({ reading }) => keysOf(reading)), ...rows.map(({ row }) => row.federation_pubkey)];
  const ofRow = firstOfNewestRound(
    ref,
    rows.filter(({ row }) => row.node_id === peer.nodeId),
  )?.row;
  const ofPeer = firstOfNewestRound(
    ref,
    said.filter(({ reading }) => peer.nodeIds.includes(reading.wellKnown?.node_id ?? '')),
  )?.reading.wellKnown;
  const publicKey = ofRow?.federation_pubkey ?? ofPeer?.federation_pubkey ?? ofPeer?.public_key ?? undefined;
  const keyId = said.find(({ reading }) => reading.manifest?.public_key === publicKey)?.reading.manifest?.key_id;
  return {
    pinned: publicKey === undefined ? undefined : { publicKey, ...(keyId === undefined ? {} : { keyId }) },
    pinnedBy: ofRow === undefined ? 'peer' : 'node',
    seen: [...new Set(keys)],
    nodeIds: peer.nodeIds,
    entityUri: peer.entityUri,
    ourEntityUri,
  };
}

/** The first look of a round is the one before anything was rotated in it. */
function firstOfNewestRound<T extends { readonly entry: EvidenceEntry }>(ref: IncidentRef, found: readonly T[]): T | undefined {
  const own = found.filter(({ entry }) => isOf(ref, entry.key));
  const newest = Math.max(...own.map(({ entry }) => entry.round));
  return own.find(({ entry }) => entry.round === newest);
}

/** Every key that a document of the peer names: its own, and those of its rotations. */
function keysOf({ wellKnown, manifest }: SaidByPeer): string[] {
  const named = [
    wellKnown?.federation_pubkey,
    wellKnown?.public_key,
    manifest?.public_key,
    ...(manifest?.rotation_events ?? []).flatMap((event) => [event.new_public_key, event.previous_public_key]),
  ];
  return named.flatMap((key) => (key ? [key] : []));
}
