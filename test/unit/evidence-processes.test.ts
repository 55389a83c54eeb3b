import { execFileSync, fork, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import ts from 'typescript';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';

import { incidentFolderName } from '../../src/evidence/names.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import { verifyFolder } from '../../src/evidence/verify.ts';

// The disk, not the code, sets the pace on a busy machine.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const AT = '2026-11-23T01:00:00Z';
const repo = join(import.meta.dirname, '..', '..');
const meta = { kind: 'audit', name: 'n', phase: 'identify', round: 1, at: AT };

/** Runs in children: argv is the root, what to do, and the child's name. */
const CHILD = `
import { EvidenceStore } from './store.js';
const [root, what, me] = process.argv.slice(2);
const meta = (key) => (${JSON.stringify(meta).replace(/}$/, '')}, key });
try {
  const store = await EvidenceStore.open(root, 'i', '${AT}');
  if (what === 'append') for (let n = 0; n < 25; n++) await store.seal(meta(me + ':' + n), { me, n });
  if (what === 'forever') for (let n = 0; ; n++) { await store.seal(meta(me + ':' + n), { me, n }); process.send(n); }
  if (what === 'big') {
    const before = process.memoryUsage().rss;
    const row = 'x'.repeat(1000);
    const sealed = await store.seal(meta('big'), (async function* () { for (let n = 0; n < 200_000; n++) yield { n, row }; })());
    let read = 0;
    for await (const chunk of store.stream(sealed.id)) read += chunk.length;
    console.log(JSON.stringify({ bytes: sealed.bytes, read, grownMiB: (process.resourceUsage().maxRSS * 1024 - before) / 2 ** 20 }));
  }
  if (what === 'fill') for (let n = 0; ; n++) await store.seal(meta('fill:' + n), { n, row: 'x'.repeat(3000) });
} catch (error) {
  console.log(JSON.stringify({ name: error.name, code: error.code, message: error.message }));
}
`;

let built: string;
let child: string;
let root: string;

beforeAll(async () => {
  // Inside the repository, so that the children find its packages.
  await mkdir(join(repo, '.test'), { recursive: true });
  built = await mkdtemp(join(repo, '.test', 'evidence-'));
  const source = join(repo, 'src');
  const compilerOptions = {
    module: ts.ModuleKind.ESNext,
    target: ts.ScriptTarget.ES2022,
    rewriteRelativeImportExtensions: true,
  };
  const own = (await readdir(join(source, 'evidence'))).map((name) => join('evidence', name));
  for (const path of [...own, join('contract', 'canonical.ts')]) {
    const { outputText } = ts.transpileModule(await readFile(join(source, path), 'utf8'), { compilerOptions });
    await mkdir(join(built, dirname(path)), { recursive: true });
    await writeFile(join(built, path.replace(/\.ts$/, '.js')), outputText);
  }
  child = join(built, 'evidence', 'child.js');
  await writeFile(child, CHILD);
});
afterAll(async () => {
  await rm(built, { recursive: true, force: true });
});
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cordon-evidence-'));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

const start = (what: string, me: string): ChildProcess => fork(child, [root, what, me]);

test('six processes append at the same time and the chain holds every entry once', async () => {
  const children = ['a', 'b', 'c', 'd', 'e', 'f'].map((me) => start('append', me));
  expect(await Promise.all(children.map(async (one): Promise<unknown> => (await once(one, 'exit'))[0]))).toEqual([0, 0, 0, 0, 0, 0]);
  const store = await EvidenceStore.open(root, 'i', AT);
  expect(new Set((await store.entries()).map((entry) => entry.key)).size).toBe(151);
  expect(await verifyFolder(store.dir)).toMatchObject({ ok: true, entries: 151, warnings: [] });
});

test('processes killed while they append leave a chain that goes on, with all they were told is sealed', { timeout: 60_000 }, async () => {
  const told = new Set<string>();
  for (let round = 0; round < 8; round++) {
    const children = ['a', 'b', 'c'].map((me) => start('forever', `${me}${round}`));
    const exits = children.map(async (one) => once(one, 'exit'));
    for (const [at, one] of children.entries()) one.on('message', (n) => told.add(`${'abc'[at]}${round}:${JSON.stringify(n)}`));
    await once(children[0] ?? process, 'message');
    await sleep(20 + Math.random() * 60);
    for (const one of children) one.kill('SIGKILL');
    await Promise.all(exits);
  }
  const store = await EvidenceStore.open(root, 'i', AT);
  const { head } = await store.seal({ ...meta, key: 'after' }, {});
  const keys = new Set((await store.entries()).map((entry) => entry.key));
  expect([...told].filter((key) => !keys.has(key))).toEqual([]);
  expect(told.size).toBeGreaterThan(8);
  expect(await verifyFolder(store.dir, { expectHead: head })).toMatchObject({ ok: true });
});

test('200 MB go through in constant memory', { timeout: 120_000 }, async () => {
  const one = fork(child, [root, 'big', 'x'], { silent: true, execArgv: ['--max-old-space-size=64'] });
  const result: unknown = JSON.parse(await text(one.stdout ?? failed()));
  expect(result).toMatchObject({ bytes: 204_288_890, read: 204_288_890 });
  expect(result).toHaveProperty(
    'grownMiB',
    expect.toSatisfy((grown: number) => grown < 150),
  );
});

function failed(): never {
  throw new Error('the child has no output');
}

/** A tmpfs of 256 KiB in a mount namespace of its own, where the system allows one. */
const canMount = ((): boolean => {
  try {
    execFileSync('unshare', ['-Urm', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

async function onTmpfs(script: string): Promise<unknown> {
  const one = spawn('unshare', ['-Urm', 'sh', '-ec', script, 'sh', root, process.execPath, child]);
  return JSON.parse(await text(one.stdout));
}

test.skipIf(!canMount)('a full disk is said as full, and what was sealed before is whole', { timeout: 60_000 }, async () => {
  const kept = join(root, 'kept');
  await mkdir(kept);
  const full = await onTmpfs(
    `mkdir "$1/disk"; mount -t tmpfs -o size=256k tmpfs "$1/disk"; "$2" "$3" "$1/disk" fill x; cp -r "$1/disk/." "$1/kept"`,
  );
  expect(full).toMatchObject({
    name: 'EvidenceError',
    code: 'full',
    message: expect.stringContaining('free space or grow'),
  });
  const dir = join(kept, incidentFolderName('i'));
  expect(await verifyFolder(dir)).toMatchObject({ ok: true, entries: expect.toSatisfy((n: number) => n > 5) });
  const store = await EvidenceStore.open(kept, 'i', AT);
  await store.seal({ ...meta, key: 'after' }, {});
  expect((await verifyFolder(dir)).ok).toBe(true);
});

test.skipIf(!canMount)('a read-only disk is said as readOnly', async () => {
  const refused = await onTmpfs(
    `mkdir "$1/disk"; mount -t tmpfs tmpfs "$1/disk"; mkdir "$1/disk/e"; mount -o remount,ro "$1/disk"; "$2" "$3" "$1/disk/e" append x`,
  );
  expect(refused).toMatchObject({
    name: 'EvidenceError',
    code: 'readOnly',
    message: expect.stringContaining('(EROFS)'),
  });
});
