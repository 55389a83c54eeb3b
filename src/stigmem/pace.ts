import { setTimeout as sleep } from 'node:timers/promises';
import { StigmemHttpError } from './errors.ts';

/** A token bucket names the seconds until the next request is allowed: 1 for reads, 4 for writes. Longer is for people to know of. */
const longestWaitMs = 5_000;
/** So often for one request: then somebody else takes all there is, and status has to say so. */
const tries = 3;

/** Requests that were told to wait try again one after the other: side by side they would take each other's turn for ever. */
let turn: Promise<unknown> = Promise.resolve();

/**
 * Asks, and waits where the node says 429 and for how long. That is its pace, not a failure: a walk over thousands of
 * facts that began anew at each 429 would never end, since the node lets 5,000 reads through at first and then some
 * each second (rate_limit.py). Every other error, and a 429 without an end, is thrown.
 */
export async function atItsPace<T>(ask: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    const ms = waitOf(error);
    if (ms === null) throw error;
    const mine = turn.then(() => inTurn(ask, ms, signal));
    turn = mine.catch(() => undefined);
    return mine;
  }
}

async function inTurn<T>(ask: () => Promise<T>, firstMs: number, signal: AbortSignal | undefined): Promise<T> {
  let waitMs = firstMs;
  for (let tried = 1; ; tried += 1) {
    await sleep(waitMs, undefined, signal === undefined ? {} : { signal });
    try {
      return await ask();
    } catch (error) {
      const ms = waitOf(error);
      if (ms === null || tried === tries) throw error;
      waitMs = ms;
    }
  }
}

function waitOf(error: unknown): number | null {
  const ms = error instanceof StigmemHttpError && error.status === 429 ? error.retryAfterMs : null;
  return ms !== null && ms <= longestWaitMs ? ms : null;
}
