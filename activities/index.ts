import { z } from 'zod';
import { StigmemHttpError, StigmemIdentityError, StigmemSchemaError } from '../src/stigmem/errors.ts';
import { beat } from './heartbeat.ts';
import { claimActivities } from './claim.ts';
import { closeActivities } from './close.ts';
import { communicateActivities } from './communicate.ts';
import { containActivities } from './contain.ts';
import { assertBoundNode, type Deps } from './deps.ts';
import { withLoss } from './evidence-loss.ts';
import { toApplicationFailure } from './failures.ts';
import { identifyActivities } from './identify.ts';
import { investigateActivities } from './investigate.ts';
import { recoverActivities } from './recover.ts';
import { restoreActivities } from './restore.ts';

const heartbeatEveryMs = 1_000;

/** Everything the workflow may call, by the names the runbook's steps have. One file a phase. */
export function createActivities(deps: Deps) {
  return watched(deps, {
    ...identifyActivities(deps),
    ...claimActivities(deps),
    ...containActivities(deps),
    ...investigateActivities(deps),
    ...recoverActivities(deps),
    ...communicateActivities(deps),
    ...restoreActivities(deps),
    ...closeActivities(deps),
  });
}
export type Activities = ReturnType<typeof createActivities>;

type Activity = (input: never) => Promise<unknown>;

/** Each activity says that it lives, so that a dead worker is noticed within the heartbeat timeout, and fails in cordon's own words. */
function watched<T extends Record<string, Activity>>(deps: Deps, activities: T): T {
  const wrap =
    (activity: Activity): Activity =>
    async (input) => {
      const alive = setInterval(() => beat(), heartbeatEveryMs);
      try {
        return withLoss(await activity(input));
      } catch (error) {
        throw toApplicationFailure(await strangerFirst(deps, input, error));
      } finally {
        clearInterval(alive);
      }
    };
  // The shape is the same: each function is replaced by one of its own type.
  return Object.fromEntries(Object.entries(activities).map(([name, activity]) => [name, wrap(activity)])) as T;
}

const OfIncident = z.object({ ref: z.object({ nodeId: z.string() }) });

/** What another node than the incident's answers is about nothing here: that it is another one is what people have to read. */
async function strangerFirst(deps: Deps, input: unknown, error: unknown): Promise<unknown> {
  const asked = OfIncident.safeParse(input);
  // What is tried again anyway finds it out by itself.
  const isFinal = error instanceof StigmemSchemaError || (error instanceof StigmemHttpError && error.status < 500 && error.status !== 429);
  if (!asked.success || !isFinal) return error;
  try {
    await assertBoundNode(deps, asked.data.ref);
  } catch (who) {
    if (who instanceof StigmemIdentityError) return who;
  }
  return error;
}
