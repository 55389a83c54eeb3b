import { beat } from './heartbeat.ts';
import { withLoss } from './evidence-loss.ts';
import { toApplicationFailure } from './failures.ts';

const heartbeatEveryMs = 1_000;

type Activity = (input: never) => Promise<unknown>;

/**
 * Each activity says that it lives, so that a dead worker is noticed within the heartbeat timeout, and fails in cordon's
 * own words.
 * @param explain - gives another error, where the one that came is not what people have to read
 */
export function watched<T extends Record<string, Activity>>(
  activities: T,
  explain: (input: unknown, error: unknown) => Promise<unknown> = async (_input, error) => error,
): T {
  const wrap =
    (activity: Activity): Activity =>
    async (input) => {
      const alive = setInterval(() => beat(), heartbeatEveryMs);
      try {
        return withLoss(await activity(input));
      } catch (error) {
        throw toApplicationFailure(await explain(input, error));
      } finally {
        clearInterval(alive);
      }
    };
  // The shape is the same: each function is replaced by one of its own type.
  return Object.fromEntries(Object.entries(activities).map(([name, activity]) => [name, wrap(activity)])) as T;
}
