import { randomUUID } from 'node:crypto';
import { link, readdir, readFile, stat, truncate, unlink, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { EvidenceError, errnoOf, guarded } from './errors.ts';
import { makeDir } from './objects.ts';

/** Well above FOREIGN_STALE_MS: what a dead host left is taken over within one wait, and no caller sees a failure. */
const WAIT_MS = 30_000;
/** How often a holder shows that it lives. The three touches it may miss are for a slow disk or a busy process. */
const TOUCH_MS = 3_000;
/**
 * A holder on another host (a shared volume) can't be asked whether it lives: without a touch for this long it counts
 * as dead. With the 5 s in which Temporal misses a worker, the next one goes on within 15 s.
 */
const FOREIGN_STALE_MS = 10_000;
const CLAIM_STALE_MS = 3_600_000;

const queues = new Map<string, Promise<unknown>>();
/** Claims of this process that could not be released: the disk failed. They hold nothing. */
const unreleased = new Set<string>();

/** `waitMs`: how long to wait for the lock · `touchMs`, `staleMs`: how a holder on another host is known to live. */
export interface LockTimes {
  readonly waitMs?: number;
  readonly touchMs?: number;
  readonly staleMs?: number;
}

/**
 * Runs `work` while no other process, here or on a host that shares the volume, holds the lock kept in the folder `dir`.
 *
 * Claims are files named 1, 2, 3, …: the highest decides. An empty one is released, one whose owner is dead is free;
 * the next claim is made by link(2), which only one process can win. Numbers never come back, so a slow process can't
 * take a lock that was taken over meanwhile (the flaw of "delete the stale file, then create it"). A holder that is
 * stopped, not dead, keeps the lock on its own host; other hosts can't tell the two apart and take it over. Releasing
 * needs no disk space.
 *
 * Throws EvidenceError `io` after `waitMs`, naming the holder, or if the lock was taken over while `work` ran, so that
 * what was done without it is looked at again; or what `work` throws.
 */
export async function withLock<T>(dir: string, work: () => Promise<T>, times: LockTimes = {}): Promise<T> {
  const before = queues.get(dir) ?? Promise.resolve();
  const mine = before.then(() => locked(dir, work, times));
  const settled = mine.catch(() => undefined);
  queues.set(dir, settled);
  try {
    return await mine;
  } finally {
    if (queues.get(dir) === settled) queues.delete(dir);
  }
}

async function locked<T>(dir: string, work: () => Promise<T>, times: LockTimes): Promise<T> {
  const { waitMs = WAIT_MS, touchMs = TOUCH_MS, staleMs = FOREIGN_STALE_MS } = times;
  const held = await guarded(dir, 'taking the lock', () => acquire(dir, waitMs, silence(staleMs)));
  const stopTouching = keepTouched(held, touchMs);
  try {
    const result = await work();
    if (await isLost(held)) throw new EvidenceError('io', held, 'the lock was taken over while this process held it; try again');
    return result;
  } finally {
    await stopTouching();
    await truncate(held, 0).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') unreleased.add(held);
    });
  }
}

/** Touches the claim until it is lost or the returned function is called; after that has resolved nothing touches it. */
function keepTouched(held: string, touchMs: number): () => Promise<void> {
  let stopped = false;
  let touching = Promise.resolve();
  const touch = async (): Promise<void> => {
    if (await isLost(held)) return;
    const now = new Date();
    // It makes no file: a claim that is gone stays gone. A disk that fails may recover: the next touch tries again.
    await utimes(held, now, now).catch(() => undefined);
    if (!stopped) timer = later();
  };
  // One after the other: on a disk that hangs they would pile up.
  const later = (): NodeJS.Timeout =>
    setTimeout(() => {
      touching = touch();
    }, touchMs).unref();
  let timer = later();
  return async () => {
    stopped = true;
    clearTimeout(timer);
    await touching;
  };
}

/** Is this no longer the claim that decides? A folder that can't be read does not say so. */
async function isLost(held: string): Promise<boolean> {
  try {
    return (await highest(dirname(held))) !== Number(basename(held));
  } catch (error) {
    return errnoOf(error) === 'ENOENT';
  }
}

/** Was the claim, last touched at `mtimeMs`, read at `readMs`, not touched for too long? */
type Silent = (file: string, mtimeMs: number, readMs: number) => boolean;

