import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { EvidenceError, toEvidenceError } from '../../src/evidence/errors.ts';
import { withLock } from '../../src/evidence/lock.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';

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

test.each([
  ['ENOSPC', 'full'],
  ['EDQUOT', 'full'],
  ['EROFS', 'readOnly'],
  ['EACCES', 'readOnly'],
  ['EPERM', 'readOnly'],
  ['EIO', 'io'],
])('%s is said as %s, with the file and what to do', (errno, code) => {
  const error = toEvidenceError(Object.assign(new Error('x'), { code: errno }), '/e/index.jsonl', 'appending');
  expect(error).toBeInstanceOf(EvidenceError);
  expect(error).toMatchObject({
    code,
    file: '/e/index.jsonl',
    message: expect.stringMatching(/^\/e\/index\.jsonl: appending: .*again/),
  });
});

test('a file where the root should be is said as io', async () => {
  await writeFile(join(root, 'file'), '');
  await expect(EvidenceStore.open(join(root, 'file'), 'i', AT)).rejects.toMatchObject({ code: 'io' });
});

test('a lock of a dead process is taken over, that of a live one is waited for and then named', async () => {
  const dir = join(root, '.locks', 'x');
  const dead = spawn(process.execPath, ['-e', '0']);
  await once(dead, 'exit');
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, '7'), JSON.stringify([hostname(), String(dead.pid), '']));
  expect(await withLock(dir, async () => 'mine')).toBe('mine');
  await writeFile(join(dir, '9'), JSON.stringify([hostname(), String(process.pid), '']));
  await expect(withLock(dir, async () => 'mine', 50)).rejects.toMatchObject({ code: 'io', file: join(dir, '9') });
  await writeFile(join(dir, '9'), JSON.stringify([hostname(), String(process.pid), 'another boot:1']));
  expect(await withLock(dir, async () => 'reused pid')).toBe('reused pid');
});

test('a lock that could not be released, since the disk failed, is no lock for the process that held it', async () => {
  await withLock(root, async () => {
    // A folder in its place can't be emptied, as no file of a disk that failed can.
    await rm(join(root, '1'));
    await mkdir(join(root, '1'));
  });
  expect(await withLock(root, () => Promise.resolve('mine'), 2_000)).toBe('mine');
});
