import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { TORN_NAME } from './chain.ts';
import { MAX_LINE_BYTES, NO_PREVIOUS, readEntry } from './entry.ts';
import type { EvidenceEntry } from './entry.ts';
import { errnoOf } from './errors.ts';
import { splitLines } from './lines.ts';
import { digestFile, fileChunks, objectPath } from './objects.ts';
import { INCIDENT_FILE } from './store.ts';

/** `where`: file inside the folder, with a line number for the index · `what`: what was expected and what was found. */
export type Problem = { where: string; what: string };
/**
 * `entries`, `objects`, `head`: of what was checked before the first problem in the chain · `warnings`: what is odd but
 * proves nothing, such as the leftovers of a crash.
 */
export type Verification = {
  ok: boolean;
  entries: number;
  objects: number;
  head: string;
  firstProblem?: Problem;
  warnings: string[];
};
/** `expectHead`: one or more heads (`sha256:<hex>` or hex) from a source that the folder's owner can't write to. */
export type VerifyOptions = { expectHead?: string | readonly string[] };

class Mismatch extends Error {
  readonly problem: Problem;
  constructor(where: string, what: string) {
    super(what);
    this.problem = { where, what };
  }
}

/**
 * Checks an incident's folder offline and names the first thing that does not fit: the chain line by line with each
 * object, incident.json, torn lines, files/, objects without an entry, expected heads. Reads only, never throws.
 *
 * Lines cut off at the end of the chain leave a valid, shorter chain: only `expectHead` proves that none are missing.
 */
export async function verifyFolder(dir: string, options: VerifyOptions = {}): Promise<Verification> {
  const check = new FolderCheck(dir);
  try {
    await check.run(typeof options.expectHead === 'string' ? [options.expectHead] : (options.expectHead ?? []));
  } catch (error) {
    const why = errnoOf(error) ?? (error instanceof Error ? error.message : String(error));
    check.problem = error instanceof Mismatch ? error.problem : { where: dir, what: `could not be read: ${why}` };
  }
  return check.result();
}

class FolderCheck {
  problem: Problem | undefined;
  readonly #dir: string;
  readonly #entries: EvidenceEntry[] = [];
  readonly #objects = new Set<string>();
  readonly #warnings: string[] = [];

  constructor(dir: string) {
    this.#dir = dir;
  }

  result(): Verification {
    const facts = {
      ok: this.problem === undefined,
      entries: this.#entries.length,
      objects: this.#objects.size,
      head: `sha256:${this.#entries.at(-1)?.hash ?? NO_PREVIOUS}`,
      warnings: this.#warnings,
    };
    return this.problem === undefined ? facts : { ...facts, firstProblem: this.problem };
  }