/**
 * Counts from when this waiter first saw the claim as it is, on its own monotonic clock. The time of a touch is only
 * held against that of the one before: the clocks of two hosts and of a network file system need not agree, and a
 * machine that slept finds nobody dead. The price is that even a claim of yesterday is watched for `staleMs`.
 */
function silence(staleMs: number): Silent {
  let seen = '';
  let sinceMs = 0;
  return (file, mtimeMs, readMs) => {
    const touch = `${file} ${mtimeMs}`;
    // Now, not `readMs`: a waiter that was stopped in between knows only from here on.
    if (touch !== seen) sinceMs = performance.now();
    seen = touch;
    return readMs - sinceMs > staleMs;
  };
}

async function acquire(dir: string, waitMs: number, silent: Silent): Promise<string> {
  await makeDir(dir);
  const claim = join(dir, `claim-${randomUUID()}`);
  try {
    await writeFile(claim, JSON.stringify(await self()), { flag: 'wx', mode: 0o600 });
    const deadline = Date.now() + waitMs;
    for (;;) {
      const top = await highest(dir);
      if ((top === 0 || (await isFree(join(dir, String(top)), silent))) && (await tryLink(claim, join(dir, String(top + 1))))) {
        // A number that was cleaned away can be claimed once more, below the real top: that claim is void.
        if ((await highest(dir)) === top + 1) {
          await cleanUp(dir, top + 1);
          return join(dir, String(top + 1));
        }
      }
      if (Date.now() > deadline) throw await tooLong(join(dir, String(top)), waitMs);
      await sleep(2 + Math.random() * 10);
    }
  } finally {
    await unlink(claim).catch(() => undefined);
  }
}

async function highest(dir: string): Promise<number> {
  let top = 0;
  for (const name of await readdir(dir)) if (/^[1-9][0-9]{0,14}$/.test(name)) top = Math.max(top, Number(name));
  return top;
}

async function tryLink(claim: string, to: string): Promise<boolean> {
  try {
    await link(claim, to);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  }
}

async function isFree(file: string, silent: Silent): Promise<boolean> {
  if (unreleased.has(file)) return true;
  const readMs = performance.now();
  let text: string;
  let mtimeMs: number;
  try {
    // In this order: opening a file is what makes an NFS client ask the server, else it repeats an old time for a minute.
    text = await readFile(file, 'utf8');
    ({ mtimeMs } = await stat(file));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
  if (text === '') return true;
  const [host, pid, started] = text
    .slice(1, -1)
    .split(',')
    .map((part) => part.replaceAll('"', ''));
  if (host !== hostname() || pid === undefined || !/^[1-9][0-9]*$/.test(pid)) return silent(file, mtimeMs, readMs);
  const now = await startOf(Number(pid));
  return now === undefined || (started !== '' && now !== '' && now !== started);
}

async function self(): Promise<readonly [string, string, string]> {
  return [hostname(), String(process.pid), (await startOf(process.pid)) ?? ''];
}

/** When the process started, as boot id and clock ticks; '' where the system does not tell; undefined if it is dead. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return undefined;
  }
  try {
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    const line = await readFile(`/proc/${pid}/stat`, 'utf8');
    // Field 22; counted after the name, which may hold spaces. Field 3 is the state: a zombie holds nothing.
    const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : `${boot.trim()}:${fields[19] ?? ''}`;
  } catch {
    return '';
  }
}

async function cleanUp(dir: string, mine: number): Promise<void> {
  for (const name of await readdir(dir)) {
    const file = join(dir, name);
    const old = /^[1-9][0-9]*$/.test(name)
      ? Number(name) < mine
      : name.startsWith('claim-') &&
        Date.now() -
          (await stat(file).then(
            (s) => s.mtimeMs,
            () => Date.now(),
          )) >
          CLAIM_STALE_MS;
    if (old) await unlink(file).catch(() => undefined);
  }
}

async function tooLong(file: string, waitMs: number): Promise<EvidenceError> {
  const holder = await readFile(file, 'utf8').catch(() => 'unknown');
  const text = `waited ${waitMs / 1000} s for another process to finish writing (host, process, start: ${holder}); if that process hangs, end it; the lock then frees itself`;
  return new EvidenceError('io', file, text);
}
