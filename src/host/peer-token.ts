import { createPrivateKey, randomUUID, sign, type KeyObject } from 'node:crypto';
import { z } from 'zod';
import { HostSchemaError, type HostDatabase } from './database.ts';

/** PKCS #8 of an Ed25519 key is these bytes and its seed. */
const pkcs8 = Buffer.from('302e020100300506032b657004220420', 'hex');
/** Long enough for one page, short enough to be worth nothing to who finds it. */
const lifeMs = 120_000;

/**
 * Our node's own federation key: the one it was configured with, else the one it keeps in its database. It is never
 * handed on. Throws {@link HostSchemaError} where there is none.
 */
export async function ownKey(database: HostDatabase, configured: string | undefined): Promise<KeyObject> {
  const text = configured ?? (await storedKey(database));
  if (text === undefined) throw new HostSchemaError("node_meta.federation_privkey: expected the node's federation key, came none");
  const bytes = Buffer.from(text, 'base64url');
  try {
    return createPrivateKey({ key: bytes.length === 32 ? Buffer.concat([pkcs8, bytes]) : bytes, format: 'der', type: 'pkcs8' });
  } catch {
    // Not the error itself: it may quote what it could not read.
    throw new HostSchemaError(
      `the node's federation key: expected 32 bytes or PKCS #8 in base64url, came ${bytes.length} bytes of something else`,
    );
  }
}

async function storedKey(database: HostDatabase): Promise<string | undefined> {
  const rows = await database.read((session) =>
    session.rows(z.object({ value: z.string() }), "SELECT value FROM node_meta WHERE key = 'federation_privkey'"),
  );
  return rows[0]?.value;
}

/** From whom, for whom, and what may be asked with it. */
export interface TokenTerms {
  readonly from: string;
  readonly to: string;
  readonly scopes: readonly string[];
}

/** federation/peer_token.py, create_peer_token: good for one request. */
export function peerToken(key: KeyObject, { from, to, scopes }: TokenTerms, now = Date.now()): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value), 'utf8').toString('base64url');
  const claims = { iss: from, sub: to, iat: now, exp: now + lifeMs, nonce: randomUUID(), scopes };
  const body = `${part({ alg: 'EdDSA', typ: 'JWT' })}.${part(claims)}`;
  return `${body}.${sign(null, Buffer.from(body, 'ascii'), key).toString('base64url')}`;
}
