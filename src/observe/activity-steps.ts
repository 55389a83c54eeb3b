import type { HostActivities } from '../../activities/host/index.ts';
import type { Activities } from '../../activities/index.ts';
import { isStep, type Step } from '../contract/names.ts';

/** Activities that are not named like the step they work for; null: they belong to none. */
const helpers: Readonly<Record<Exclude<keyof Activities | keyof HostActivities, Step>, Step | null>> = {
  openRun: null,
  whichRun: null,
  remind: null,
  announce: null,
  exportHistory: null,
  claimPeer: 'resolvePeer',
  handOverAlerts: 'resolvePeer',
  holdAlerts: 'captureLocal',
  narrowPlan: 'assess',
  remakePlan: 'assess',
  releasePeer: 'seal',
  registerPeer: 'rebindPeer',
  findHostQueue: null,
  missHost: null,
  seeHostProof: null,
  probeHost: null,
  findPeerRows: 'resolvePeer',
  captureHost: 'captureLocal',
  revokePeers: 'fenceInbound',
  revokeAccess: 'revokeKeys',
  lowerTrustRules: 'lowerTrust',
  pausePromotionJob: 'pausePromotion',
  listFacts: 'collectFacts',
  suppressFacts: 'undoFacts',
  liftTombstones: 'undoFacts',
  coverCards: 'undoFacts',
  restoreOnHost: 'restoreTrust',
  resumePromotionJob: 'resumePromotion',
  reinstatePeers: 'liftFences',
  fetchBacklog: 'judgeBacklog',
  holdDoorOpen: 'testPull',
  showArrivals: 'testPull',
  letPeerIn: 'watch',
  endHolds: 'liftFences',
  judgeArrivals: 'testPull',
  watchPeer: 'watch',
  unbindPeer: 'restoreTrust',
};

/** The step an activity works for, if it works for one. */
export function stepOf(activity: string): Step | undefined {
  if (isStep(activity)) return activity;
  return Object.entries(helpers).find(([name]) => name === activity)?.[1] ?? undefined;
}
