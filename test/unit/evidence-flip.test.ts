import { appendFile, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';

import { EvidenceStore } from '../../src/evidence/store.ts';
import { verifyFolder } from '../../src/evidence/verify.ts';

// The disk, not the code, sets the pace on a busy machine.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let root: string;
let dir: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'cordon-evidence-'));
  const meta = { kind: 'audit', phase: 'identify', round: 1, at: '2026-11-23T01:00:00Z' };
  const store = await EvidenceStore.open(root, 'peer-compromise:node-1', meta.at);
  for (const key of ['a', 'b']) await store.seal({ ...meta, key, name: key }, { key, text: 'é' });
  await store.writeFileBeside('report.md', '# report\n', { ...meta, key: 'report' });
  await appendFile(join(store.dir, 'index.jsonl'), '{"torn');
  await store.seal({ ...meta, key: 'c', name: 'c' }, { key: 'c' });
  dir = store.dir;
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

test('any single changed byte anywhere in the folder is found', async () => {
  const files = (await readdir(dir, { recursive: true, withFileTypes: true }))
    .filter((item) => item.isFile())
    .map((item) => relative(dir, join(item.parentPath, item.name)));
  expect(files.length).toBe(10);
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...files), fc.nat(), fc.integer({ min: 1, max: 255 }), async (file, at, mask) => {
      const path = join(dir, file);
      const before = await readFile(path);
      const after = Buffer.from(before);
      after[at % after.length] = (after[at % after.length] ?? 0) ^ mask;
      await writeFile(path, after);
      const found = await verifyFolder(dir);
      await writeFile(path, before);
      expect(found.ok).toBe(false);
    }),
    { numRuns: 400 },
  );
});
