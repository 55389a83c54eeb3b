/**
 * What can go wrong when a Stigmem node is asked. Branch on `code`, never on messages.
 * No message, detail or excerpt holds a key or bearer token: the transport redacts before it builds one.
 */
export type StigmemErrorCode =
  | 'STIGMEM_NETWORK'
  | 'STIGMEM_TIMEOUT'
  | 'STIGMEM_HTTP'
  | 'STIGMEM_SCHEMA'
  | 'STIGMEM_IDENTITY'
  | 'STIGMEM_TOO_LARGE';

/** Where a call went: `GET /v1/federation/peers`. The query is left out: it may hold long or hostile strings. */
export interface CallSite {
  readonly method: string;
  readonly path: string;
}

/** Base of everything this folder throws on purpose, but for a caller's own abort reason. */
export abstract class StigmemError extends Error {
  abstract readonly code: StigmemErrorCode;
  readonly method: string;
  readonly path: string;

  constructor(site: CallSite, what: string, options?: { readonly cause?: unknown }) {
    super(`${site.method} ${site.path}: ${what}`, options);
    this.name = new.target.name;
    this.method = site.method;
    this.path = site.path;
  }
}

/** What an operator understands of the commonest system errors; the code itself is always named too. */
const inWords: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused, so nothing listens there',
  ECONNRESET: 'the connection broke before the whole answer came',
  EPIPE: 'the connection broke before the whole answer came',
  UND_ERR_SOCKET: 'the connection broke before the whole answer came',
  ENOTFOUND: 'the host name is not known',
  EAI_AGAIN: 'the host name could not be looked up',
  EHOSTUNREACH: 'the host can not be reached',
  ENETUNREACH: 'the network can not be reached',
};

/** No complete answer came: refused, reset, unresolvable, cut off in the middle. */
export class StigmemNetworkError extends StigmemError {
  readonly code = 'STIGMEM_NETWORK';
  /** System error code such as `ECONNREFUSED`, or null. */
  readonly errno: string | null;

  constructor(site: CallSite, reason: { readonly errno: string | null; readonly text: string }, cause?: unknown) {
    const { errno, text } = reason;
    const known = errno === null ? undefined : inWords[errno];
    const why = known === undefined ? `the connection failed (${errno ?? text})` : `${known} (${errno})`;
    super(site, `expected an answer, came none: ${why}`, { cause });
    this.errno = reason.errno;
  }
}

/** The whole call, connect to last byte, took longer than `timeoutMs`. */
export class StigmemTimeoutError extends StigmemError {
  readonly code = 'STIGMEM_TIMEOUT';
  readonly timeoutMs: number;

  constructor(site: CallSite, timeoutMs: number) {
    super(site, `expected a complete answer within ${timeoutMs} ms, came none`);
    this.timeoutMs = timeoutMs;
  }
}

/** The node answered with a status that is not 2xx; redirects are among them, for they are never followed. */
export class StigmemHttpError extends StigmemError {
  readonly code = 'STIGMEM_HTTP';
  readonly status: number;
  /** The node's own `detail`, redacted, at most 300 characters; empty when it sent none. */
  readonly detail: string;
  /** From `Retry-After`, in milliseconds from now; null when absent or unreadable. */
  readonly retryAfterMs: number | null;

  constructor(
    site: CallSite,
    answer: { readonly status: number; readonly statusText: string; readonly detail: string; readonly retryAfterMs: number | null },
  ) {
    const status = `${answer.status} ${answer.statusText}`.trim();
    super(site, `expected success, came ${answer.detail === '' ? status : `${status}: ${answer.detail}`}`);
    this.status = answer.status;
    this.detail = answer.detail;
    this.retryAfterMs = answer.retryAfterMs;
  }
}

/**
 * The call succeeded but what came is not what this version of the node is known to send.
 * Deliberately no StigmemHttpError: nobody should retry, or blame the network, on its account.
 */
export class StigmemSchemaError extends StigmemError {
  readonly code = 'STIGMEM_SCHEMA';
  /** Dotted path of the field, `body` or `content-type`. */
  readonly field: string;
  readonly expected: string;
  /** In words, redacted, at most 200 characters. */
  readonly came: string;

  constructor(site: CallSite, mismatch: { readonly field: string; readonly expected: string; readonly came: string }) {
    super(site, `unexpected answer: ${mismatch.field}: expected ${mismatch.expected}, came ${mismatch.came}`);
    this.field = mismatch.field;
    this.expected = mismatch.expected;
    this.came = mismatch.came;
  }
}

/** The address answers, but as another node than the one the incident is bound to. */
export class StigmemIdentityError extends StigmemError {
  readonly code = 'STIGMEM_IDENTITY';
  readonly expectedNodeId: string;
  readonly nodeId: string;

  constructor(site: CallSite, expectedNodeId: string, nodeId: string) {
    super(site, `answer from another node: expected node_id ${expectedNodeId}, came ${nodeId}`);
    this.expectedNodeId = expectedNodeId;
    this.nodeId = nodeId;
  }
}

/** The answer is longer than `maxBytes`; reading stopped there. */
export class StigmemTooLargeError extends StigmemError {
  readonly code = 'STIGMEM_TOO_LARGE';
  readonly maxBytes: number;

  constructor(site: CallSite, maxBytes: number) {
    super(site, `expected an answer of at most ${maxBytes} bytes, came a longer one`);
    this.maxBytes = maxBytes;
  }
}
