import { isCancel, text } from '@clack/prompts';
import { processEnv } from '../config.ts';
import { runCli } from './program.ts';

// Importing this file runs the program: bin/cordon.js does nothing else.
const { stdin, stdout, stderr } = process;

async function ask(message: string): Promise<string | undefined> {
  const answer = await text({ message });
  return isCancel(answer) ? undefined : answer;
}

// A reader that has seen enough (`cordon plan … | head`) is no failure.
for (const stream of [stdout, stderr]) stream.on('error', () => undefined);

/** Resolves when all that was written is out, or nobody reads it any more. A pipe takes 64 KB at once; a large plan has more. */
async function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => void stream.write('', () => resolve()));
}

const code = await runCli(process.argv.slice(2), {
  env: processEnv(),
  out: (line) => void stdout.write(`${line}\n`),
  err: (line) => void stderr.write(`${line}\n`),
  isTerminal: stdout.isTTY === true,
  errIsTerminal: stderr.isTTY === true,
  ask: stdin.isTTY === true && stdout.isTTY === true ? ask : undefined,
  columns: stdout.columns ?? 80,
  now: () => Date.now(),
});

// Ended here, not when nothing is left to do: a call that the client was about to try again when its connection was
// closed would throw out of its timer, and end an answer that was given with a stack trace and another exit code.
await Promise.all([flushed(stdout), flushed(stderr)]);
process.exit(code);
