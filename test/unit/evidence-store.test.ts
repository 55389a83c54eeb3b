import { appendFile, mkdtemp, readFile, rm, truncate, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { EvidenceStore } from '../../src/evidence/store.ts';
import { verifyFolder } from '../../src/evidence/verify.ts';

// The disk, not the code, sets the pace on a busy machine.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const AT = '2026-11-23T01:00:00Z';
let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cordon-evidence-'));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

const meta = (key: string) => ({ key, kind: 'audit', name: 'audit events', phase: 'identify', round: 1, at: AT });

test('sealed JSON, bytes and streams are read back and the folder verifies', async () => {
  const store = await EvidenceStore.open(root, 'peer-compromise:node-1', AT);
  const json = await store.seal(meta('a'), { b: 1, a: [1, 'é', null] });
  const bytes = await store.seal(meta('b'), new Uint8Array([0, 255, 10]));
  const stream = await store.seal(meta('c'), rows(3));
  expect(json).toMatchObject({ seq: 1, entries: 2, bytes: 25 });
  expect((await store.read(json.id)).toString()).toBe('{"a":[1,"é",null],"b":1}');
  expect(await store.readJson(json.id)).toEqual({ b: 1, a: [1, 'é', null] });
  expect([...(await store.read(bytes.id))]).toEqual([0, 255, 10]);
  const lines: unknown[] = [];
  for await (const line of store.lines(stream.id)) lines.push(line);
  expect(lines).toEqual([
    { n: 0, text: 'row\u2028' },
    { n: 1, text: 'row\u2028' },
    { n: 2, text: 'row\u2028' },
  ]);
  expect(stream.head).toBe(await store.head());
  expect((await store.entries()).map((entry) => [entry.seq, entry.key, entry.mediaType])).toEqual([
    [0, 'incident.json', 'application/json'],
    [1, 'a', 'application/json'],
    [2, 'b', 'application/octet-stream'],
    [3, 'c', 'application/x-ndjson'],
  ]);
  expect(await verifyFolder(store.dir, { expectHead: json.head })).toEqual({
    ok: true,
    entries: 4,
    objects: 4,
    head: stream.head,
    warnings: [],
  });
});

test('the same key and content is one entry, other content is one more revision and both stay', async () => {
  const store = await EvidenceStore.open(root, 'i', AT);
  const first = await store.seal(meta('k'), { world: 1 });
  expect(await store.seal(meta('k'), { world: 1 })).toEqual(first);
  const second = await store.seal(meta('k'), { world: 2 });
  expect(await store.seal(meta('k'), { world: 1 })).toMatchObject({ id: first.id, seq: first.seq, entries: 3 });
  expect((await store.entries()).slice(1).map((entry) => [entry.key, entry.revision, `sha256:${entry.sha256}`])).toEqual([
    ['k', 1, first.id],
    ['k', 2, second.id],
  ]);
  const again = await EvidenceStore.open(root, 'i', '2027-01-01T00:00:00Z');
  expect(await again.seal(meta('k'), { world: 2 })).toEqual(second);
  expect(await again.readJson(first.id)).toEqual({ world: 1 });
});

test('two stores on one folder see what the other appended', async () => {
  const [one, two] = await Promise.all([EvidenceStore.open(root, 'i', AT), EvidenceStore.open(root, 'i', AT)]);
  await Promise.all(Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? one : two).seal(meta(`k${n}`), { n })));
  expect(await one.entries()).toEqual(await two.entries());
  expect(await verifyFolder(one.dir)).toMatchObject({ ok: true, entries: 21, warnings: [] });
});

test('a readable file lies in files/, is replaced by its next version, and is put back after a crash', async () => {
  const store = await EvidenceStore.open(root, 'i', AT);
  const { name: _, ...request } = meta('report');
  const first = await store.writeFileBeside('report.md', '# one\n', request);
  const second = await store.writeFileBeside('report.md', '# two\n', request);
  expect(second.path).toBe(join(store.dir, 'files', 'report.md'));
  expect(await readFile(second.path, 'utf8')).toBe('# two\n');
  expect((await store.read(first.id)).toString()).toBe('# one\n');
  await unlink(second.path);
  expect((await verifyFolder(store.dir)).firstProblem?.where).toBe('files/report.md');
  expect(await store.writeFileBeside('report.md', '# two\n', request)).toEqual(second);
  const escape = await store.writeFileBeside('../../../etc/x.md', 'x', { ...request, key: 'escape' });
  expect(escape.path.startsWith(join(store.dir, 'files', 'etc-x-'))).toBe(true);
  expect(await verifyFolder(store.dir)).toMatchObject({ ok: true, entries: 4, warnings: [] });
});

