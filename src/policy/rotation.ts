import type { VerifiedKeys } from '../contract/steps.ts';
import { expectation, inWords } from '../stigmem/answer.ts';
import { boundedJson } from '../stigmem/bounded-json.ts';
import { checkChain, checkManifest, microsOf, problem, type Anchor, type Problem, type SignedManifest } from './manifest.ts';
import { fingerprintOf } from '../stigmem/peer-reader.ts';
import { safeExcerpt } from '../stigmem/text.ts';
import { WellKnown } from '../stigmem/wire.ts';

/** What is known of the peer from before: nothing in it comes from the documents that are judged. */
export interface KnownPeer {
  /** The key taken for compromised. */
  readonly pinned: Anchor | undefined;
  /** Is the pin our node's own record, or only what the peer once showed? */
  readonly pinnedBy: 'node' | 'peer';
  /** Every key ever seen of the peer, base64url. */
  readonly seen: readonly string[];
  readonly nodeIds: readonly string[];
  /** Empty where it is not known. */
  readonly entityUri: string;
  /** Our own node's. */
  readonly ourEntityUri: string;
}

export interface RotationInput {
  /** Parsed JSON of the peer's /.well-known/stigmem; undefined where it was not read. */
  readonly wellKnown: unknown;
  /** Parsed JSON of its /.well-known/stigmem-manifest.json; undefined where it was not read. */
  readonly manifest: unknown;
  readonly known: KnownPeer;
  /** ISO 8601, or null where no first bad time is known. */
  readonly firstBad: string | null;
  /** ISO 8601. */
  readonly now: string;
  /** Our node's trust mode is strict. */
  readonly strict: boolean;
}

export type RotationVerdict =
  | { readonly kind: 'notYet'; readonly why: string }
  | { readonly kind: 'bad'; readonly problems: readonly Problem[] }
  | { readonly kind: 'new'; readonly keys: VerifiedKeys };

/**
 * Has the peer rotated its key? Only where both of its documents show one and the same key, never seen before, and
 * the manifest verifies with its whole rotation chain. A new key without a chain is not forbidden, for the old key may
 * be the attacker's: the remarks say so. Pure, for any input; never throws.
 */
export function judgeRotation({ known: given, ...rest }: RotationInput): RotationVerdict {
  const known = withOneText(given);
  const input = { ...rest, known };
  const { now, strict } = input;
  const shown = shownBy(input.wellKnown);
  const { manifest, problems: own } = checkManifest(input.manifest, { now, strict });
  const problems = [...shown.problems, ...own];
  if (known.pinned === undefined)
    return {
      kind: 'bad',
      problems: [problem('pinned key', 'a key of the peer from before, to hold the new one against', 'none on record')],
    };
  const isOld = (key: string): boolean => key === known.pinned?.publicKey;
  if (shown.wellKnown && manifest) {
    const old = [isOld(shown.key), isOld(manifest.public_key)];
    if (old[0] && old[1]) return { kind: 'notYet', why: 'both of its documents show the old key' };
    if (old[0]) return { kind: 'notYet', why: 'only its manifest shows another key: its node was not restarted with it' };
    if (old[1]) return { kind: 'notYet', why: 'only its well-known shows another key: its manifest was not published anew' };
    if (shown.key !== manifest.public_key)
      problems.push(problem('well-known.federation_pubkey', `${manifest.public_key}, as in the manifest`, shown.key));
    problems.push(...identityProblems(shown.wellKnown, manifest, known));
    const isKnown = known.nodeIds.includes(shown.wellKnown.node_id);
    const { publicKey } = known.pinned;
    const { start, problems: broken } = checkChain(manifest, isKnown ? known.pinned : { publicKey });
    problems.push(...broken);
    if (problems.length === 0) return { kind: 'new', keys: newKeys(shown.wellKnown, manifest, start, input) };
  }
  return { kind: 'bad', problems };
}

/** Each key in the one text that a manifest may hold: what a database or an older document has may be padded. */
function withOneText(known: KnownPeer): KnownPeer {
  const oneText = (key: string): string => Buffer.from(key, 'base64url').toString('base64url');
  const pinned = known.pinned && { ...known.pinned, publicKey: oneText(known.pinned.publicKey) };
  return { ...known, pinned, seen: known.seen.map(oneText) };
}

type Shown = { readonly wellKnown?: WellKnown; readonly key: string; readonly problems: readonly Problem[] };

function shownBy(raw: unknown): Shown {
  const parsed = boundedJson.pipe(WellKnown).safeParse(raw, { reportInput: true });
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const field = ['well-known', ...(issue?.path.map(String) ?? [])].join('.');
    return { key: '', problems: [problem(field, expectation(issue), inWords(issue?.input))] };
  }
  const key = parsed.data.federation_pubkey ?? parsed.data.public_key;
  if (key !== null) return { wellKnown: parsed.data, key, problems: [] };
  return { key: '', problems: [problem('well-known.federation_pubkey', 'a public key', 'none')] };
}

