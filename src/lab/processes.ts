import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** What to run. `env` is the whole environment of the child, not an addition to ours. */
export interface ProcessSpec {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Standard output and error are appended here. */
  readonly logFile: string;
  /** Resolves to true once the child serves; asked every 100 ms. Its errors count as not yet. */
  readonly ready: () => Promise<boolean>;
  /** @default 60000 */
  readonly readyTimeoutMs?: number;
}

/** A child that can be stopped, killed, and started again with the same arguments. */
export interface ManagedProcess {
  readonly name: string;
  readonly logFile: string;
  readonly pid: number | undefined;
  readonly running: boolean;
  /** Starts and waits until ready; nothing to do when it runs. Throws with the log's tail. */
  start(): Promise<void>;
  /** SIGTERM, then SIGKILL after `graceMs` (default 5000). Resolves when it is gone. */
  stop(graceMs?: number): Promise<void>;
  /** SIGKILL at once. Resolves when it is gone. */
  kill(): Promise<void>;
  /** Resolves when the present child is gone, with its exit code (null after a signal). */
  exited(): Promise<number | null>;
}

const alive = new Set<ChildProcess>();
let watchingExit = false;

function killAll(): void {
  for (const child of alive) child.kill('SIGKILL');
}

/** Children never outlive us: on exit, and on the signals nobody else handles. */
function watchExit(): void {
  if (watchingExit) return;
  watchingExit = true;
  process.on('exit', killAll);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    const handler = (): void => {
      if (process.listenerCount(signal) > 1) return;
      killAll();
      process.removeListener(signal, handler);
      process.kill(process.pid, signal);
    };
    process.on(signal, handler);
  }
}

/** The last lines of a log file, for error messages. Empty when there is none. */
export function logTail(file: string, lines = 20): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  } catch {
    return '';
  }
}

/** Spawns nothing yet: call `start()`. */
export function managedProcess(spec: ProcessSpec): ManagedProcess {
  let child: ChildProcess | undefined;
  let gone: Promise<number | null> = Promise.resolve(null);

  const launch = (): void => {
    watchExit();
    mkdirSync(dirname(spec.logFile), { recursive: true });
    const log = openSync(spec.logFile, 'a');
    const started = spawn(spec.command, spec.args, {
      cwd: spec.cwd,
      env: spec.env,
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    child = started;
    alive.add(started);
    gone = new Promise((resolve) => {
      const done = (code: number | null): void => {
        alive.delete(started);
        if (child === started) child = undefined;
        resolve(code);
      };
      started.once('exit', done);
      started.once('error', () => done(null));
    });
  };

  const signal = async (name: NodeJS.Signals, graceMs: number): Promise<void> => {
    const target = child;
    if (!target) return;
    target.kill(name);
    const timer = setTimeout(() => target.kill('SIGKILL'), graceMs);
    await gone;
    clearTimeout(timer);
  };

  return {
    name: spec.name,
    logFile: spec.logFile,
    get pid() {
      return child?.pid;
    },
    get running() {
      return child !== undefined;
    },
    async start() {
      if (child) return;
      launch();
      const isReady = async (): Promise<boolean> => {
        if (!child) throw new FatalWait(`${spec.name} ended before it was ready`);
        return spec.ready();
      };
      try {
        await waitUntil(`${spec.name} to be ready`, isReady, { timeoutMs: spec.readyTimeoutMs ?? 60_000 });
      } catch (cause) {
        await signal('SIGKILL', 0);
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new Error(`${why}\n${logTail(spec.logFile)}`, { cause });
      }
    },
    stop: (graceMs = 5_000) => signal('SIGTERM', graceMs),
    kill: () => signal('SIGKILL', 0),
    exited: () => gone,
  };
}

class FatalWait extends Error {}

/**
 * Asks `check` again and again until it gives something other than false or undefined.
 * Errors of `check` count as not yet, except when the wait can never succeed. Throws after
 * `timeoutMs` (default 30000) with the last error; asks every `everyMs` (default 100).
 */
export async function waitUntil<T>(
  what: string,
  check: () => Promise<T | false | undefined>,
  options: { readonly timeoutMs?: number; readonly everyMs?: number } = {},
): Promise<T> {
  const timeoutMs = options.timeoutMs ?? 30_000;
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await check();
      if (value !== false && value !== undefined) return value;
    } catch (error) {
      if (error instanceof FatalWait) throw error;
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`, { cause: last });
    await sleep(options.everyMs ?? 100);
  }
}

/** True when a GET answers with any 2xx within a second. */
export async function httpAnswers(url: string): Promise<boolean> {
  const response = await fetch(url, { signal: AbortSignal.timeout(1_000) });
  await response.arrayBuffer();
  return response.ok;
}

/** True when something accepts TCP connections there. */
export function tcpAnswers(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host, timeout: 1_000 });
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => end(true));
    socket.once('timeout', () => end(false));
    socket.once('error', () => end(false));
  });
}
