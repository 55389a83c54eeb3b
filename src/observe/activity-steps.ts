import type { Activities } from '../../activities/index.ts';
import { isStep, type Step } from '../contract/names.ts';

/** Activities that are not named like the step they work for; null: they belong to none. */
const helpers: Readonly<Record<Exclude<keyof Activities, Step>, Step | null>> = {
  openRun: null,
  whichRun: null,
  remind: null,
  exportHistory: null,
  claimPeer: 'resolvePeer',
  handOverAlerts: 'resolvePeer',
  holdAlerts: 'captureLocal',
  narrowPlan: 'assess',
  remakePlan: 'assess',
  releasePeer: 'seal',
};

/** The step an activity works for, if it works for one. */
export function stepOf(activity: string): Step | undefined {
  if (isStep(activity)) return activity;
  return Object.entries(helpers).find(([name]) => name === activity)?.[1] ?? undefined;
}
