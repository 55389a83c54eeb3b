import { createPublicKey, verify } from 'node:crypto';
import { z } from 'zod';
import { canonicalJson } from '../contract/canonical.ts';
import { expectation, inWords } from '../stigmem/answer.ts';
import { boundedJson } from '../stigmem/bounded-json.ts';
import { safeExcerpt } from '../stigmem/text.ts';

/** identity/manifest.py (0.9.0a12): _MAX_VALIDITY_DAYS, _STRICT_MAX_DAYS, _MAX_ROTATION_EVENTS. */
const MAX_DAYS = 730;
const STRICT_MAX_DAYS = 365;
const MAX_EVENTS = 100;

const DAY_US = 86_400_000_000;
/** How far a peer's clock may be ahead of ours. */
const AHEAD_US = 3_600_000_000;
const MAX_PROBLEMS = 20;

/** One thing that is wrong with a document: which field, what was expected, what came. */
export interface Problem {
  readonly field: string;
  readonly expected: string;
  readonly came: string;
}

// Python signs UTF-8 bytes, and a lone surrogate has none.
const text = z.string().refine((value) => !/\p{Surrogate}/u.test(value), 'text without lone surrogates');
const time = z.iso.datetime({ offset: true, error: 'a date and time with an offset (RFC 3339)' });

/** Two texts of one key would have two fingerprints, and an old key could come back as a new one: one text only. */
const bytes = (length: number) =>
  z.string().refine((value) => {
    const decoded = Buffer.from(value, 'base64url');
    return decoded.length === length && decoded.toString('base64url') === value;
  }, `${length} bytes in base64url without padding`);

const Event = z.object({
  previous_key_id: text,
  new_key_id: text,
  new_public_key: bytes(32),
  rotated_at: time,
  signature: bytes(64),
  // The node leaves an empty one out of what is signed.
  previous_public_key: z.union([z.literal(''), bytes(32)], { error: '32 bytes in base64url without padding' }).nullish(),
});
type Event = z.infer<typeof Event>;

const Document = z.object({
  entity_uri: text,
  key_id: text,
  public_key: bytes(32),
  issued_at: time,
  expires_at: time,
  entities: z.array(text).default([]),
  rotation_events: z.array(Event).default([]),
  signature: bytes(64),
});
export type SignedManifest = z.infer<typeof Document>;

/** A manifest that has the right shape, though it may have problems; undefined where it has not. */
export interface CheckedManifest {
  readonly manifest: SignedManifest | undefined;
  readonly problems: readonly Problem[];
}

/** The key a chain has to start from, and the key id it had where that is known. */
export interface Anchor {
  readonly publicKey: string;
  readonly keyId?: string | undefined;
}

/** `start`: the event that the anchor's key signed; -1 where no event is said to lead away from it. */
export interface CheckedChain {
  readonly start: number;
  readonly problems: readonly Problem[];
}

/**
 * What a node asks of a manifest before it stores and uses it (identity/manifest.py, verify_manifest; trust_store.py,
 * get_peer_manifest), for any JSON: shape, validity period, number of rotation events, Ed25519 self-signature over the
 * RFC 8785 JSON. Stricter than the node: one text per key and time, texts only, no times to come. Never throws.
 *
 * @param now - ISO 8601
 * @param strict - our node's trust mode is strict
 */
export function checkManifest(raw: unknown, { now, strict }: { readonly now: string; readonly strict: boolean }): CheckedManifest {
  const parsed = boundedJson.pipe(Document).safeParse(raw, { reportInput: true });
  if (!parsed.success) {
    const problems = parsed.error.issues
      .slice(0, MAX_PROBLEMS)
      .map((issue) => problem(['manifest', ...issue.path.map(String)].join('.'), expectation(issue), inWords(issue.input)));
    return { manifest: undefined, problems };
  }
  const manifest = parsed.data;
  const problems = validityProblems(manifest, { now, strict });
  const { length } = manifest.rotation_events;
  if (length > MAX_EVENTS) problems.push(problem('manifest.rotation_events', `at most ${MAX_EVENTS} events`, `${length}`));
  if (!verifies(manifest.public_key, signingBody(manifest), manifest.signature))
    problems.push(problem('manifest.signature', 'the Ed25519 signature of the whole by its own public_key', 'another'));
  return { manifest, problems };
}

/**
 * The rotation chain, every event of it (identity/manifest.py, verify_rotation_chain): contiguous, each signed by the key
 * before, no key id and no key used twice, ending at the manifest's own key. Stricter than the node, which looks at
 * nothing before the anchor and believes any previous_public_key, a key it then accepts for days.
 */
