import { STATUS_CODES, type IncomingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import { z } from 'zod';
import { parseCsv } from './csv.ts';
import { StigmemHttpError, StigmemSchemaError, StigmemTooLargeError, type CallSite } from './errors.ts';
import { parseRetryAfter, safeExcerpt } from './text.ts';

const MAX_DETAIL_CHARS = 300;
const MAX_EXCERPT_CHARS = 200;
/** Error bodies are read no further than this: only an excerpt is kept. */
const MAX_ERROR_BODY_BYTES = 64 * 1024;

export interface RawAnswer {
  readonly statusCode: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Readable;
}

export interface Expected<T> {
  readonly schema: z.ZodType<T>;
  readonly accept?: 'text/csv' | undefined;
}

export interface Limits {
  readonly maxBytes: number;
  readonly secrets: readonly string[];
}

/** The JSON (or the CSV rows) of a 2xx answer through its schema. Throws StigmemHttpError, StigmemSchemaError or StigmemTooLargeError. */
export async function readAnswer<T>(site: CallSite, answer: RawAnswer, expected: Expected<T>, limits: Limits): Promise<T> {
  const { statusCode, headers, body } = answer;
  if (statusCode < 200 || statusCode > 299) {
    const { text } = await readText(body, MAX_ERROR_BODY_BYTES);
    throw new StigmemHttpError(site, {
      status: statusCode,
      statusText: STATUS_CODES[statusCode] ?? '',
      detail: safeExcerpt(detailOf(statusCode, headers, text), limits.secrets, MAX_DETAIL_CHARS),
      retryAfterMs: parseRetryAfter(headers['retry-after'], Date.now()),
    });
  }
  const { text, whole } = await readText(body, limits.maxBytes);
  if (!whole) throw new StigmemTooLargeError(site, limits.maxBytes);
  return parseText(site, text, headers['content-type'] ?? '', expected, limits);
}

const JSON_FORMAT = { name: 'application/json', type: /^application\/([\w.-]+\+)?json\b/i, parse: jsonOrNull };
const CSV_FORMAT = { name: 'text/csv', type: /^text\/csv\b/i, parse: parseCsv };

function parseText<T>(site: CallSite, text: string, type: string, { schema, accept }: Expected<T>, { secrets }: Limits): T {
  const format = accept === undefined ? JSON_FORMAT : CSV_FORMAT;
  const mismatch = (field: string, expected: string, came: string): StigmemSchemaError =>
    new StigmemSchemaError(site, {
      field: safeExcerpt(field, secrets, MAX_EXCERPT_CHARS),
      expected: safeExcerpt(expected, secrets, MAX_EXCERPT_CHARS),
      came: safeExcerpt(came, secrets, MAX_EXCERPT_CHARS),
    });
  if (text.trim() === '') throw mismatch('body', format.name, 'an empty body');
  if (!format.type.test(type)) throw mismatch('content-type', format.name, `${type === '' ? 'none' : type}: ${text}`);
  const value = format.parse(text);
  if (value === null) throw mismatch('body', format.name, `${text.length} characters that are not complete: ${text}`);
  const parsed = schema.safeParse(value, { reportInput: true });
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const field = issue === undefined || issue.path.length === 0 ? 'body' : issue.path.map(String).join('.');
  throw mismatch(field, expectation(issue), inWords(issue?.input ?? (field === 'body' ? value : undefined)));
}

/** FastAPI answers {"detail": string | object | list}; proxies answer HTML. */
function detailOf(status: number, headers: IncomingHttpHeaders, text: string): string {
  if (status >= 300 && status < 400) return `redirect refused (to ${headers.location ?? 'nowhere'})`;
  const parsed = z.object({ detail: z.unknown() }).safeParse(jsonOrNull(text));
  if (parsed.success && parsed.data.detail !== undefined) {
    return typeof parsed.data.detail === 'string' ? parsed.data.detail : JSON.stringify(parsed.data.detail);
  }
  return text.replace(/<(script|style)\b[^]*?<\/\1>/gi, ' ').replace(/<[^>]*>/g, ' ');
}

/** At most `maxBytes`; leaving the loop early destroys the stream, which frees the connection. */
export async function readText(body: Readable, maxBytes: number): Promise<{ text: string; whole: boolean }> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  let whole = true;
  for await (const chunk of body) {
    if (!(chunk instanceof Uint8Array)) throw new TypeError('expected the body in bytes');
    size += chunk.byteLength;
    if (size > maxBytes) {
      whole = false;
      break;
    }
    chunks.push(chunk);
  }
  return { text: Buffer.concat(chunks).toString('utf8'), whole };
}

function jsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export function expectation(issue: z.core.$ZodIssue | undefined): string {
  if (issue === undefined) return 'another shape';
  return issue.code === 'invalid_type' ? issue.expected : issue.message;
}

export function inWords(value: unknown): string {
  if (value === null) return 'null';
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object') return `an object with ${Object.keys(value).slice(0, 8).join(', ') || 'no fields'}`;
  return `${typeof value} ${JSON.stringify(value)}`;
}
