import { createPublicKey, verify, type KeyObject } from 'node:crypto';
import { z } from 'zod';
import { canonicalJson } from '../contract/canonical.ts';
import { HostRefusedError } from './database.ts';

/** identity/manifest.py: _MAX_VALIDITY_DAYS, _STRICT_MAX_DAYS, _MAX_ROTATION_EVENTS. */
const limits = { days: 730, strictDays: 365, rotations: 100 };
const dayMs = 24 * 3_600_000;

const Text = z.string().min(1).max(2_048);
const Time = Text.refine((text) => !Number.isNaN(Date.parse(text)), 'a time, ISO 8601');
const Rotation = z.object({
  new_key_id: Text,
  new_public_key: Text,
  previous_key_id: Text,
  rotated_at: Time,
  signature: Text,
  previous_public_key: z.string().max(2_048).nullish(),
});

/** A manifest as the node reads it; what else stands in it, it drops. */
export const SignedManifest = z.object({
  entities: z.array(Text).max(10_000),
  entity_uri: Text,
  expires_at: Time,
  issued_at: Time,
  key_id: Text,
  public_key: Text,
  rotation_events: z.array(Rotation).max(limits.rotations),
  signature: Text,
});
export type SignedManifest = z.infer<typeof SignedManifest>;

/** Who the manifest has to be about, as the node knows the peer. */
export interface Bound {
  readonly entityUri: string;
  readonly nodeId: string;
  readonly publicKey: string;
  /** STIGMEM_TRUST_MODE: `strict` allows a shorter life. */
  readonly trustMode: string;
}

/** identity/manifest.py, verify_manifest, and that it is this peer's with this key, and good now. Throws {@link HostRefusedError}. */
export function assertManifest(manifest: SignedManifest, bound: Bound, now = Date.now()): void {
  const expected = (field: string, wanted: string, came: string): HostRefusedError =>
    new HostRefusedError(`manifest.${field}: expected ${wanted.slice(0, 300)}, came ${came.slice(0, 300)}`);
  const { entity_uri: uri, public_key: key, entities } = manifest;
  if (uri !== bound.entityUri) throw expected('entity_uri', `${bound.entityUri}, which the node has bound to this peer`, uri);
  if (key !== bound.publicKey) throw expected('public_key', `${bound.publicKey}, which people approved`, key);
  if (!entities.includes(bound.nodeId)) throw expected('entities', `${bound.nodeId} among them`, `${entities.length} others`);
  const [issued, expires] = [Date.parse(manifest.issued_at), Date.parse(manifest.expires_at)];
  const days = bound.trustMode === 'strict' ? limits.strictDays : limits.days;
  if (expires <= issued || expires > issued + days * dayMs)
    throw expected('expires_at', `after issued_at and within ${days} days of it`, manifest.expires_at);
  if (expires <= now) throw expected('expires_at', 'a time to come', manifest.expires_at);
  const { signature, ...body } = withoutEmpty(manifest);
  if (!isSigned(key, canonicalJson(body), signature)) throw expected('signature', 'the manifest signed with its own public_key', 'another');
}

/** The key that was accepted before. */
export interface Accepted {
  readonly keyId: string;
  readonly publicKey: string;
}

/**
 * identity/manifest.py, verify_rotation_chain: does it lead from the key that was accepted before to this one? `none`: it
 * says nothing of that key. Throws {@link HostRefusedError} for a chain that begins at that key and is false: a forgery.
 */
export function chainOf(manifest: SignedManifest, from: Accepted): 'same key' | 'chain' | 'none' {
  if (manifest.key_id === from.keyId && manifest.public_key === from.publicKey) return 'same key';
  const start = manifest.rotation_events.findIndex(({ previous_key_id: id }) => id === from.keyId);
  if (start < 0) return 'none';
  const seen = new Set([from.keyId]);
  let current = from;
  for (const event of manifest.rotation_events.slice(start)) {
    const { signature, previous_public_key: _retired, ...body } = event;
    const follows = event.previous_key_id === current.keyId && !seen.has(event.new_key_id);
    if (!follows || !isSigned(current.publicKey, canonicalJson(body), signature))
      throw new HostRefusedError(`manifest.rotation_events: expected a step that key ${current.keyId} signed, came one that it did not`);
    seen.add(event.new_key_id);
    current = { keyId: event.new_key_id, publicKey: event.new_public_key };
  }
  if (current.keyId !== manifest.key_id || current.publicKey !== manifest.public_key)
    throw new HostRefusedError(`manifest.rotation_events: expected an end at key ${manifest.key_id}, came one at ${current.keyId}`);
  return 'chain';
}

/** federation/origin_identity.py, _keys_from_manifest: until when facts signed with the key before are taken too; null: they are not. */
export function graceOf(manifest: SignedManifest, graceHours: number, now = Date.now()): { key: string; until: string } | null {
  const last = manifest.rotation_events.at(-1);
  if (!last?.previous_public_key) return null;
  const until = Date.parse(last.rotated_at) + graceHours * 3_600_000;
  return until < now ? null : { key: last.previous_public_key, until: new Date(until).toISOString() };
}

/** As store_peer_manifest writes it: json.dumps, which leaves no character beyond ASCII as it is. */
export function nodeJson(manifest: SignedManifest): string {
  const { entities, entity_uri, expires_at, issued_at, key_id, public_key, rotation_events, signature } = withoutEmpty(manifest);
  const ordered = { entities, entity_uri, expires_at, issued_at, key_id, public_key, rotation_events, signature };
  return JSON.stringify(ordered).replace(/[\u0080-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** _rotation_event_to_dict leaves an empty key out, of what is signed too. */
function withoutEmpty(manifest: SignedManifest): SignedManifest {
  return {
    ...manifest,
    rotation_events: manifest.rotation_events.map(({ previous_public_key: key, ...event }) =>
      key ? { ...event, previous_public_key: key } : event,
    ),
  };
}

/** An Ed25519 key of 32 bytes, base64url. Throws {@link HostRefusedError} for anything else. */
export function publicKeyOf(text: string): KeyObject {
  if (!/^[\w-]{43}=?$/.test(text))
    throw new HostRefusedError(`expected an Ed25519 public key, 43 characters of base64url, came ${text.length}`);
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: text.replace('=', '') }, format: 'jwk' });
}

/** Did the owner of this key sign this text? */
export function isSigned(publicKey: string, text: string, signature: string): boolean {
  return verify(null, Buffer.from(text, 'utf8'), publicKeyOf(publicKey), Buffer.from(signature, 'base64url'));
}
