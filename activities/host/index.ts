import { watched } from '../watched.ts';
import { hostBacklogActivities } from './backlog.ts';
import { hostContainActivities } from './contain.ts';
import type { HostDeps } from './deps.ts';
import { hostInvestigateActivities } from './investigate.ts';
import { hostRecoverActivities } from './recover.ts';
import { hostReregisterActivities } from './reregister.ts';
import { hostRestoreActivities } from './restore.ts';
import { hostTestPullActivities } from './test-pull.ts';

/** Everything a host worker offers: a few narrow operations, no free SQL, no free shell, no path taken from a message. */
export function createHostActivities(deps: HostDeps) {
  return watched({
    ...hostInvestigateActivities(deps),
    ...hostContainActivities(deps),
    ...hostRecoverActivities(deps),
    ...hostReregisterActivities(deps),
    ...hostRestoreActivities(deps),
    ...hostBacklogActivities(deps),
    ...hostTestPullActivities(deps),
  });
}
export type HostActivities = ReturnType<typeof createHostActivities>;