function identityProblems(wellKnown: WellKnown, manifest: SignedManifest, known: KnownPeer): Problem[] {
  const problems: Problem[] = [];
  const { pinned, seen, nodeIds, entityUri, ourEntityUri } = known;
  const { entity_uri: uri, public_key: key } = manifest;
  if (seen.includes(key)) problems.push(problem('manifest.public_key', 'a key never seen before', `${key}, seen before`));
  const isKnown = nodeIds.includes(wellKnown.node_id);
  // The node takes another key under the stored key id without asking for a chain. Of another entity the id says nothing.
  if (isKnown && manifest.key_id === pinned?.keyId)
    problems.push(problem('manifest.key_id', "another than the old key's", manifest.key_id));
  if (!manifest.entities.includes(wellKnown.node_id))
    problems.push(problem('manifest.entities', `a list with ${wellKnown.node_id}`, `${manifest.entities.length} others`));
  if (typeof wellKnown.entity_uri === 'string' && wellKnown.entity_uri !== uri)
    problems.push(problem('well-known.entity_uri', `${uri}, as in the manifest`, wellKnown.entity_uri));
  if (uri === '' || uri === ourEntityUri) problems.push(problem('manifest.entity_uri', 'an entity of its own', JSON.stringify(uri)));
  if (isKnown && entityUri !== '' && uri !== entityUri)
    problems.push(problem('manifest.entity_uri', `${entityUri}, which our node has for ${wellKnown.node_id}`, uri));
  // The old manifest stays stored for its entity URI, and no fact of the new key would be taken.
  if (!isKnown && uri === entityUri)
    problems.push(problem('manifest.entity_uri', `another than ${uri}, which is the old node_id's`, `${uri} under ${wellKnown.node_id}`));
  return problems;
}

function newKeys(wellKnown: WellKnown, manifest: SignedManifest, start: number, input: RotationInput): VerifiedKeys {
  const chain = chainOf(manifest, start, input.firstBad);
  return {
    nodeId: wellKnown.node_id,
    entityUri: manifest.entity_uri,
    publicKey: manifest.public_key,
    keyId: manifest.key_id,
    fingerprint: fingerprintOf(manifest.public_key),
    expiresAt: manifest.expires_at,
    chain,
    remarks: remarksOn(wellKnown, manifest, chain, input),
  };
}

function chainOf({ rotation_events: events }: SignedManifest, start: number, firstBad: string | null): VerifiedKeys['chain'] {
  const event = events[start];
  if (event === undefined) return 'none';
  return firstBad !== null && microsOf(event.rotated_at) < microsOf(firstBad) ? 'whole' : 'afterFirstBad';
}

function remarksOn(
  wellKnown: WellKnown,
  manifest: SignedManifest,
  chain: VerifiedKeys['chain'],
  { known, firstBad, strict }: RotationInput,
): string[] {
  const remarks: string[] = [];
  const events = manifest.rotation_events;
  const last = events.at(-1);
  if (known.pinnedBy === 'peer')
    remarks.push("which key is the old one is known only from what the peer itself showed: the pin stands in our node's database");
  if (chain === 'none')
    remarks.push('no rotation chain leads from the old key to this one: only the fingerprint brought from outside says whose it is');
  if (chain === 'none' && events.length > 0) remarks.push(`its ${events.length} rotation events do not start from the old key`);
  if (chain === 'afterFirstBad')
    remarks.push(
      firstBad === null
        ? 'the old key signed the rotation, and no first bad time is known: whoever stole it could have done so'
        : `the old key signed the rotation after the first bad time ${firstBad}: whoever stole it could have done so`,
    );
  if (chain === 'whole')
    remarks.push('the rotation is dated before the first bad time by the old key itself, and nobody else vouches for the date');
  if (last !== undefined)
    remarks.push(
      `with this manifest our node takes the key before for facts for STIGMEM_FEDERATION_KEY_ROTATION_GRACE_HOURS (168) after ${safeExcerpt(last.rotated_at, [], 40)}, and for capability tokens for 90 days`,
    );
  if (!known.nodeIds.includes(wellKnown.node_id))
    remarks.push(`it comes back as another node, ${safeExcerpt(wellKnown.node_id, [], 100)}: to our node a new peer`);
  if (known.entityUri === '') remarks.push('which entity URI our node has for it is not known, so it was held against none');
  if (!strict && microsOf(manifest.expires_at) - microsOf(manifest.issued_at) > 365 * 86_400_000_000)
    remarks.push('it is valid for more than 365 days, which a node in trust mode strict refuses');
  return remarks;
}