export function checkChain(manifest: SignedManifest, anchor: Anchor | undefined): CheckedChain {
  const events = manifest.rotation_events.slice(0, MAX_EVENTS);
  const [first] = events;
  const start = startOf(events, anchor);
  if (first === undefined) return { start, problems: [] };
  const problems: Problem[] = [];
  const miss = (field: string, expected: string, came: string): void => {
    problems.push(problem(field, expected, came));
  };
  const ids = new Set([first.previous_key_id]);
  const keys = new Set<string>();
  let id = first.previous_key_id;
  // Nobody signs for the key before the first event but the event itself, where that key is named.
  let key = start === 0 ? anchor?.publicKey : first.previous_public_key || undefined;
  for (const [index, event] of events.entries()) {
    const of = `manifest.rotation_events.${index}`;
    if (index === start && key !== anchor?.publicKey) {
      miss(`${of}.previous_key_id`, 'the key that our node pinned, where the history before it ends', 'another');
      key = anchor?.publicKey;
    }
    if (event.previous_key_id !== id) miss(`${of}.previous_key_id`, `${JSON.stringify(id)}, the key before`, event.previous_key_id);
    if (ids.has(event.new_key_id)) miss(`${of}.new_key_id`, 'a key id not used before', event.new_key_id);
    if (key !== undefined) {
      keys.add(key);
      const named = event.previous_public_key;
      if (named && named !== key) miss(`${of}.previous_public_key`, `${key}, the key before`, named);
      if (!verifies(key, eventBody(event), event.signature))
        miss(`${of}.signature`, `the Ed25519 signature by the key before, ${JSON.stringify(id)}`, 'another');
    }
    if (keys.has(event.new_public_key)) miss(`${of}.new_public_key`, 'a key not used before', event.new_public_key);
    ids.add(event.new_key_id);
    id = event.new_key_id;
    key = event.new_public_key;
  }
  if (manifest.key_id !== id) miss('manifest.key_id', `${JSON.stringify(id)}, where the chain ends`, manifest.key_id);
  if (manifest.public_key !== key) miss('manifest.public_key', `${key ?? ''}, where the chain ends`, manifest.public_key);
  return { start, problems: problems.slice(0, MAX_PROBLEMS) };
}

/** Microseconds since 1970 of a time that `checkManifest` let pass: the node compares no finer, and a Date is coarser. */
export function microsOf(value: string): number {
  const fraction = /\.(\d+)/.exec(value)?.[1] ?? '';
  return Date.parse(value.replace(/\.\d+/, '')) * 1_000 + Number(fraction.slice(0, 6).padEnd(6, '0'));
}

/** A problem in words, hostile text cut. */
export function problem(field: string, expected: string, came: string): Problem {
  return { field: safeExcerpt(field, [], 200), expected: safeExcerpt(expected, [], 300), came: safeExcerpt(came, [], 200) };
}

function validityProblems(
  { issued_at, expires_at, rotation_events }: SignedManifest,
  { now, strict }: { readonly now: string; readonly strict: boolean },
): Problem[] {
  const problems: Problem[] = [];
  const [issued, expires, present] = [microsOf(issued_at), microsOf(expires_at), microsOf(now)];
  const days = strict ? STRICT_MAX_DAYS : MAX_DAYS;
  if (expires <= issued) problems.push(problem('manifest.expires_at', `a time after issued_at ${issued_at}`, expires_at));
  if (expires > issued + days * DAY_US)
    problems.push(problem('manifest.expires_at', `at most ${days} days after issued_at ${issued_at}`, expires_at));
  if (expires <= present) problems.push(problem('manifest.expires_at', `a time to come, after ${now}`, expires_at));
  if (issued > present + AHEAD_US) problems.push(problem('manifest.issued_at', `a time that was, before ${now}`, issued_at));
  // The node keeps the key before good for some days after rotated_at: a time to come would keep it good for as long as it likes.
  for (const [index, { rotated_at: at }] of rotation_events.entries())
    if (microsOf(at) > present + AHEAD_US)
      problems.push(problem(`manifest.rotation_events.${index}.rotated_at`, `a time that was, before ${now}`, at));
  return problems.slice(0, MAX_PROBLEMS);
}

/** By key id where it is known, as the node looks for it; else by whose key came before, or signed the first. */
function startOf(events: readonly Event[], anchor: Anchor | undefined): number {
  if (anchor === undefined) return -1;
  const { publicKey, keyId } = anchor;
  if (keyId !== undefined) return events.findIndex(({ previous_key_id }) => previous_key_id === keyId);
  const after = events.findIndex(({ new_public_key }) => new_public_key === publicKey);
  if (after !== -1) return after + 1 < events.length ? after + 1 : -1;
  const [first] = events;
  if (first === undefined) return -1;
  return first.previous_public_key === publicKey || verifies(publicKey, eventBody(first), first.signature) ? 0 : -1;
}

/** identity/manifest.py, _manifest_signing_body: what else stands in the document is not signed. */
function signingBody({ signature: _not, rotation_events, ...signed }: SignedManifest): string {
  return canonicalJson({
    ...signed,
    rotation_events: rotation_events.map(({ previous_public_key: named, ...event }) => ({
      ...event,
      ...(named ? { previous_public_key: named } : {}),
    })),
  });
}

function eventBody({ new_key_id, new_public_key, previous_key_id, rotated_at }: Event): string {
  return canonicalJson({ new_key_id, new_public_key, previous_key_id, rotated_at });
}

function verifies(publicKey: string, body: string, signature: string): boolean {
  try {
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: publicKey }, format: 'jwk' });
    return verify(null, Buffer.from(body, 'utf8'), key, Buffer.from(signature, 'base64url'));
  } catch {
    // No point of the curve: OpenSSL says so by throwing.
    return false;
  }
}
