/** The words every side shares: phases, steps, gates, outcomes, queues and ids. See docs/reference/workflow.md. */

export const workflowType = 'PeerCompromise';
export const defaultTaskQueue = 'stigmem-runbooks';
export const defaultHostTaskQueue = 'stigmem-host';

export const phases = [
  'identify',
  'contain',
  'investigate',
  'communicate',
  'retract',
  'rotate',
  'reregister',
  'testPull',
  'watch',
  'restore',
  'closed',
] as const;
export type Phase = (typeof phases)[number];

/** Each step once, under the phase it belongs to. A step is one effect, made by one or a few activities. */
export const stepsByPhase = {
  identify: ['resolvePeer', 'captureLocal'],
  contain: ['fenceInbound', 'fenceOutbound', 'blockRelays', 'revokeTokens', 'revokeKeys', 'lowerTrust', 'pausePromotion'],
  investigate: ['readPeer', 'collectFacts', 'assess'],
  communicate: ['notifyPeer', 'notifyDownstream', 'notifyLocal'],
  retract: ['undoFacts', 'verifyUndone'],
  rotate: ['requestRotation', 'verifyKeys'],
  reregister: ['rebindPeer'],
  testPull: ['judgeBacklog', 'testPull'],
  watch: ['watch'],
  restore: ['restoreTrust', 'resumePromotion', 'liftFences'],
  closed: ['seal'],
} as const satisfies Record<Phase, readonly string[]>;
export type Step = (typeof stepsByPhase)[Phase][number];

export const steps: readonly Step[] = Object.values(stepsByPhase).flat();

const phaseByStep = new Map<string, Phase>(phases.flatMap((phase) => stepsByPhase[phase].map((step) => [step, phase] as const)));

/** The phase a step belongs to. */
export function phaseOf(step: Step): Phase {
  // Every Step is a key of the map by construction; 'closed' only satisfies the compiler.
  return phaseByStep.get(step) ?? 'closed';
}

/** Type guard: is this string one of the steps? */
export function isStep(name: string): name is Step {
  return phaseByStep.has(name);
}

export const gates = ['retract', 'reregister', 'testPull', 'restore', 'close', 'skip'] as const;
export type Gate = (typeof gates)[number];

/** Type guard: is this string one of the gates? */
export function isGate(name: string): name is Gate {
  return gates.some((gate) => gate === name);
}

export const outcomes = ['restored', 'expelled', 'dismissed', 'duplicate'] as const;
export type Outcome = (typeof outcomes)[number];

/** How a step ended. Only `verified` and `manual` count as done; the rest is residual risk. */
export const stepOutcomes = ['verified', 'unverified', 'manual', 'unavailable'] as const;
export type StepOutcome = (typeof stepOutcomes)[number];

/** Ways into the node, strongest first; `manual` is a person with an exact instruction. */
export const ways = ['host', 'http', 'manual', 'none'] as const;
export type Way = (typeof ways)[number];

/** What the plan proposes for a fact; `lift` for a tombstone. `suppress` and `lift` need the host worker. */
export const factActions = ['suppress', 'retract', 'reject', 'lift', 'hold', 'keep'] as const;
export type FactAction = (typeof factActions)[number];

export const refusals = [
  'malformed',
  'unknown_gate',
  'not_open',
  'stale_digest',
  'stale_run',
  'not_allowed',
  'already_counted',
  'fingerprint_mismatch',
  'would_widen',
  'closed',
] as const;
export type Refusal = (typeof refusals)[number];

export type Mode = 'live' | 'drill';

/** Workflow id of the one incident a peer has: a second start joins it. Drills never join. */
export function incidentId(peerNodeId: string, mode: Mode): string {
  return mode === 'drill' ? `peer-compromise-drill:${peerNodeId}` : `peer-compromise:${peerNodeId}`;
}

/** Search attributes cordon upserts, only under names an activity has just seen registered. All Keyword. */
export const searchAttributes = {
  peer: 'CordonPeer',
  phase: 'CordonPhase',
  mode: 'CordonMode',
  waitingFor: 'CordonWaitingFor',
  outcome: 'CordonOutcome',
} as const;

/** Inline answers hold at most this many items and bytes; beyond that counts, digest and evidence id. */
export const inlineLimits = { items: 200, bytes: 256 * 1024 } as const;