  async run(expectHeads: readonly string[]): Promise<void> {
    const top = await this.#list('.');
    if (top === undefined) throw new Mismatch('.', 'expected an incident folder, found none');
    if (!top.includes('index.jsonl')) throw new Mismatch('index.jsonl', 'expected the index, found no such file');
    await this.#checkIndex();
    const first = this.#entries[0];
    if (first === undefined) throw new Mismatch('index.jsonl', 'expected at least one entry, found an empty file');
    if (first.kind !== 'incident') throw new Mismatch('index.jsonl line 1', `expected kind incident, found ${first.kind}`);
    await this.#expectFile(INCIDENT_FILE, first);
    await this.#checkTorn(top);
    await this.#checkFiles();
    await this.#checkOrphans();
    const known = new Set(['index.jsonl', INCIDENT_FILE, 'objects', 'files']);
    for (const name of top) if (!known.has(name) && !TORN_NAME.test(name)) this.#warn(name, 'does not belong here');
    const hashes = new Set(this.#entries.map((entry) => entry.hash));
    for (const head of expectHeads) {
      if (hashes.has(head.replace(/^sha256:/, ''))) continue;
      const text = `expected the head ${head.slice(0, 100)} somewhere in the chain, found ${hashes.size} entries without it: lines were removed from the end, or this is another chain`;
      throw new Mismatch('index.jsonl', text);
    }
  }

  async #checkIndex(): Promise<void> {
    const file = join(this.#dir, 'index.jsonl');
    if (!(await lstat(file)).isFile()) throw new Mismatch('index.jsonl', 'expected a plain file, found something else');
    for await (const line of splitLines(fileChunks(file), MAX_LINE_BYTES)) {
      const where = `index.jsonl line ${this.#entries.length + 1}`;
      if (line.tooLong) throw new Mismatch(where, `expected at most ${MAX_LINE_BYTES} bytes, found a longer line`);
      if (!line.terminated) {
        throw new Mismatch(
          where,
          'expected a newline at the end, found none: a write was cut short (the next seal moves it aside) or is under way, or the end was changed',
        );
      }
      const entry = readEntry(line.bytes, this.#entries.at(-1));
      if ('wrong' in entry) throw new Mismatch(where, entry.wrong);
      if (!this.#objects.has(entry.sha256)) await this.#expectFile(objectName(entry.sha256), entry);
      this.#objects.add(entry.sha256);
      this.#entries.push(entry);
    }
  }

  async #expectFile(name: string, entry: EvidenceEntry, more = ''): Promise<void> {
    const found = await digestFile(join(this.#dir, name));
    const of = `for entry ${entry.seq} (${entry.kind} ${JSON.stringify(entry.name.slice(0, 100))})`;
    if (found === undefined) throw new Mismatch(name, `expected a file of ${entry.bytes} bytes ${of}, found none${more}`);
    if (found.bytes !== entry.bytes) throw new Mismatch(name, `expected ${entry.bytes} bytes ${of}, found ${found.bytes}${more}`);
    if (found.sha256 === entry.sha256) return;
    throw new Mismatch(name, `expected sha256 ${entry.sha256} ${of}, found ${found.sha256}: the content was changed${more}`);
  }

  async #checkTorn(top: readonly string[]): Promise<void> {
    const torn = this.#entries.filter((entry) => entry.kind === 'torn');
    for (const entry of torn) {
      if (TORN_NAME.test(entry.name)) await this.#expectFile(entry.name, entry);
      this.#warn(entry.name, `a write was cut short before entry ${entry.seq}; what it left is kept and sealed`);
    }
    const recorded = new Set(torn.map((entry) => entry.name));
    for (const name of top) {
      if (TORN_NAME.test(name) && !recorded.has(name)) this.#warn(name, 'a line that was cut short, not recorded yet');
    }
  }

  async #checkFiles(): Promise<void> {
    const latest = new Map<string, EvidenceEntry>();
    for (const entry of this.#entries) if (entry.file !== undefined) latest.set(entry.file, entry);
    for (const [name, entry] of latest) {
      await this.#expectFile(`files/${name}`, entry, `; the sealed text is ${objectName(entry.sha256)}`);
    }
    for (const name of (await this.#list('files')) ?? []) {
      if (!latest.has(name)) this.#warn(`files/${name}`, 'has no entry in the index');
    }
  }

  async #checkOrphans(): Promise<void> {
    for (const shard of (await this.#list('objects')) ?? []) {
      const names = /^[0-9a-f]{2}$/.test(shard) ? await this.#list(join('objects', shard)) : undefined;
      if (names === undefined) this.#warn(`objects/${shard}`, 'is no object; left by a write that was cut short?');
      for (const name of names ?? []) {
        if (this.#objects.has(name) && name.startsWith(shard)) continue;
        const found = await digestFile(join(this.#dir, 'objects', shard, name));
        if (found?.sha256 !== name)
          throw new Mismatch(`objects/${shard}/${name}`, `expected sha256 ${name}, found ${found?.sha256 ?? 'no plain file'}`);
        this.#warn(`objects/${shard}/${name}`, 'has no entry in the index');
      }
    }
  }

  /** The names in a folder, in order; undefined if it is no folder. */
  async #list(name: string): Promise<string[] | undefined> {
    try {
      return (await readdir(join(this.#dir, name))).toSorted();
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
      throw error;
    }
  }

  #warn(where: string, what: string): void {
    this.#warnings.push(`${where}: ${what}`);
  }
}

function objectName(sha256: string): string {
  return objectPath('', sha256);
}
