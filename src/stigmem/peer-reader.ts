import { createHash } from 'node:crypto';
import type { LookupAddress } from 'node:dns';
import { lookup } from 'node:dns/promises';
import { isIP, type LookupFunction } from 'node:net';
import { Agent } from 'undici';
import type { z } from 'zod';
import { readAnswer } from './answer.ts';
import { addressAllowed, hostAllowed, type AllowPrivate } from './address-policy.ts';
import { StigmemError } from './errors.ts';
import { safeExcerpt } from './text.ts';
import { Manifest, WellKnown } from './wire.ts';
import { boundedJson } from './bounded-json.ts';

const MAX_BYTES = 256 * 1024;
const TIMEOUT_MS = 10_000;
const MAX_REASON_CHARS = 200;

export interface PeerReaderOptions {
  /** Hosts, addresses, CIDRs or the word `loopback` that may be asked although they are not public. */
  readonly allowPrivate?: AllowPrivate;
  readonly signal?: AbortSignal | undefined;
  /**
   * For everything together: resolution and both documents, in milliseconds.
   * @default 10000
   */
  readonly timeoutMs?: number;
  /**
   * How names become addresses.
   * @default the system's resolver
   */
  readonly resolve?: (host: string) => Promise<readonly LookupAddress[]>;
}

/** What the peer says of itself. All of it is hostile input: strings are cut, depth and size are bounded. */
export interface PeerReading {
  readonly wellKnown?: WellKnown;
  readonly manifest?: Manifest;
  /** Of the key in its well-known document, as the approve route takes it: `sha256:<hex of the base64url string>`. */
  readonly fingerprint?: string;
  /** Of the manifest's public_key; differs from `fingerprint` in the middle of a rotation. */
  readonly manifestFingerprint?: string;
  /** What was not read, and why; an empty list means that both documents were. */
  readonly errors: readonly string[];
}

/**
 * One bounded try at a peer's /.well-known/stigmem and /.well-known/stigmem-manifest.json. Never throws but for its
 * signal. The name is resolved once, every address of it is checked, and the connection goes to a checked address,
 * so that a second answer of the resolver can't lead it elsewhere.
 */
export async function readPeer(nodeUrl: string, options: PeerReaderOptions = {}): Promise<PeerReading> {
  const deadline = AbortSignal.timeout(options.timeoutMs ?? TIMEOUT_MS);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
  const target = await checkedTarget(nodeUrl, options, signal);
  options.signal?.throwIfAborted();
  if ('error' in target) return { errors: [target.error] };

  const connection = connectionTo(target);
  const errors: string[] = [];
  const ask = async <T>(path: string, schema: Parameters<typeof readAnswer<T>>[2]['schema']): Promise<T | undefined> => {
    try {
      return await connection.get({ path, schema: boundedJson.pipe(schema), maxBytes: MAX_BYTES, signal });
    } catch (error) {
      options.signal?.throwIfAborted();
      errors.push(`${path}: ${deadline.aborted ? 'no complete answer in time' : reasonOf(error)}`);
      return undefined;
    }
  };
  try {
    const wellKnown = await ask('/.well-known/stigmem', WellKnown);
    const manifest = await ask('/.well-known/stigmem-manifest.json', Manifest);
    const key = wellKnown?.federation_pubkey ?? wellKnown?.public_key ?? null;
    if (wellKnown !== undefined && key === null) errors.push('/.well-known/stigmem: no public key');
    return {
      ...(wellKnown === undefined ? {} : { wellKnown }),
      ...(manifest === undefined ? {} : { manifest, manifestFingerprint: fingerprintOf(manifest.public_key) }),
      ...(key === null ? {} : { fingerprint: fingerprintOf(key) }),
      errors,
    };
  } finally {
    await connection.close();
  }
}

/** routes/_federation_impl.py, peer_pubkey_fingerprint: over the base64url text, not over the bytes it stands for. */
export function fingerprintOf(publicKey: string): string {
  return `sha256:${createHash('sha256').update(publicKey, 'utf8').digest('hex')}`;
}

