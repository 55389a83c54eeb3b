import { setTimeout as sleep } from 'node:timers/promises';
import { StigmemHttpError } from './errors.ts';

/** A node's token bucket names the seconds until the next request is allowed; a longer wait is for people to know of. */
const longestWaitMs = 30_000;
/** So often in a row for one request: then somebody else takes all there is, and status has to say so. */
const waitsInARow = 3;

/**
 * Asks, and waits where the node says 429 and for how long. That is its pace, not a failure: a walk over thousands of
 * facts that began anew at each 429 would never end, since the node lets 5,000 reads through at first and then some
 * each second (rate_limit.py). Every other error, and a 429 without an end, is thrown.
 */
export async function atItsPace<T>(ask: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let waits = 0; ; waits += 1) {
    try {
      return await ask();
    } catch (error) {
      const ms = error instanceof StigmemHttpError && error.status === 429 ? error.retryAfterMs : null;
      if (ms === null || ms > longestWaitMs || waits === waitsInARow) throw error;
      await sleep(ms, undefined, signal === undefined ? {} : { signal });
    }
  }
}
