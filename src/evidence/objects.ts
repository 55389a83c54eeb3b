import { createHash, randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, mkdir, open, rename, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { canonicalJson } from './canonical.ts';
import { EvidenceError, errnoOf, guarded, toEvidenceError } from './errors.ts';

/** `sha256`: lower-case hex · `bytes`: length. */
export type Digest = { sha256: string; bytes: number };

/** mkdir -p that tells the real errno: Node's `recursive` says ENOENT on a read-only disk. */
export async function makeDir(dir: string, tries = 2): Promise<void> {
  try {
    await mkdir(dir, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' && dirname(dir) !== dir && tries > 1) {
      await makeDir(dirname(dir));
      return makeDir(dir, tries - 1);
    }
    if (errnoOf(error) !== 'EEXIST' || !(await stat(dir)).isDirectory()) throw error;
  }
}

/** Makes a new name in `dir` survive a power cut. */
export async function syncDir(dir: string): Promise<void> {
  const handle = await open(dir, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** `objects/<first 2 hex>/<hex>` under the incident's folder. */
export function objectPath(dir: string, sha256: string): string {
  return join(dir, 'objects', sha256.slice(0, 2), sha256);
}

/** sha256 and length of a regular file in constant memory, or undefined if there is none (links are not followed). */
export async function digestFile(file: string): Promise<Digest | undefined> {
  try {
    if (!(await lstat(file)).isFile()) return undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of fileChunks(file)) {
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { sha256: hash.digest('hex'), bytes };
}

/** The bytes of a file, in pieces. */
export async function* fileChunks(file: string): AsyncGenerator<Buffer> {
  const stream: AsyncIterable<unknown> = createReadStream(file, { highWaterMark: 256 * 1024 });
  for await (const chunk of stream) if (Buffer.isBuffer(chunk)) yield chunk;
}

/**
 * Stores `chunks` under their hash: temporary file, fsync, rename, fsync of the folder. Holds one chunk at a time.
 * An object that is already there is read and held against its name (`corrupt` if it differs), never overwritten.
 */
export async function putObject(dir: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<Digest> {
  const folder = join(dir, 'objects');
  const temporary = join(folder, `.tmp-${process.pid}-${randomUUID()}`);
  try {
    await guarded(folder, 'making the folder', () => makeDir(folder));
    const digest = await writeSynced(temporary, chunks);
    const target = objectPath(dir, digest.sha256);
    await guarded(target, 'storing an object', async () => {
      if (await checkObject(dir, digest.sha256, digest.bytes)) return;
      await makeDir(dirname(target));
      await rename(temporary, target);
      await syncDir(dirname(target));
      await syncDir(folder);
    });
    return digest;
  } finally {
    await unlink(temporary).catch(() => undefined);
  }
}

/** Writes a new file and fsyncs it. What the source of `chunks` throws is passed on as it is. */
export async function writeSynced(file: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<Digest> {
  const hash = createHash('sha256');
  let bytes = 0;
  const handle = await guarded(file, 'creating a file', () => open(file, 'wx', 0o600));
  try {
    for await (const chunk of chunks) {
      hash.update(chunk);
      bytes += chunk.length;
      await guarded(file, 'writing', () => handle.writeFile(chunk));
    }
    await guarded(file, 'writing', () => handle.sync());
  } finally {
    await handle.close();
  }
  return { sha256: hash.digest('hex'), bytes };
}

/** Writes `bytes` to `file`, whole or not at all, in place of what was there; synced. */
export async function placeFile(file: string, bytes: Uint8Array): Promise<void> {
  const temporary = join(dirname(file), `.tmp-${process.pid}-${randomUUID()}`);
  await guarded(file, 'writing a file', async () => {
    await makeDir(dirname(file));
    try {
      await writeSynced(temporary, [bytes]);
      await rename(temporary, file);
    } finally {
      await unlink(temporary).catch(() => undefined);
    }
    await syncDir(dirname(file));
  });
}

/** True if the object is there and whole, false if there is none; throws `corrupt` if it does not match its name. */
export async function checkObject(dir: string, sha256: string, bytes?: number): Promise<boolean> {
  const file = objectPath(dir, sha256);
  let found: Digest | undefined;
  try {
    found = await digestFile(file);
  } catch (error) {
    throw toEvidenceError(error, file, 'reading an object');
  }
  if (found === undefined) return false;
  if (found.sha256 !== sha256 || (bytes !== undefined && found.bytes !== bytes)) throw corruptObject(file, found);
  return true;
}

/** The error for an object whose bytes are not what its name says. */
export function corruptObject(file: string, found: Digest): EvidenceError {
  const text = `the object does not match its name: it holds ${found.bytes} bytes with sha256 ${found.sha256}; keep it, and restore the true one from a copy`;
  return new EvidenceError('corrupt', file, text);
}

const BATCH_BYTES = 64 * 1024;

/** NDJSON of a stream: bytes go through as they are, everything else becomes one line of canonical JSON. */
export async function* toNdjson(items: AsyncIterable<unknown>): AsyncGenerator<Uint8Array> {
  let batch: string[] = [];
  let length = 0;
  for await (const item of items) {
    if (!(item instanceof Uint8Array)) {
      const line = `${canonicalJson(item)}\n`;
      batch.push(line);
      length += line.length;
      if (length < BATCH_BYTES) continue;
    }
    if (length > 0) yield Buffer.from(batch.join(''));
    batch = [];
    length = 0;
    if (item instanceof Uint8Array) yield item;
  }
  if (length > 0) yield Buffer.from(batch.join(''));
}