/** One question to a peer; what it answers is hostile input, so the schema has to bound it. */
export interface PeerCall<T> {
  readonly path: string;
  readonly schema: z.ZodType<T>;
  readonly maxBytes: number;
  readonly signal: AbortSignal;
  readonly query?: Readonly<Record<string, string>>;
  /** Never shown in any message, even where the peer echoes it. */
  readonly bearer?: string;
}

/** Speaks to the checked addresses of one peer alone. */
export interface PeerConnection {
  /** Throws the errors of errors.ts, or whatever broke the connection. */
  get<T>(call: PeerCall<T>): Promise<T>;
  close(): Promise<void>;
}

/** The peer by its URL, or in words why it must not be asked. Every address of its name is checked, once. */
export async function connectPeer(
  nodeUrl: string,
  options: Pick<PeerReaderOptions, 'allowPrivate' | 'resolve'> & { readonly signal: AbortSignal },
): Promise<PeerConnection | { readonly error: string }> {
  const target = await checkedTarget(nodeUrl, options, options.signal);
  return 'error' in target ? target : connectionTo(target);
}

function connectionTo({ origin, prefix, addresses }: Target): PeerConnection {
  const agent = new Agent({ connections: 2, connect: { lookup: pinned(addresses) } });
  return {
    async get({ path, schema, maxBytes, signal, query = {}, bearer }) {
      const headers = { accept: 'application/json', ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }) };
      const answer = await agent.request({ origin, path: prefix + path, query, method: 'GET', headers, signal });
      return readAnswer({ method: 'GET', path }, answer, { schema }, { maxBytes, secrets: bearer === undefined ? [] : [bearer] });
    },
    close: () => agent.destroy(),
  };
}

interface Target {
  readonly origin: string;
  readonly prefix: string;
  readonly addresses: readonly LookupAddress[];
}

async function checkedTarget(nodeUrl: string, options: PeerReaderOptions, signal: AbortSignal): Promise<Target | { error: string }> {
  // URL.parse needs Node 22.
  const url = URL.canParse(nodeUrl) ? new URL(nodeUrl) : null;
  if (url === null) return { error: 'the peer has no usable URL' };
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    return { error: `refused: ${safeExcerpt(url.protocol, [], 30)} is neither http nor https` };
  if (url.username !== '' || url.password !== '') return { error: 'refused: the URL holds a user name or password' };
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const allow = options.allowPrivate ?? [];
  try {
    const addresses = await Promise.race([resolved(host, options), aborted(signal)]);
    if (addresses.length === 0) return { error: `${host}: no address` };
    for (const { address } of addresses) {
      if (!addressAllowed(address, allow) && !hostAllowed(host, allow)) {
        return { error: `refused: ${safeExcerpt(host, [], 253)} is at ${address}, which is not a public address` };
      }
    }
    return { origin: url.origin, prefix: url.pathname.replace(/\/+$/, ''), addresses };
  } catch (error) {
    return { error: `${safeExcerpt(host, [], 253)}: ${reasonOf(error)}` };
  }
}

async function resolved(host: string, { resolve }: PeerReaderOptions): Promise<readonly LookupAddress[]> {
  const family = isIP(host);
  if (family !== 0) return [{ address: host, family }];
  return resolve === undefined ? lookup(host, { all: true, verbatim: true }) : resolve(host);
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const stop = (): void => reject(new Error('no answer in time'));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}

/** Answers every look-up of the connection with the addresses that were checked. */
function pinned(addresses: readonly LookupAddress[]): LookupFunction {
  return (host, { all }, done) => {
    const [first] = addresses;
    if (first === undefined) done(new Error(`${host}: no checked address`), '');
    else if (all === true) done(null, [...addresses]);
    else done(null, first.address, first.family);
  };
}

/** Why a peer gave no answer, in few words. */
export function reasonOf(error: unknown): string {
  if (error instanceof StigmemError) return safeExcerpt(error.message, [], 400);
  if (!(error instanceof Error)) return 'unknown failure';
  const code = 'code' in error && typeof error.code === 'string' ? error.code : null;
  return safeExcerpt(code ?? error.message, [], MAX_REASON_CHARS);
}
