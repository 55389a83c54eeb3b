import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { NO_PREVIOUS, closeEntry, readEntry } from './entry.ts';
import type { EvidenceEntry, SealMeta } from './entry.ts';
import { EvidenceError, errnoOf, guarded } from './errors.ts';
import { placeFile, putObject, syncDir } from './objects.ts';
import type { Digest } from './objects.ts';

export const TORN_NAME = /^index\.torn-([1-9][0-9]{0,5})$/;

/** What an entry is made of. */
export interface NewEntry {
  readonly meta: SealMeta;
  readonly object: Digest;
  readonly file?: string;
}

/** index.jsonl as this process knows it. Appending and recovering need the incident's lock; refreshing does not. */
export class Chain {
  readonly #dir: string;
  readonly #file: string;
  readonly #entries: EvidenceEntry[] = [];
  #bytes = 0;

  constructor(dir: string) {
    this.#dir = dir;
    this.#file = join(dir, 'index.jsonl');
  }

  get entries(): readonly EvidenceEntry[] {
    return this.#entries;
  }

  /** `sha256:<hex>` of the last entry; 64 zeros before the first. */
  get head(): string {
    return `sha256:${this.#entries.at(-1)?.hash ?? NO_PREVIOUS}`;
  }

  /**
   * Reads what was appended since the last call. Returns the bytes after the last newline: a write under way, or one
   * that was cut short. Throws `corrupt` if a line does not continue the chain or the file became shorter.
   */
  async refresh(): Promise<Buffer> {
    const tail = await guarded(this.#file, 'reading the index', () => this.#readTail());
    let from = 0;
    for (let end = tail.indexOf(10); end !== -1; end = tail.indexOf(10, from)) {
      const entry = readEntry(tail.subarray(from, end), this.#entries.at(-1));
      if ('wrong' in entry) throw this.#corrupt(`line ${this.#entries.length + 1} ${entry.wrong}`);
      this.#entries.push(entry);
      this.#bytes += end + 1 - from;
      from = end + 1;
    }
    return tail.subarray(from);
  }

  /** Moves a line that was cut short to index.torn-<n>, so that the next append starts on a new line. */
  async moveTornAside(torn: Buffer): Promise<void> {
    if (torn.length === 0) return;
    const names = await this.#tornFiles();
    const last = names.at(-1);
    // A crash between copying and cutting leaves a copy behind: it is the same line.
    const copied = last !== undefined && (await readFile(join(this.#dir, last))).equals(torn);
    if (!copied) {
      const next = tornNumber(last ?? '') + 1;
      await placeFile(join(this.#dir, `index.torn-${next}`), torn);
    }
    await guarded(this.#file, 'cutting off a line that was cut short', () => this.#truncate());
  }

  /** Seals and records the index.torn-<n> files that have no entry yet. */
  async recordTorn(meta: Pick<SealMeta, 'at' | 'phase' | 'round'>): Promise<void> {
    const known = new Set(this.#entries.filter((entry) => entry.kind === 'torn').map((entry) => entry.name));
    for (const name of await this.#tornFiles()) {
      if (known.has(name)) continue;
      const bytes = await guarded(join(this.#dir, name), 'reading', () => readFile(join(this.#dir, name)));
      const digest = await putObject(this.#dir, [bytes]);
      const { at, phase, round } = meta;
      await this.append({ key: `torn:${name}`, kind: 'torn', name, mediaType: 'application/octet-stream', at, phase, round }, digest);
    }
  }

  /** Appends one entry, synced. After a failed write the file is cut back to what it was. */
  async append(meta: SealMeta, object: Digest, file?: string): Promise<EvidenceEntry> {
    const [entry] = await this.appendAll([{ meta, object, ...(file === undefined ? {} : { file }) }]);
    if (entry === undefined) throw new EvidenceError('invalid', this.#file, 'nothing was appended');
    return entry;
  }

  /** Appends several entries in one write, synced once. */
  async appendAll(news: readonly NewEntry[]): Promise<EvidenceEntry[]> {
    const entries: EvidenceEntry[] = [];
    const lines: string[] = [];
    for (const { meta, object, file } of news) {
      const before = [...this.#entries, ...entries];
      const { entry, line } = closeEntry({
        ...meta,
        seq: before.length,
        sha256: object.sha256,
        bytes: object.bytes,
        revision: before.filter((earlier) => earlier.key === meta.key).length + 1,
        ...(file === undefined ? {} : { file }),
        prev: before.at(-1)?.hash ?? NO_PREVIOUS,
      });
      entries.push(entry);
      lines.push(`${line}\n`);
    }
    const bytes = Buffer.from(lines.join(''));
    const isFirst = this.#entries.length === 0;
    await guarded(this.#file, 'appending to the index', async () => {
      const handle = await open(this.#file, 'a', 0o600);
      try {
        await handle.writeFile(bytes);
        await handle.sync();
      } catch (error) {
        await handle.truncate(this.#bytes).catch(() => undefined);
        throw error;
      } finally {
        await handle.close();
      }
      if (isFirst) await syncDir(this.#dir);
    });
    this.#entries.push(...entries);
    this.#bytes += bytes.length;
    return entries;
  }

  async #readTail(): Promise<Buffer> {
    let handle;
    try {
      handle = await open(this.#file, 'r');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' && this.#bytes === 0) return Buffer.alloc(0);
      throw error;
    }
    try {
      const { size } = await handle.stat();
      if (size < this.#bytes) throw this.#corrupt(`expected at least ${this.#bytes} bytes, found ${size}: lines were removed`);
      const tail = Buffer.alloc(size - this.#bytes);
      const { bytesRead } = await handle.read(tail, 0, tail.length, this.#bytes);
      return tail.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  }

  async #truncate(): Promise<void> {
    const handle = await open(this.#file, 'r+');
    try {
      await handle.truncate(this.#bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  async #tornFiles(): Promise<string[]> {
    const names = await guarded(this.#dir, 'listing the folder', () => readdir(this.#dir));
    return names.filter((name) => TORN_NAME.test(name)).toSorted((a, b) => tornNumber(a) - tornNumber(b));
  }

  #corrupt(what: string): EvidenceError {
    return new EvidenceError('corrupt', this.#file, `${what}; keep the folder as it is and run \`cordon verify\` on it`);
  }
}

function tornNumber(name: string): number {
  return Number(TORN_NAME.exec(name)?.[1] ?? 0);
}
