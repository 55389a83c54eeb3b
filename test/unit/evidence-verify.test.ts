import { appendFile, cp, mkdir, mkdtemp, readFile, rename, rm, symlink, truncate, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';

import { sha256Hex } from '../../src/evidence/canonical.ts';
import { closeEntry, EvidenceEntry } from '../../src/evidence/entry.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import { verifyFolder } from '../../src/evidence/verify.ts';

// The disk, not the code, sets the pace on a busy machine.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const AT = '2026-11-23T01:00:00Z';
let root: string;
let pristine: string;
let dir: string;
let heads: string[];

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'cordon-evidence-'));
  const store = await EvidenceStore.open(root, 'peer-compromise:node-1', AT);
  const meta = { kind: 'audit', phase: 'identify', round: 1, at: AT };
  heads = [];
  for (const key of ['a', 'b', 'c']) heads.push((await store.seal({ ...meta, key, name: key }, { key })).head);
  heads.push((await store.writeFileBeside('report.md', '# report\n', { ...meta, key: 'report' })).head);
  await appendFile(join(store.dir, 'index.jsonl'), '{"torn');
  heads.push((await store.seal({ ...meta, key: 'd', name: 'd' }, { key: 'd' })).head);
  pristine = store.dir;
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});
beforeEach(async () => {
  dir = join(root, 'copy');
  await rm(dir, { recursive: true, force: true });
  await cp(pristine, dir, { recursive: true });
});

const index = () => join(dir, 'index.jsonl');
const objectOf = (content: string) => join(dir, 'objects', sha256Hex(content).slice(0, 2), sha256Hex(content));
const lines = async () => (await readFile(index(), 'utf8')).trimEnd().split('\n');
const rewrite = async (kept: readonly string[]) => writeFile(index(), `${kept.join('\n')}\n`);

test('an untouched copy verifies, with every head it ever had', async () => {
  expect(await verifyFolder(dir, { expectHead: heads })).toMatchObject({ ok: true, entries: 7, head: heads.at(-1) });
});

test.each([
  [
    'a truncated object',
    async () => truncate(objectOf('{"key":"a"}'), 3),
    /^objects\//,
    'expected 11 bytes for entry 1 (audit "a"), found 3',
  ],
  ['a replaced object', async () => writeFile(objectOf('{"key":"b"}'), '{"key":"x"}'), /^objects\//, 'the content was changed'],
  ['a missing object', async () => unlink(objectOf('{"key":"c"}')), /^objects\//, 'for entry 3 (audit "c"), found none'],
  [
    'an object that became a link',
    async () => {
      await rename(objectOf('{"key":"c"}'), join(root, 'elsewhere'));
      await symlink(join(root, 'elsewhere'), objectOf('{"key":"c"}'));
    },
    /^objects\//,
    'found none',
  ],
  [
    'a removed line',
    async () => rewrite((await lines()).toSpliced(2, 1)),
    /^index.jsonl line 3$/,
    'expected entry number 2, found 3: lines are missing or moved',
  ],
  [
    'reordered lines',
    async () => {
      const [first, second, third, ...rest] = await lines();
      await rewrite([first ?? '', third ?? '', second ?? '', ...rest]);
    },
    /^index.jsonl line 2$/,
    'expected entry number 1, found 2',
  ],
  [
    'a line with spaces added',
    async () => rewrite((await lines()).map((line, at) => (at === 1 ? line.replace(',', ', ') : line))),
    /line 2$/,
    'not in canonical form',
  ],
  [
    'an entry rewritten with a hash that fits',
    async () => {
      const all = await lines();
      const { hash: _, ...open } = EvidenceEntry.parse(JSON.parse(all[1] ?? ''));
      await rewrite(all.with(1, closeEntry({ ...open, phase: 'contain' }).line));
    },
    /line 3$/,
    'the chain is broken: expected prev',
  ],
  [
    'no newline at the end',
    async () => truncate(index(), (await readFile(index())).length - 1),
    /line 7$/,
    'expected a newline at the end',
  ],
  [
    'a changed readable file',
    async () => writeFile(join(dir, 'files', 'report.md'), '# rewrite'),
    /^files\/report.md$/,
    'the sealed text is objects/',
  ],
  ['an incident.json of another incident', async () => writeFile(join(dir, 'incident.json'), '{}'), /^incident.json$/, 'found 2'],
  ['an empty index', async () => writeFile(index(), ''), /^index.jsonl$/, 'found an empty file'],
  ['no index', async () => unlink(index()), /^index.jsonl$/, 'found no such file'],
  ['a folder as index', async () => unlink(index()).then(() => mkdir(index())), /^index.jsonl$/, 'expected a plain file'],
  [
    'binary junk as index',
    async () => writeFile(index(), Buffer.from([0, 255, 254, 10, 10, 128])),
    /line 1$/,
    'expected one JSON object in UTF-8',
  ],
  ['a huge line', async () => writeFile(index(), 'x'.repeat(30_000_000)), /line 1$/, 'expected at most 65536 bytes'],
  [
    'deeply nested junk',
    async () => writeFile(index(), `${'['.repeat(30_000)}${']'.repeat(30_000)}\n`),
    /line 1$/,
    'is not an index entry',
  ],
])('%s is named', async (_what, tamper, where, what) => {
  await tamper();
  const { ok, firstProblem } = await verifyFolder(dir);
  expect(ok).toBe(false);
  expect(firstProblem?.where).toMatch(where);
  expect(firstProblem?.what).toContain(what);
});

test('lines removed from the end are found by a head from elsewhere, and only so', async () => {
  await rewrite((await lines()).slice(0, 3));
  expect((await verifyFolder(dir)).ok).toBe(true);
  expect(await verifyFolder(dir, { expectHead: heads[1] ?? '' })).toMatchObject({ ok: true });
  expect((await verifyFolder(dir, { expectHead: heads })).firstProblem?.what).toContain('lines were removed from the end');
  expect((await verifyFolder(dir)).warnings.length).toBeGreaterThan(0);
});

test('a folder that is not there, a file, and junk beside the evidence do not throw', async () => {
  expect((await verifyFolder(join(root, 'nowhere'))).firstProblem?.what).toContain('found none');
  expect((await verifyFolder(index())).ok).toBe(false);
  expect((await verifyFolder('\0')).ok).toBe(false);
  await writeFile(join(dir, 'objects', '.tmp-1-x'), 'half');
  await writeFile(join(dir, 'notes.txt'), 'x');
  const { ok, warnings } = await verifyFolder(dir);
  expect([ok, warnings.length]).toEqual([true, 3]);
});
