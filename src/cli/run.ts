import { existsSync } from 'node:fs';
import { parseChatConfig, parseHostConfig, parseWorkerConfig } from '../config.ts';
import type { Answer, Cli } from './cli.ts';
import { CliError } from './exit.ts';

// Loaded when asked for: no other command pays for the worker's native code.
const parts = {
  demo: { file: 'demo/main', run: 'runDemo' },
} as const;
type Part = keyof typeof parts;

/** Where a part lies beside this file, from the sources as well as from the build; undefined if it is not built. */
function partUrl(part: Part): URL | undefined {
  const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js';
  const url = new URL(`../${parts[part].file}${extension}`, import.meta.url);
  return existsSync(url) ? url : undefined;
}

/** Is this part there? What is not is no command. */
export function hasPart(part: Part): boolean {
  return partUrl(part) !== undefined;
}

async function call(part: Part, ...args: unknown[]): Promise<unknown> {
  const url = partUrl(part);
  const loaded: unknown = url === undefined ? undefined : await import(url.href);
  const { run } = parts[part];
  const found: unknown = typeof loaded === 'object' && loaded !== null ? Object.getOwnPropertyDescriptor(loaded, run)?.value : undefined;
  if (typeof found !== 'function') throw new CliError('failed', `${part} is not in this version`, 'cordon --help');
  const result: unknown = await Reflect.apply(found, undefined, args);
  return result;
}

/** `worker`: runs until it is stopped. Bad configuration, or no Temporal, ends it at once with its own exit code. */
export async function worker(cli: Cli): Promise<Answer> {
  parseWorkerConfig(cli.io.env);
  await cli.temporal();
  const { runWorker } = await import('../worker.ts');
  await runWorker();
  return { next: 'the worker has stopped', text: [], json: {}, silent: true };
}

/** `host-worker`: runs until it is stopped. Bad configuration, no Temporal, or a database it does not know ends it at once. */
export async function hostWorker(cli: Cli): Promise<Answer> {
  parseHostConfig(cli.io.env);
  const { runHostWorker } = await import('../host-worker.ts');
  await runHostWorker(async () => void (await cli.temporal()));
  return { next: 'the host worker has stopped', text: [], json: {}, silent: true };
}

/** `chat`: runs until it is stopped. Bad configuration ends it at once; a server that does not answer is waited for. */
export async function chat(cli: Cli): Promise<Answer> {
  parseChatConfig(cli.io.env);
  const { runChat } = await import('../chat/main.ts');
  await runChat(cli.io.env);
  return { next: 'chat has stopped', text: [], json: {}, silent: true };
}

/** `demo`: the whole runbook on this machine. */
export async function demo(args: readonly string[]): Promise<Answer> {
  const code = await call('demo', [...args]);
  const failed = typeof code === 'number' && code !== 0;
  return { next: failed ? 'the demo failed' : 'the demo is over', text: [], json: {}, exit: failed ? 'failed' : 'ok' };
}
