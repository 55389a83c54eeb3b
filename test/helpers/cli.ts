import type { Io } from '../../src/cli/cli.ts';
import { runCli } from '../../src/cli/program.ts';
import type { Env } from '../../src/config.ts';

/** What one run of the program left behind. */
export interface CliRun {
  code: number;
  out: string;
  err: string;
  ms: number;
  /** The JSON answer, for runs with `--json`. */
  json: () => unknown;
}

/** Runs the program in this process, as a script would: no terminal, no colour, nobody to ask. */
export async function cordon(args: string[], env: Env = {}, io: Partial<Io> = {}): Promise<CliRun> {
  const out: string[] = [];
  const err: string[] = [];
  const started = Date.now();
  const code = await runCli(args, {
    // No profile file of whoever runs the tests.
    env: { TEMPORAL_CONFIG_FILE: '/nonexistent/temporal.toml', TEMPORAL_ADDRESS: '127.0.0.1:1', ...env },
    out: (text) => void out.push(text),
    err: (text) => void err.push(text),
    isTerminal: false,
    errIsTerminal: false,
    ask: undefined,
    columns: 80,
    now: () => Date.now(),
    ...io,
  });
  const text = out.join('\n');
  return {
    code,
    out: text,
    err: err.join('\n'),
    ms: Date.now() - started,
    json: () => {
      const value: unknown = JSON.parse(text);
      return value;
    },
  };
}
