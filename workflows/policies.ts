import { proxyActivities } from '@temporalio/workflow';
import type { Activities } from '../activities/index.ts';

// Temporal is the only retry layer. Each set has a bound for one attempt and one for all of them; when
// those are used up the step parks, says why, and tries again by itself later.

/** A worker that died is noticed within this: it beats every second. */
const heartbeatTimeout = '5s';

/** Reads and single settings: seconds of work. Give up within a minute, so that status says soon what is stuck. */
const quick = { startToCloseTimeout: '40s', scheduleToCloseTimeout: '75s', heartbeatTimeout } as const;
const quickRetry = { initialInterval: '500ms', backoffCoefficient: 2, maximumInterval: '10s', maximumAttempts: 6 } as const;

/** Walks over all the node has of the peer: minutes, with a heartbeat for each page. */
const long = { startToCloseTimeout: '6h', scheduleToCloseTimeout: '12h', heartbeatTimeout } as const;

/** When people close the incident, what is under way is let finish: a step is never left half done. */
const cancellationType = 'WAIT_CANCELLATION_COMPLETED';

export const read = proxyActivities<Activities>({ ...quick, cancellationType, retry: quickRetry });
export const mutate = proxyActivities<Activities>({ ...quick, cancellationType, retry: quickRetry });
export const collect = proxyActivities<Activities>({ ...long, cancellationType, retry: quickRetry });

/** Who polls the host queue: the fence waits for the answer, so it is asked twice at most. */
export const look = proxyActivities<Pick<Activities, 'findHostQueue' | 'seeHostProof'>>({
  startToCloseTimeout: '5s',
  heartbeatTimeout,
  cancellationType,
  retry: { ...quickRetry, maximumAttempts: 2 },
});

/**
 * The peer's operator may take weeks to rotate its keys. Asked again and again by Temporal's own retries, which leave
 * nothing in history; an outage of workers is only one more pause.
 */
export const patient = proxyActivities<Pick<Activities, 'verifyKeys'>>({
  startToCloseTimeout: '60s',
  heartbeatTimeout,
  cancellationType,
  retry: { initialInterval: '30s', backoffCoefficient: 2, maximumInterval: '1h' },
});

/**
 * A watch takes weeks. One look an attempt, tried again by Temporal after the interval: nothing in history, and between two
 * looks no worker is busy with it.
 */
export const watching = proxyActivities<Pick<Activities, 'watchPeer'>>({
  startToCloseTimeout: '5m',
  heartbeatTimeout,
  cancellationType,
  retry: { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '30s' },
});

/** On the host queue. A worker that died just now is still taken for one that polls: nobody waits for it long. */
export const hostQuick = {
  startToCloseTimeout: '15s',
  scheduleToCloseTimeout: '30s',
  heartbeatTimeout,
  scheduleToStartTimeout: '3s',
  cancellationType,
  retry: quickRetry,
} as const;
export const hostLong = { ...long, scheduleToStartTimeout: '20s', cancellationType, retry: quickRetry } as const;

/**
 * Undoing facts is paced by the node's hourly write limit: thousands of facts take days. Heartbeats carry
 * the cursor, so another attempt goes on where this one stopped.
 */
export const undo = proxyActivities<Activities>({
  startToCloseTimeout: '30d',
  scheduleToCloseTimeout: '60d',
  heartbeatTimeout,
  retry: { ...quickRetry, maximumAttempts: 8 },
  cancellationType,
});

/**
 * Which run is this really? A plain activity: a local one costs no round trip, but two of them beside an update
 * were once replayed in another order, and a decision is worth the milliseconds. No bound on all attempts: a
 * worker that was dead for an hour must not turn this into a failure.
 */
export const here = proxyActivities<Activities>({
  startToCloseTimeout: '10s',
  heartbeatTimeout,
  cancellationType,
  retry: { initialInterval: '200ms', backoffCoefficient: 2, maximumInterval: '5s' },
});
