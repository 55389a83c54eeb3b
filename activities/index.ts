import { z } from 'zod';
import { StigmemHttpError, StigmemIdentityError, StigmemSchemaError } from '../src/stigmem/errors.ts';
import { claimActivities } from './claim.ts';
import { closeActivities } from './close.ts';
import { communicateActivities } from './communicate.ts';
import { containActivities } from './contain.ts';
import { assertBoundNode, type Deps } from './deps.ts';
import { hostQueueActivities } from './host-queue.ts';
import { identifyActivities } from './identify.ts';
import { investigateActivities } from './investigate.ts';
import { recoverActivities } from './recover.ts';
import { reregisterActivities } from './reregister.ts';
import { restoreActivities } from './restore.ts';
import { rotateActivities } from './rotate.ts';
import { testPullActivities } from './test-pull.ts';
import { watchActivities } from './watch.ts';
import { watched } from './watched.ts';

/** Everything the workflow may call, by the names the runbook's steps have. One file a phase. */
export function createActivities(deps: Deps) {
  const activities = {
    ...identifyActivities(deps),
    ...claimActivities(deps),
    ...containActivities(deps),
    ...investigateActivities(deps),
    ...recoverActivities(deps),
    ...communicateActivities(deps),
    ...rotateActivities(deps),
    ...reregisterActivities(deps),
    ...testPullActivities(deps),
    ...watchActivities(deps),
    ...restoreActivities(deps),
    ...closeActivities(deps),
    ...hostQueueActivities(deps),
  };
  return watched(activities, (input, error) => strangerFirst(deps, input, error));
}
export type Activities = ReturnType<typeof createActivities>;

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
