import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { canonicalize } from 'json-canonicalize';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { canonicalJson } from '../../src/evidence/canonical.ts';
import { listIncidentFolders } from '../../src/evidence/find.ts';
import { splitLines } from '../../src/evidence/lines.ts';
import { incidentFolderName, safeFileName } from '../../src/evidence/names.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';

// The disk, not the code, sets the pace on a busy machine.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const AT = '2026-11-23T01:00:00Z';
const HOSTILE = ['../../x', 'a/b', 'a\0b', '/etc/passwd', '..', '.', '-', 'C:\\x', '💥é', 'x'.repeat(9_000), '\ud800'];
let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cordon-evidence-'));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

test('hostile incident ids make folders of their own directly under the root', async () => {
  await mkdir(join(root, 'evidence'));
  for (const id of HOSTILE) await EvidenceStore.open(join(root, 'evidence'), id, AT);
  expect(await readdir(root)).toEqual(['evidence']);
  const found = await listIncidentFolders(join(root, 'evidence'));
  expect(new Set(found.map((item) => item.incident))).toEqual(new Set(HOSTILE));
  await expect(EvidenceStore.open(root, '', AT)).rejects.toMatchObject({ code: 'invalid' });
  await expect(EvidenceStore.open(root, 'x'.repeat(10_001), AT)).rejects.toMatchObject({ code: 'invalid' });
});

test('incident.json that is missing, junk or of another incident is not believed', async () => {
  const { dir } = await EvidenceStore.open(root, 'one', AT);
  await writeFile(join(dir, 'incident.json'), JSON.stringify({ at: AT, format: 1, incident: 'two' }));
  await mkdir(join(root, 'empty'));
  expect((await listIncidentFolders(root)).map((item) => item.incident)).toEqual([null, null]);
  expect(await listIncidentFolders(join(root, 'nowhere'))).toEqual([]);
  await writeFile(join(root, 'file'), '');
  await expect(listIncidentFolders(join(root, 'file'))).rejects.toMatchObject({ code: 'io' });
});

const anyText = fc.oneof(fc.string({ unit: 'binary' }), fc.string(), fc.constantFrom(...HOSTILE));

test('a folder or file name is safe whatever the id, and differs when the id does', () => {
  fc.assert(
    fc.property(anyText, anyText, (a, b) => {
      expect(incidentFolderName(a)).toMatch(/^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?-[0-9a-f]{16}$/);
      expect(safeFileName(a)).toMatch(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/);
      if (a !== b) expect(incidentFolderName(a)).not.toBe(incidentFolderName(b));
    }),
  );
});

test('canonical JSON equals json-canonicalize on every JSON value', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      // Through JSON first: -0 and values that share one object.
      const plain: unknown = JSON.parse(JSON.stringify(value));
      expect(canonicalJson(plain)).toBe(canonicalize(plain));
    }),
  );
});

test('canonical JSON takes one object held twice, sorts beside a toJSON property, and refuses endless depth', () => {
  const shared = { x: 1 };
  expect(canonicalJson({ ab: shared, a: shared })).toBe('{"a":{"x":1},"ab":{"x":1}}');
  expect(canonicalJson({ toJSON: 1, b: 1, a: new Date(0) })).toBe('{"a":"1970-01-01T00:00:00.000Z","b":1,"toJSON":1}');
  const deep: unknown = JSON.parse('['.repeat(100_000) + ']'.repeat(100_000));
  expect(() => canonicalJson(deep)).toThrow(expect.objectContaining({ code: 'invalid' }));
});

test('lines are cut at 0x0A only, however the bytes arrive', async () => {
  const chunk = fc.uint8Array({ maxLength: 8 }).map((bytes) => bytes.map((byte) => (byte % 3 === 0 ? 10 : byte)));
  await fc.assert(
    fc.asyncProperty(fc.array(chunk), async (chunks) => {
      let rebuilt = '';
      for await (const line of splitLines(feed(chunks), 1_000)) {
        rebuilt += line.bytes.toString('latin1') + (line.terminated ? '\n' : '');
      }
      expect(rebuilt).toBe(Buffer.concat(chunks).toString('latin1'));
    }),
  );
});

async function* feed(chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}