test('a line that was cut short is moved aside and recorded by the next append', async () => {
  const store = await EvidenceStore.open(root, 'i', AT);
  await store.seal(meta('a'), { a: 1 });
  await appendFile(join(store.dir, 'index.jsonl'), '{"at":"2026-11');
  expect((await verifyFolder(store.dir)).firstProblem?.where).toBe('index.jsonl line 3');
  const sealed = await (await EvidenceStore.open(root, 'i', AT)).seal(meta('b'), { b: 1 });
  expect(sealed).toMatchObject({ seq: 3, entries: 4 });
  expect(await readFile(join(store.dir, 'index.torn-1'), 'utf8')).toBe('{"at":"2026-11');
  await appendFile(join(store.dir, 'index.jsonl'), '\0\0\0');
  await store.seal(meta('c'), { c: 1 });
  expect((await store.entries()).filter((entry) => entry.kind === 'torn').map((entry) => entry.name)).toEqual([
    'index.torn-1',
    'index.torn-2',
  ]);
  const verified = await verifyFolder(store.dir, { expectHead: sealed.head });
  expect(verified).toMatchObject({ ok: true, entries: 6 });
  expect(verified.warnings.map((warning) => warning.slice(0, 12))).toEqual(['index.torn-1', 'index.torn-2']);
});

test('a first line that was cut short still leaves the incident as entry 0', async () => {
  const store = await EvidenceStore.open(root, 'i', AT);
  await truncate(join(store.dir, 'index.jsonl'), 20);
  const again = await EvidenceStore.open(root, 'i', AT);
  await again.seal(meta('a'), {});
  expect((await again.entries()).map((entry) => entry.kind)).toEqual(['incident', 'torn', 'audit']);
  expect((await verifyFolder(store.dir)).ok).toBe(true);
});

test('a changed object is refused on read and on sealing the same content again', async () => {
  const store = await EvidenceStore.open(root, 'i', AT);
  const { id } = await store.seal(meta('a'), { a: 1 });
  await writeFile(join(store.dir, 'objects', id.slice(7, 9), id.slice(7)), '{"a":2}');
  await expect(store.read(id)).rejects.toMatchObject({ code: 'corrupt' });
  await expect(store.seal(meta('b'), { a: 1 })).rejects.toMatchObject({ code: 'corrupt' });
  await expect(store.read(`sha256:${'0'.repeat(64)}`)).rejects.toMatchObject({ code: 'io' });
  await expect(store.read('sha256:../../etc/passwd')).rejects.toMatchObject({ code: 'invalid' });
});

test('a store that is open refuses to append to a chain that was cut', async () => {
  const store = await EvidenceStore.open(root, 'i', AT);
  await store.seal(meta('a'), { a: 1 });
  await truncate(join(store.dir, 'index.jsonl'), 100);
  await expect(store.seal(meta('b'), { b: 1 })).rejects.toMatchObject({ code: 'corrupt' });
});

test('what JSON would lose in silence is refused, and a failing stream seals nothing', async () => {
  const store = await EvidenceStore.open(root, 'i', AT);
  const circle: { self?: unknown } = {};
  circle.self = circle;
  for (const content of [NaN, 1n, undefined, () => 1, { m: new Map() }, { b: new Uint8Array(1) }, circle]) {
    await expect(store.seal(meta('bad'), content)).rejects.toMatchObject({ code: 'invalid' });
  }
  await expect(store.seal({ ...meta('k'), at: 'yesterday' }, {})).rejects.toMatchObject({ code: 'invalid' });
  await expect(store.seal(meta('k'), broken())).rejects.toThrow('the node hung up');
  expect(await verifyFolder(store.dir)).toMatchObject({ ok: true, entries: 1, warnings: [] });
});

async function* broken(): AsyncGenerator {
  yield { n: 1 };
  throw new Error('the node hung up');
}

async function* rows(count: number): AsyncGenerator {
  for (let n = 0; n < count; n++) yield { text: 'row\u2028', n };
}

test('one store that many use at once: every entry once, in one chain', async () => {
  const store = await EvidenceStore.open(root, 'i', AT);
  const other = await EvidenceStore.open(root, 'i', AT);
  await Promise.all(
    Array.from({ length: 30 }, async (_, n) => {
      await (n % 3 === 0 ? other : store).seal(meta(`k${n}`), { n });
      expect((await store.entries()).map(({ seq }) => seq)).toContain(n === 0 ? 0 : 1);
      await store.head();
    }),
  );
  const entries = await store.entries();
  expect(entries.map(({ seq }) => seq)).toEqual(Array.from({ length: 31 }, (_, seq) => seq));
  expect(new Set(entries.map(({ key }) => key)).size).toBe(31);
  expect(await verifyFolder(store.dir)).toMatchObject({ ok: true, entries: 31 });
});

test('several pieces sealed at once stand in their order, each a revision of its own key, and twice is once', async () => {
  const store = await EvidenceStore.open(root, 'i', AT);
  await store.seal(meta('b'), { old: true });
  const pieces = ['a', 'b', 'c'].map((key) => ({ request: meta(key), content: { key } }));
  const sealed = await store.sealAll(pieces);
  expect((await store.entries()).map(({ key, revision }) => `${key}#${revision}`)).toEqual(['incident.json#1', 'b#1', 'a#1', 'b#2', 'c#1']);
  expect(await store.readJson(sealed.id)).toEqual({ key: 'c' });
  expect(await store.sealAll(pieces)).toEqual(sealed);
  expect(await verifyFolder(store.dir, { expectHead: sealed.head })).toMatchObject({ ok: true, entries: 5 });
});
