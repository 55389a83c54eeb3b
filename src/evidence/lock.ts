import { randomUUID } from 'node:crypto';
import { link, readdir, readFile, stat, truncate, unlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { EvidenceError, errnoOf, guarded } from './errors.ts';
import { makeDir } from './objects.ts';

const WAIT_MS = 30_000;
/** A holder on another host (a shared volume) can't be asked whether it lives: after this long it counts as dead. */
const FOREIGN_STALE_MS = 60_000;
const CLAIM_STALE_MS = 3_600_000;

const queues = new Map<string, Promise<unknown>>();
/** Claims of this process that could not be released: the disk failed. They hold nothing. */
const unreleased = new Set<string>();

/**
 * Runs `work` while no other process on this machine holds the lock kept in the folder `dir`.
 *
 * Claims are files named 1, 2, 3, …: the highest decides. An empty one is released, one whose owner is dead is free;
 * the next claim is made by link(2), which only one process can win. Numbers never come back, so a slow process can't
 * take a lock that was taken over meanwhile (the flaw of "delete the stale file, then create it"). A holder that is
 * stopped, not dead, keeps the lock. Releasing needs no disk space.
 *
 * Throws EvidenceError `io` after `waitMs`, naming the holder, or what `work` throws.
 */
export async function withLock<T>(dir: string, work: () => Promise<T>, waitMs = WAIT_MS): Promise<T> {
  const before = queues.get(dir) ?? Promise.resolve();
  const mine = before.then(() => locked(dir, work, waitMs));
  const settled = mine.catch(() => undefined);
  queues.set(dir, settled);
  try {
    return await mine;
  } finally {
    if (queues.get(dir) === settled) queues.delete(dir);
  }
}

async function locked<T>(dir: string, work: () => Promise<T>, waitMs: number): Promise<T> {
  const held = await guarded(dir, 'taking the lock', () => acquire(dir, waitMs));
  try {
    return await work();
  } finally {
    await truncate(held, 0).catch(() => unreleased.add(held));
  }
}

async function acquire(dir: string, waitMs: number): Promise<string> {
  await makeDir(dir);
  const claim = join(dir, `claim-${randomUUID()}`);
  try {
    await writeFile(claim, JSON.stringify(await self()), { flag: 'wx', mode: 0o600 });
    const deadline = Date.now() + waitMs;
    for (;;) {
      const top = await highest(dir);
      if ((top === 0 || (await isFree(join(dir, String(top))))) && (await tryLink(claim, join(dir, String(top + 1))))) {
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

async function isFree(file: string): Promise<boolean> {
  if (unreleased.has(file)) return true;
  let text: string;
  let ageMs: number;
  try {
    text = await readFile(file, 'utf8');
    ageMs = Date.now() - (await stat(file)).mtimeMs;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
  if (text === '') return true;
  const [host, pid, started] = text
    .slice(1, -1)
    .split(',')
    .map((part) => part.replaceAll('"', ''));
  if (host !== hostname() || pid === undefined || !/^[1-9][0-9]*$/.test(pid)) return ageMs > FOREIGN_STALE_MS;
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
