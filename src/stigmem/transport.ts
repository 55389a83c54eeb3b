import { Pool } from 'undici';
import { z } from 'zod';
import { readAnswer } from './answer.ts';
import { StigmemError, StigmemNetworkError, StigmemTimeoutError, type CallSite } from './errors.ts';
import { safeExcerpt } from './text.ts';

const MAX_REASON_CHARS = 200;
const TIMEOUT_CODES = new Set(['UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT']);

export interface TransportOptions {
  /** Scheme, host, port and optional path prefix; user info is refused, since it would end up in logs. */
  readonly url: string;
  readonly timeoutMs: number;
  readonly maxBytes: number;
  /** Never shown in any message, even where the server echoes them. */
  readonly secrets: readonly string[];
}

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Call<T> {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Already percent-encoded; sent as it stands, with no dot-segment folding. */
  readonly path: string;
  readonly schema: z.ZodType<T>;
  readonly query?: Query;
  readonly body?: unknown;
  readonly bearer?: string;
  /** `text/csv` hands the schema a list of rows, each a list of strings. Default: JSON. */
  readonly accept?: 'text/csv' | undefined;
  readonly signal?: AbortSignal | undefined;
  /** For a question that takes the node long. @default the transport's own */
  readonly timeoutMs?: number | undefined;
}

/** JSON over HTTP, one try a call: the caller's retry layer is the only one. */
export class Transport {
  readonly #pool: Pool;
  readonly #prefix: string;
  readonly #options: TransportOptions;

  constructor(options: TransportOptions) {
    const url = new URL(options.url);
    if (url.protocol !== 'http:' && url.protocol !== 'https:') throw new TypeError('url: expected http: or https:');
    if (url.username !== '' || url.password !== '') throw new TypeError('url: expected no user name or password');
    this.#prefix = url.pathname.replace(/\/+$/, '');
    this.#options = options;
    this.#pool = new Pool(url.origin, { connections: 16, connect: { timeout: options.timeoutMs } });
  }

  /** The parsed answer. Throws the errors of errors.ts, or the reason of `call.signal` once that has fired. */
  async send<T>(call: Call<T>): Promise<T> {
    const site: CallSite = { method: call.method, path: safeExcerpt(call.path, this.#options.secrets, 300) };
    const deadline = new AbortController();
    const timeoutMs = call.timeoutMs ?? this.#options.timeoutMs;
    const timer = setTimeout(() => deadline.abort(), timeoutMs);
    const signal = call.signal === undefined ? deadline.signal : AbortSignal.any([deadline.signal, call.signal]);
    try {
      const answer = await this.#pool.request({
        method: call.method,
        path: this.#prefix + call.path + queryString(call.query),
        headers: requestHeaders(call),
        body: call.body === undefined ? null : JSON.stringify(call.body),
        signal,
        // The deadline above is the only one.
        headersTimeout: 0,
        bodyTimeout: 0,
      });
      return await readAnswer(site, answer, call, this.#options);
    } catch (error) {
      if (call.signal?.aborted === true) throw call.signal.reason;
      if (error instanceof StigmemError) throw error;
      const code = errnoOf(error);
      if (deadline.signal.aborted || (code !== null && TIMEOUT_CODES.has(code))) {
        throw new StigmemTimeoutError(site, timeoutMs);
      }
      throw new StigmemNetworkError(
        site,
        { errno: code, text: safeExcerpt(messageOf(error), this.#options.secrets, MAX_REASON_CHARS) },
        error,
      );
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends open connections at once. */
  async close(): Promise<void> {
    await this.#pool.destroy();
  }
}

function requestHeaders(call: Call<unknown>): Record<string, string> {
  return {
    accept: call.accept ?? 'application/json',
    ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
    ...(call.bearer === undefined ? {} : { authorization: `Bearer ${call.bearer}` }),
  };
}

function queryString(query: Query = {}): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) params.set(name, String(value));
  }
  const text = params.toString();
  return text === '' ? '' : `?${text}`;
}

const Failure = z.object({ code: z.string() });
const Aggregate = z.object({ errors: z.array(z.unknown()).min(1) });

function errnoOf(error: unknown): string | null {
  const own = Failure.safeParse(error);
  if (own.success) return own.data.code;
  const several = Aggregate.safeParse(error);
  return several.success ? errnoOf(several.data.errors[0]) : null;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : 'unknown failure';
}
