import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

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
  await expect(withLock(dir, async () => 'mine', { waitMs: 50 })).rejects.toMatchObject({ code: 'io', file: join(dir, '9') });
  await writeFile(join(dir, '9'), JSON.stringify([hostname(), String(process.pid), 'another boot:1']));
  expect(await withLock(dir, async () => 'reused pid')).toBe('reused pid');
});

test('a lock that could not be released, since the disk failed, is no lock for the process that held it', async () => {
  await withLock(root, async () => {
    // A folder in its place can't be emptied, as no file of a disk that failed can.
    await rm(join(root, '1'));
    await mkdir(join(root, '1'));
  });
  expect(await withLock(root, () => Promise.resolve('mine'), { waitMs: 2_000 })).toBe('mine');
});

describe('a lock of another host', () => {
  const FOREIGN = JSON.stringify(['another-host', '1', '']);
  /** The same folder by another name: within one process calls for one name queue up and never meet on the disk. */
  const alias = (): string => `${root}/.`;
  const touchedMs = async (name: string): Promise<number> => (await stat(join(root, name))).mtimeMs;

  test.each([
    ['now', 0],
    ['an hour ago by this clock', -3_600_000],
    ['in an hour by this clock', 3_600_000],
  ])('that was touched %s is waited for: the clocks of two hosts need not agree', async (_, byMs) => {
    const file = join(root, '4');
    await writeFile(file, FOREIGN);
    const at = new Date(Date.now() + byMs);
    await utimes(file, at, at);
    await expect(withLock(root, async () => 'mine', { waitMs: 100 })).rejects.toMatchObject({ code: 'io', file });
    expect(await readdir(root)).toEqual(['4']);
  });

  test('is taken over once a waiter saw it untouched for longer than the stale time, and not before', async () => {
    await writeFile(join(root, '4'), FOREIGN);
    const from = performance.now();
    expect(await withLock(root, async () => readdir(root), { staleMs: 300 })).toEqual(['5']);
    expect(performance.now() - from).toBeGreaterThan(300);
  });

  test('is not taken over from a holder that works for longer than the stale time: it touches its claim', async () => {
    let refused: unknown;
    const held = withLock(
      root,
      async () => {
        // In place, as if this process ran elsewhere.
        await writeFile(join(root, '1'), FOREIGN);
        const before = await touchedMs('1');
        refused = await withLock(alias(), async () => 'mine', { waitMs: 1_600, staleMs: 1_000 }).catch((error: unknown) => error);
        expect(await touchedMs('1')).toBeGreaterThan(before);
        return 'worked to its end';
      },
      { touchMs: 50 },
    );
    expect(await held).toBe('worked to its end');
    expect(refused).toMatchObject({ code: 'io', file: join(root, '1'), message: expect.stringContaining('another-host') });
    expect(await withLock(alias(), async () => 'mine', { waitMs: 2_000 })).toBe('mine');
  });

  test('that took over is left alone by the holder that comes back, which is told', async () => {
    const held = withLock(
      root,
      async () => {
        await writeFile(join(root, '2'), FOREIGN);
        // A touch that was under way may still come.
        await sleep(50);
        const before = [await touchedMs('1'), await touchedMs('2')];
        await sleep(50);
        expect([await touchedMs('1'), await touchedMs('2')]).toEqual(before);
        return 'done without the lock';
      },
      { touchMs: 5 },
    );
    await expect(held).rejects.toMatchObject({ code: 'io', file: join(root, '1'), message: expect.stringContaining('taken over') });
    expect(await readFile(join(root, '2'), 'utf8')).toBe(FOREIGN);
  });

  test('is not touched after its release', async () => {
    await withLock(root, () => sleep(100), { touchMs: 5 });
    const released = await touchedMs('1');
    await sleep(100);
    expect(await touchedMs('1')).toBe(released);
    expect(await readFile(join(root, '1'), 'utf8')).toBe('');
  });

  test('is not made again by a touch, neither while it is held nor after its release', async () => {
    const held = withLock(
      root,
      async () => {
        await rm(join(root, '1'));
        await sleep(100);
      },
      { touchMs: 5 },
    );
    await expect(held).rejects.toMatchObject({ code: 'io', file: join(root, '1') });
    await sleep(50);
    expect(await readdir(root)).toEqual([]);
  });
});
