import ora from 'ora';
import pc from 'picocolors';
import { ConfigError, parseCliConfig, type CliConfig, type Env } from '../config.ts';
import {
  connectTemporal,
  isNotFound,
  DeadlineExceeded,
  isUnreachable,
  loadTemporalSettings,
  TemporalConfigError,
  type TemporalSession,
} from '../temporal.ts';
import { CliError, exitCodes, type Exit } from './exit.ts';
import { clean } from './text.ts';

/** The world as a command sees it; tests bring their own. */
export interface Io {
  env: Env;
  out: (text: string) => void;
  err: (text: string) => void;
  /** Is standard output (standard error) a terminal? */
  isTerminal: boolean;
  errIsTerminal: boolean;
  /** Asks a person one question; undefined when there is nobody to ask or they gave up. */
  ask: ((question: string) => Promise<string | undefined>) | undefined;
  columns: number;
  now: () => number;
}

/** What a command answers. `next` is the first line: what to do now. */
export interface Answer {
  next: string;
  text: string[];
  json: Record<string, unknown>;
  exit?: Exit;
  /** Nothing is printed: standard output holds log lines only. */
  silent?: boolean;
}

/** What commands share: configuration, connection, colours, spinner. */
export class Cli {
  readonly io: Io;
  readonly json: boolean;
  readonly colors: ReturnType<typeof pc.createColors>;
  #session: TemporalSession | undefined;

  constructor(io: Io, json: boolean) {
    this.io = io;
    this.json = json;
    const { NO_COLOR: noColor, TERM: term } = io.env;
    this.colors = pc.createColors(io.isTerminal && !json && (noColor ?? '') === '' && term !== 'dumb');
  }

  get config(): CliConfig {
    return parseCliConfig(this.io.env);
  }

  get width(): number {
    return Math.min(Math.max(this.io.columns, 60), 160);
  }

  /** Connected to Temporal, once per command. */
  async temporal(): Promise<TemporalSession> {
    void this.config;
    this.#session ??= await connectTemporal(loadTemporalSettings(this.io.env), { timeoutMs: 1_500 });
    return this.#session;
  }

  /** Shows a spinner on standard error while `work` runs, if a person is watching. */
  async working<T>(what: string, work: Promise<T>): Promise<T> {
    if (!this.io.errIsTerminal || this.json) return await work;
    const spinner = ora({ text: what, discardStdin: false }).start();
    return await work.finally(() => spinner.stop());
  }

  /** Runs one command to its end: prints the answer or the error, closes the connection, returns the exit code. */
  async run(command: (cli: Cli) => Promise<Answer>): Promise<number> {
    try {
      return this.#print(await command(this));
    } catch (error) {
      return this.#fail(asCliError(error));
    } finally {
      await this.#session?.close().catch(() => undefined);
    }
  }

  #print({ next, text, json, exit = 'ok', silent = false }: Answer): number {
    const { code } = exitCodes[exit];
    if (silent) return code;
    if (this.json) this.io.out(JSON.stringify({ exitCode: code, next, ...json }, null, 2));
    else this.io.out([this.colors.bold(next), ...text].join('\n'));
    return code;
  }

  #fail(error: CliError): number {
    const { code } = exitCodes[error.exit];
    const { message, next = null } = error;
    if (this.json) this.io.out(JSON.stringify({ exitCode: code, next, error: { kind: error.exit, message } }, null, 2));
    const lines = message.split('\n').map(clean);
    this.io.err([...lines, ...(next === null ? [] : [`next: ${next}`])].map((l, i) => (i === 0 ? `cordon: ${l}` : l)).join('\n'));
    return code;
  }
}

/** Any error as one that says what to do; the only mapping to exit codes. */
export function asCliError(error: unknown): CliError {
  if (error instanceof CliError) return error;
  const message = wholeMessage(error);
  if (error instanceof ConfigError) return new CliError('usage', message, 'docs/reference/config.md lists every variable');
  if (error instanceof TemporalConfigError) return new CliError('usage', message, 'check TEMPORAL_* and the profile file');
  // Where only the worker is late, the command itself has dealt with it: this was the server.
  if (isUnreachable(error) || error instanceof DeadlineExceeded) {
    return new CliError('unreachable', message, 'check TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE, then: cordon doctor');
  }
  if (isNotFound(error)) return new CliError('noIncident', `not found: ${message}`, 'cordon list');
  return new CliError('failed', message, 'cordon doctor');
}

/** The message and those of its causes that add something. */
function wholeMessage(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error ? error.cause.message : '';
  return cause === '' || error.message.includes(cause) ? error.message : `${error.message}: ${cause}`;
}
