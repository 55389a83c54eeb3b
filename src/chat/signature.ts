import { createHmac, timingSafeEqual } from 'node:crypto';

/** How far a request's time may be from ours, before and after: https://docs.slack.dev/authentication/verifying-requests-from-slack */
export const windowSeconds = 5 * 60;

export type Refusal = 'no signature' | 'no timestamp' | 'stale' | 'from the future' | 'wrong signature' | 'seen before';

/** What came with a request. */
export interface Signed {
  readonly timestamp: string | undefined;
  readonly signature: string | undefined;
  /** As it came, before anything decodes it. */
  readonly body: Uint8Array;
}

/** Slack's v0 scheme: HMAC-SHA256 over `v0:<timestamp>:<body>`. */
export function slackSignature(secret: string, timestamp: string, body: Uint8Array): string {
  return `v0=${createHmac('sha256', secret).update(`v0:${timestamp}:`).update(body).digest('hex')}`;
}

/**
 * Takes each request that Slack signed once, within five minutes on either side of its time. Bolt checks only that a
 * request is not too old, and remembers nothing: a click that somebody recorded could be sent again for five minutes.
 */
export class SignatureCheck {
  readonly #secret: string;
  /** Signatures that were taken, with the time (s) after which they are stale anyway. In the order they came. */
  readonly #taken = new Map<string, number>();

  constructor(secret: string) {
    this.#secret = secret;
  }

  /** Why it is refused; undefined: it is from Slack, and new. */
  take({ timestamp, signature, body }: Signed, nowMs: number): Refusal | undefined {
    if (signature === undefined || !/^v0=[0-9a-f]{64}$/.test(signature)) return 'no signature';
    if (timestamp === undefined || !/^[0-9]{1,12}$/.test(timestamp)) return 'no timestamp';
    const now = Math.floor(nowMs / 1_000);
    const at = Number(timestamp);
    if (at < now - windowSeconds) return 'stale';
    if (at > now + windowSeconds) return 'from the future';
    const expected = slackSignature(this.#secret, timestamp, body);
    // Both are 67 ASCII characters here, so the comparison itself never throws and takes the same time for all.
    if (!timingSafeEqual(Buffer.from(signature), Buffer.from(expected))) return 'wrong signature';
    this.#forget(now);
    if (this.#taken.has(signature)) return 'seen before';
    this.#taken.set(signature, at + windowSeconds);
    return undefined;
  }

  #forget(now: number): void {
    for (const [signature, until] of this.#taken) if (until < now) this.#taken.delete(signature);
  }
}
