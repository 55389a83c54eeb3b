import { request } from 'undici';
import { canonicalJson, sha256Id } from '../contract/canonical.ts';

/** What is known after a POST that was answered. Holds no URL: the webhook's is a secret. */
export interface Receipt {
  readonly status: number;
  /** `sha256:<hex>` of the body that was sent. */
  readonly bodyHash: string;
  readonly idempotencyKey: string;
}

/** The POST failed or was not accepted. Neither message nor cause holds the URL or anything that came back. */
export class WebhookError extends Error {
  override readonly name = 'WebhookError';
}

const defaultTimeoutMs = 10_000;

/**
 * Posts `body` as canonical JSON, once, following no redirect. Resolves only for a 2xx.
 * @param effect - what makes a repeat recognisable to the receiver, together with the body
 */
export async function postWebhook(
  url: string,
  effect: string,
  body: object,
  { timeoutMs = defaultTimeoutMs, signal }: { timeoutMs?: number; signal?: AbortSignal } = {},
): Promise<Receipt> {
  const text = canonicalJson(body);
  const bodyHash = sha256Id(text);
  // The same effect with another text is another message: a receiver that drops repeats must not drop it.
  const idempotencyKey = `${effect.replace(/[^\x21-\x7e]/g, '_')}:${bodyHash.slice(7, 19)}`;
  const timeout = AbortSignal.timeout(timeoutMs);
  let status: number;
  try {
    const answer = await request(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': idempotencyKey, 'user-agent': 'cordon' },
      body: text,
      signal: signal ? AbortSignal.any([timeout, signal]) : timeout,
    });
    status = answer.statusCode;
    await answer.body.dump({ limit: 65_536 }).catch(() => undefined);
  } catch (error) {
    if (signal?.aborted === true) throw signal.reason;
    throw new WebhookError(`the webhook did not answer: ${timeout.aborted ? `no answer within ${timeoutMs} ms` : codeOf(error)}`);
  }
  if (status >= 200 && status < 300) return { status, bodyHash, idempotencyKey };
  const redirect = status >= 300 && status < 400 ? ' (redirects are not followed)' : '';
  throw new WebhookError(`the webhook answered HTTP ${status}${redirect}`);
}

/** The bare error code: messages of HTTP clients name the URL. */
function codeOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return /^[A-Z_0-9]{2,40}$/.test(code) ? code : 'the request failed';
}
