import type { Gate, Outcome, Phase, Step, StepOutcome, Way } from '../src/contract/names.ts';
import type { Policy } from '../src/contract/policy.ts';
import type { Closure } from '../src/contract/closing.ts';
import type { Alert, CloseRequest, Coverage, Residual, StartPayload, Status } from '../src/contract/schemas.ts';
import type { EvidenceHead, FirstBad, HeldAlert, OurNode, PeerRef, PlanRef, StepResult, VerifiedKeys } from '../src/contract/steps.ts';
import type { OpenGates } from './gates.ts';

/** A step that ended. */
export interface StepRecord {
  readonly name: Step;
  readonly phase: Phase;
  readonly round: number;
  readonly outcome: StepOutcome;
  readonly way: Way;
  readonly at: string;
  readonly detail: string;
  readonly residual: readonly Residual[];
}

/** A step that waits for people, or for the world to mend. */
export interface PendingStep {
  readonly step: Step;
  /**
   * `parked`: stuck, tries again by itself. `manual`: a person's work, holds nobody up. `held`: people have to
   * say how it goes on. `paced`: waits for the node's write quota.
   */
  readonly kind: 'parked' | 'manual' | 'held' | 'paced';
  readonly why: string;
  readonly how: string;
  readonly since: string;
}

/** A person's word about a step, and the run it named. */
export interface StepCommand {
  readonly do: 'retry' | 'done' | 'skip';
  readonly step: Step;
  readonly by: string;
  readonly note: string;
  readonly run: string;
}

/** All that an incident knows. Plain JSON, so that continue-as-new carries it whole. */
export interface IncidentState {
  /** The run the history was recorded in, as an activity saw it. After a reset it differs from workflowInfo().runId. */
  recordedRun: string;
  start: StartPayload;
  policy: Policy;
  registeredSearchAttributes: readonly string[];
  ourNode: OurNode | null;
  peer: PeerRef | null;
  phase: Phase;
  /** When it was entered; absent in the first phase, and in what a run of 0.1.0 handed over. */
  phaseSince?: string;
  round: number;
  outcome: Outcome | null;
  alerts: Alert[];
  alertCount: number;
  heldAlerts: HeldAlert[];
  /** How many of `alerts` have been held against the audit. */
  alertsHeldUpTo: number;
  notes: { at: string; by: string; text: string }[];
  steps: StepRecord[];
  /** Steps that were begun, whether or not they ended; absent in what an older run handed over. */
  begun?: readonly Step[];
  pending: Partial<Record<Step, PendingStep>>;
  gates: OpenGates;
  openings: Partial<Record<Gate, number>>;
  plan: PlanRef | null;
  /** Approved, and not made again yet. */
  approved?: { plan: PlanRef; inRun: string } | null;
  /** Approved and made again: what undoFacts works on. */
  go: { plan: PlanRef; approvedInRun: string; done: number } | null;
  next: PlanRef | null;
  /** What earlier openings of the gate had undone, while people are asked about the rest. */
  undoneBefore?: Pick<StepResult, 'outcome' | 'way' | 'detail' | 'residual'>;
  coverage: Coverage[];
  warnings: string[];
  refused: Status['refused'];
  evidence: EvidenceHead;
  firstBad: FirstBad | null;
  /** What the operator or the audit said first: judging looks at arrivals anew and needs only these. */
  firstSaid: FirstBad | null;
  /** Close requests whose gate is open, and the skip that waits for its gate. */
  closeAsked: Partial<Record<CloseRequest['outcome'], CloseRequest>>;
  skipAsked: StepCommand | null;
  closing: (Closure & { approvedInRun: string }) | null;
  noticesDone: boolean;
  /** The host worker that serves this incident; null: none does. Absent in what an older run handed over. */
  host?: { readonly queue: string; readonly storage: string } | null;
  /** A host worker was told to change something: undoing it needs one, whatever the steps say. */
  hostActed?: boolean;
  /** Since when the peer is asked for new keys. */
  keysAskedSince?: string | null;
  /** Verified, and not bound yet or bound. Shown nowhere: people bring the fingerprint from outside. */
  keys?: VerifiedKeys | null;
  /** Evidence id of the documents that show them. */
  keysSealed?: string;
  /** The key was approved, in this run. */
  rebindApproved?: Approval | null;
  /** What waits behind the fence, judged: what gate testPull is about. */
  backlog?: PlanRef | null;
  /** The opening was approved, in this run. */
  pullApproved?: Approval | null;
  /** A door was opened in this incident: its hold stands in the node's database until the incident ends. */
  doorOpened?: boolean;
  /** The peer is in, and is watched. Absent or null: it is not. */
  watch?: Watch | null;
}

/** A watch that is under way; ISO 8601. */
interface Watch {
  readonly since: string;
  readonly until: string;
  readonly lastLookAt: string;
  readonly looks: number;
}

interface Approval {
  readonly inRun: string;
}

/** What each round of the page begins with. */
const freshRound = {
  pending: {},
  begun: [],
  plan: null,
  approved: null,
  go: null,
  next: null,
  noticesDone: false,
  keysAskedSince: null,
  keys: null,
  rebindApproved: null,
  backlog: null,
  pullApproved: null,
  watch: null,
} satisfies Partial<IncidentState>;

/** Begins the next round: what was found out stays, what was decided does not. */
export function toNextRound(state: IncidentState): void {
  delete state.undoneBefore;
  delete state.keysSealed;
  Object.assign(state, { ...freshRound, round: state.round + 1 });
}

export function newState(start: StartPayload, policy: Policy, run: string): IncidentState {
  return {
    recordedRun: run,
    start,
    policy,
    registeredSearchAttributes: [],
    ourNode: null,
    peer: null,
    phase: 'identify',
    round: 1,
    outcome: null,
    alerts: [...(start.alerts ?? [])],
    alertCount: start.alerts?.length ?? 0,
    heldAlerts: [],
    alertsHeldUpTo: 0,
    notes: [],
    steps: [],
    pending: {},
    gates: {},
    openings: {},
    plan: null,
    go: null,
    next: null,
    coverage: [],
    warnings: [],
    refused: { count: 0, last: [] },
    evidence: { head: '', entries: 0 },
    firstBad: start.firstBadAt === undefined ? null : { at: start.firstBadAt, from: 'operator' },
    firstSaid: start.firstBadAt === undefined ? null : { at: start.firstBadAt, from: 'operator' },
    closeAsked: {},
    skipAsked: null,
    closing: null,
    noticesDone: false,
  };
}
