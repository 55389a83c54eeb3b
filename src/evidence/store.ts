import { basename, dirname, join } from 'node:path';

import { canonicalJson } from './canonical.ts';
import { Chain } from './chain.ts';
import { SealMeta } from './entry.ts';
import type { EvidenceEntry } from './entry.ts';
import { EvidenceError, guarded } from './errors.ts';
import { splitLines } from './lines.ts';
import { withLock } from './lock.ts';
import { incidentFolderName, safeFileName } from './names.ts';
import { checkObject, digestFile, fileChunks, makeDir, objectPath, placeFile, putObject, syncDir, toNdjson } from './objects.ts';

export const INCIDENT_FILE = 'incident.json';
const MAX_STREAM_LINE_BYTES = 64 * 1024 * 1024;

/** What the caller says; `mediaType` is by default that of the content: JSON, NDJSON or bytes. */
export type SealRequest = Omit<SealMeta, 'mediaType'> & { mediaType?: string };
/**
 * `id`: `sha256:<hex>` of the content · `bytes`: its length · `seq`: its entry · `head`, `entries`: of the chain as it
 * stood when the call ended.
 */
export type Sealed = { id: string; bytes: number; seq: number; head: string; entries: number };

/** The evidence of one incident: a folder of content-addressed objects and a chained index. */
export class EvidenceStore {
  /** The incident's folder. */
  readonly dir: string;
  readonly #chain: Chain;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(dir: string) {
    this.dir = dir;
    this.#chain = new Chain(dir);
  }

  /**
   * Opens the folder of an incident under `root`, made with entry 0 (incident.json) if it is not there yet. `at`: ISO
   * 8601, only for a new folder. Any string is a valid id, it never becomes a path. Throws EvidenceError.
   */
  static async open(root: string, incidentId: string, at: string): Promise<EvidenceStore> {
    if (incidentId === '' || incidentId.length > 10_000) {
      throw new EvidenceError('invalid', root, 'an incident id has 1 to 10,000 characters');
    }
    const store = new EvidenceStore(join(root, incidentFolderName(incidentId)));
    await guarded(store.dir, 'making the folder', () => makeDir(store.dir));
    const name = INCIDENT_FILE;
    const meta = { key: name, kind: 'incident', name, mediaType: 'application/json', at, phase: 'identify', round: 0 };
    const content = canonicalJson({ at, format: 1, incident: incidentId });
    await store.#locked(async () => {
      if (store.#chain.entries.length > 0) return;
      await placeFile(join(store.dir, name), Buffer.from(content));
      await store.#chain.append(check(meta), await putObject(store.dir, [Buffer.from(content)]));
      await guarded(root, 'syncing the folder', () => syncDir(root));
    });
    return store;
  }

  /**
   * Seals one piece of evidence: the object first, then its entry. A value becomes canonical JSON, a Uint8Array is kept
   * as it is, an async iterable becomes NDJSON in constant memory (its Uint8Arrays go in unchanged).
   * Same key and content: the entry that is there is returned. Same key, other content: one more entry, `revision` n+1.
   */
  async seal(request: SealRequest, content: unknown): Promise<Sealed> {
    return this.sealAll([{ request, content }]);
  }

  /** Seals several pieces in their order, with one look at the lock and one sync of the index; returns the last one. */
  async sealAll(pieces: readonly { readonly request: SealRequest; readonly content: unknown }[]): Promise<Sealed> {
    const put = await Promise.all(
      pieces.map(async ({ request, content }) => {
        const [mediaType, chunks] = encode(content);
        return { meta: check({ mediaType, ...request }), object: await putObject(this.dir, chunks) };
      }),
    );
    const last = put.at(-1);
    if (last === undefined) throw new EvidenceError('invalid', this.dir, 'there is nothing to seal');
    return this.#locked(async () => {
      await this.#chain.recordTorn(last.meta);
      const find = ({ meta, object }: (typeof put)[number]) =>
        this.#chain.entries.find((entry) => entry.key === meta.key && entry.sha256 === object.sha256);
      const news = put.filter((one) => find(one) === undefined);
      if (news.length > 0) await this.#chain.appendAll(news);
      const sealed = find(last);
      if (sealed === undefined) throw new EvidenceError('invalid', this.dir, 'what was sealed is not in the index');
      return this.#sealed(sealed);
    });
  }

  /**
   * Seals `content` and keeps a readable copy in files/, under `name` made safe; a new version replaces the copy, the
   * objects and entries of all versions stay. Returns the path of the copy too.
   */
  async writeFileBeside(
    name: string,
    content: string | Uint8Array,
    request: Omit<SealRequest, 'name'>,
  ): Promise<Sealed & { path: string }> {
    const bytes = Buffer.from(content);
    const mediaType = typeof content === 'string' ? 'text/plain; charset=utf-8' : 'application/octet-stream';
    const meta = check({ mediaType, ...request, name });
    const file = safeFileName(name);
    const object = await putObject(this.dir, [bytes]);
    return this.#locked(async () => {
      await this.#chain.recordTorn(meta);
      const latest = this.#chain.entries.findLast((entry) => entry.file === file);
      const same = latest?.key === meta.key && latest.sha256 === object.sha256 ? latest : undefined;
      const entry = same ?? (await this.#chain.append(meta, object, file));
      const path = join(this.dir, 'files', file);
      // Also after a crash between the entry and the copy.
      if ((await digestFile(path))?.sha256 !== object.sha256) await placeFile(path, bytes);
      return { ...this.#sealed(entry), path };
    });
  }

  /** The bytes of `sha256:<hex>`, held against their hash. Throws `corrupt` if they differ, `io` if there is none. */
  async read(id: string): Promise<Buffer> {
    const parts: Buffer[] = [];
    for await (const chunk of this.stream(id)) parts.push(chunk);
    return Buffer.concat(parts);
  }

  /** `read` of a JSON object, parsed. */
  async readJson(id: string): Promise<unknown> {
    const text = (await this.read(id)).toString('utf8');
    return guarded(id, 'parsing JSON', async (): Promise<unknown> => JSON.parse(text));
  }

  /** The bytes in pieces, in constant memory; the whole object is held against its hash before the first. */
  async *stream(id: string): AsyncGenerator<Buffer> {
    const sha256 = /^sha256:([0-9a-f]{64})$/.exec(id)?.[1];
    if (sha256 === undefined) throw new EvidenceError('invalid', this.dir, `${JSON.stringify(id.slice(0, 100))} is no evidence id`);
    const file = objectPath(this.dir, sha256);
    if (!(await checkObject(this.dir, sha256))) throw new EvidenceError('io', file, 'there is no such object; restore it from a copy');
    yield* fileChunks(file);
  }

  /** The parsed lines of an NDJSON object, one at a time; a line may have 64 MiB. */
  async *lines(id: string): AsyncGenerator {
    for await (const line of splitLines(this.stream(id), MAX_STREAM_LINE_BYTES)) {
      if (line.tooLong) throw new EvidenceError('io', id, 'a line is longer than 64 MiB; use stream');
      yield await guarded(id, 'parsing a line', async (): Promise<unknown> => JSON.parse(line.bytes.toString('utf8')));
    }
  }

  /** `sha256:<hex>` of the last entry, with what other processes appended. */
  async head(): Promise<string> {
    return this.#inTurn(async () => {
      await this.#chain.refresh();
      return this.#chain.head;
    });
  }

  /** All entries in order, with what other processes appended. */
  async entries(): Promise<readonly EvidenceEntry[]> {
    return this.#inTurn(async () => {
      await this.#chain.refresh();
      return [...this.#chain.entries];
    });
  }

  #sealed(entry: EvidenceEntry): Sealed {
    const { head, entries } = this.#chain;
    return { id: `sha256:${entry.sha256}`, bytes: entry.bytes, seq: entry.seq, head, entries: entries.length };
  }

  /** The lock lies beside the folder, not in it: the folder holds nothing but evidence. */
  async #locked<T>(work: () => Promise<T>): Promise<T> {
    return withLock(join(dirname(this.dir), '.locks', basename(this.dir)), () =>
      this.#inTurn(async () => {
        await this.#chain.moveTornAside(await this.#chain.refresh());
        return work();
      }),
    );
  }

  /** One at a time in this process: two that read the same new lines would both count them. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }
}

function check(meta: SealMeta): SealMeta {
  const parsed = SealMeta.safeParse(meta);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new EvidenceError('invalid', meta.key, `${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
}

function encode(content: unknown): [string, AsyncIterable<Uint8Array> | Iterable<Uint8Array>] {
  if (content instanceof Uint8Array) return ['application/octet-stream', [content]];
  if (isStream(content)) return ['application/x-ndjson', toNdjson(content)];
  return ['application/json', [Buffer.from(canonicalJson(content))]];
}

function isStream(content: unknown): content is AsyncIterable<unknown> {
  return typeof content === 'object' && content !== null && Symbol.asyncIterator in content;
}
