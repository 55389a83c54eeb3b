/** What workflow and activities hand each other. Internal: not part of the public contract, but it stands in history. */
import type { FactAction, Mode, Phase, StepOutcome, Way } from './names.ts';
import type { Policy } from './policy.ts';
import type { Coverage, PlanItem, Residual } from './schemas.ts';

/** Which incident, which run, which moment: the first thing each activity is told. */
export interface IncidentRef {
  readonly incident: string;
  /** firstExecutionRunId: the same through resets and continue-as-new; the root of every idempotency key. */
  readonly firstRun: string;
  readonly mode: Mode;
  readonly phase: Phase;
  readonly round: number;
  /** Workflow time, ISO 8601, so that a retry writes the same bytes. */
  readonly at: string;
  /** node_id of our own node, bound when the peer was resolved; every mutation checks it. */
  readonly nodeId?: string;
  /** The last head of the evidence chain that the workflow was told: it has to be in the chain for good. */
  readonly evidenceHead?: string;
}

/** Head of the evidence chain after an activity sealed its part. */
export interface EvidenceHead {
  readonly head: string;
  readonly entries: number;
}

/** Our own node, as it calls itself. */
export interface OurNode {
  readonly nodeId: string;
  readonly url: string;
  /** Absent in what a run before the host worker handed over. */
  readonly entityUri?: string;
}

/** The peer as our own node knows it: every peers row that shares its URL or node_id. */
export interface PeerRef {
  readonly nodeId: string;
  readonly url: string;
  /** Empty until the peer's own well-known could be read. */
  readonly entityUri: string;
  readonly peerIds: readonly string[];
  readonly nodeIds: readonly string[];
  readonly allowedScopes: readonly string[];
}

/** How a step ended, and what it leaves behind. */
export interface StepResult {
  readonly outcome: StepOutcome;
  readonly way: Way;
  readonly detail: string;
  /** How many things on the node are now as this step set them; 0 when it changed nothing, absent when it can't say. */
  readonly changed?: number;
  /** Present when a person has to act: why, and the exact instruction. */
  readonly manual?: { readonly why: string; readonly how: string };
  readonly residual?: readonly Residual[];
  readonly coverage?: readonly Coverage[];
  readonly warnings?: readonly string[];
  readonly evidence: EvidenceHead;
}

/** How a warning of captureLocal says that an earlier incident's fence was there: lifting it opens what that one closed. */
export const earlierFence = 'already carried a fence of cordon';

/** What collectFacts calls facts of ours that answer nobody now; verifyUndone asks for them again. */
export const hiddenOurs = "facts of ours that the peer's facts hide from the default query";

/** An alert held against the node's own audit. */
export interface HeldAlert {
  readonly name: string;
  readonly at: string | null;
  readonly corroborated: boolean;
  readonly why: string;
  /** At most 20 event ids; all of them stand in the evidence. */
  readonly eventIds: readonly string[];
}

/** First bad time and where it is known from. */
export interface FirstBad {
  readonly at: string;
  readonly from: 'operator' | 'audit' | 'arrival';
}

/** A plan as the workflow carries it: bulk is in evidence. */
export interface PlanRef {
  readonly planHash: string;
  readonly counts: Readonly<Partial<Record<FactAction, number>>>;
  /** Evidence id of the sealed plan, NDJSON of JudgedFact. */
  readonly evidenceId: string;
  /** Only when at most 200 items and 256 KB. */
  readonly items?: readonly PlanItem[];
  readonly total: number;
}

export interface OpenedRun {
  /** Run id the worker was given: differs from the run a copied history was recorded in. */
  readonly run: string;
  /** Is this run a copy made by a reset? Then decisions carried into it are void. */
  readonly isReset: boolean;
  readonly policy: Policy;
  readonly registeredSearchAttributes: readonly string[];
  readonly evidence: EvidenceHead;
}

export interface ResolvedPeer extends StepResult {
  readonly ourNode: OurNode;
  readonly peer: PeerRef;
}

export interface CapturedLocal extends StepResult {
  readonly alerts: readonly HeldAlert[];
  readonly firstSuspicious: FirstBad | null;
}

export interface ReadPeer extends StepResult {
  readonly entityUri: string;
}

/** The peer's new key, verified as far as its own documents go; people bring the fingerprint from outside. */
export interface VerifiedKeys {
  readonly nodeId: string;
  readonly entityUri: string;
  /** base64url. */
  readonly publicKey: string;
  readonly keyId: string;
  /** As the approve route takes it. */
  readonly fingerprint: string;
  readonly expiresAt: string;
  /** `none`: nothing leads from the old key to the new one; `afterFirstBad`: whoever stole the old key could have made it. */
  readonly chain: 'none' | 'whole' | 'afterFirstBad';
  /** What people have to know before they trust it. */
  readonly remarks: readonly string[];
}

export interface KeysVerified extends StepResult {
  readonly keys: VerifiedKeys;
  /** Of the documents that show them. */
  readonly evidenceId: string;
}

/** How registering ended, and the peer as our node knows it from then on. */
export interface Registered extends StepResult {
  readonly peer: PeerRef;
}

export interface Assessed extends StepResult {
  readonly plan: PlanRef;
  readonly firstSuspicious: FirstBad | null;
}

export interface Narrowed {
  readonly run: string;
  readonly plan: PlanRef | null;
  /** Fact ids that are not in the plan with an action to narrow. */
  readonly unknown: readonly string[];
  readonly evidence: EvidenceHead;
}

/** The approved plan made again right before acting. */
export interface Remade {
  /** What was approved and has not changed: goes ahead. */
  readonly go: PlanRef;
  /** What changed, or came after the cut: the next opening; null when nothing did. */
  readonly next: PlanRef | null;
  readonly detail: string;
  readonly evidence: EvidenceHead;
}

/** What one go of undoFacts came to. Paced: the node's hourly write limit ends a go, and the workflow waits. */
export interface Undone extends StepResult {
  /** Items of the plan that are settled so far, from its start: the cursor of the next go. */
  readonly done: number;
  readonly total: number;
  /** Present when there is more to do: how long to wait first, in milliseconds, and why. */
  readonly pause?: Pause;
}

export interface Pause {
  readonly ms: number;
  readonly why: string;
  /** After the pause, at the pace measured so far, milliseconds until all is done; missing while nothing is measured. */
  readonly restMs?: number;
}

/** Who polls the host queue, as the server knows it: a worker that died just now still counts. */
export interface HostQueue {
  readonly queue: string;
  readonly polled: boolean;
}

/** What a host worker says of itself: it serves this incident's node, from this incident's evidence folder. */
export interface HostThere {
  readonly storage: 'sqlite' | 'postgres';
  /** The last migration of the node's schema. */
  readonly migration: string;
  /** Id of the row it has just written to the node's own audit; absent in a drill. */
  readonly proof?: string;
}

/** What was listed on the host: how much, and where it is sealed. */
export interface HostListing {
  readonly evidenceId: string;
  readonly facts: number;
  readonly evidence: EvidenceHead;
}

/** What waits behind the fence, as the node itself would pull it; sealed as NDJSON of BacklogLine. */
export interface BacklogFetched {
  readonly evidenceId: string;
  readonly facts: number;
  /** False when the peer could not be read to its end; coverage says why. */
  readonly complete: boolean;
  readonly coverage: readonly Coverage[];
  readonly evidence: EvidenceHead;
}

/** The backlog judged: people are asked about `plan`, in which `keep` is let in and `suppress` is not. */
export interface BacklogJudged extends StepResult {
  readonly plan: PlanRef;
}

/** What came through the door, judged: `keep` in what is sealed under `evidenceId` may be shown. */
export interface ArrivalsJudged extends StepResult {
  readonly evidenceId: string;
  readonly shows: number;
  /** Why the test pull is not passed; empty: it is. */
  readonly failed: readonly string[];
}

/** A tripwire that was touched. */
export interface Trip {
  readonly wire: string;
  readonly why: string;
  /** Audit events and facts, at most 20. */
  readonly ids: readonly string[];
}

/** One stretch of a watch: it ended by its time, or by the first look that touched a wire. */
export interface Watched {
  /** Empty: nothing was touched. */
  readonly trips: readonly Trip[];
  readonly looks: number;
  /** Of the last look that saw everything; what the next stretch counts being blind from. */
  readonly lastLookAt: string;
  readonly coverage: readonly Coverage[];
  readonly evidence: EvidenceHead;
}

/** What the host has of the peer that HTTP does not show. */
export interface HostPeerRows {
  readonly peer: PeerRef;
  readonly coverage: readonly Coverage[];
  readonly warnings: readonly string[];
  readonly evidence: EvidenceHead;
}

/** What a host operation changed; the step's own activity reads it back. */
export interface HostDone {
  readonly done: number;
  readonly detail: string;
  readonly residual?: readonly Residual[];
  readonly coverage?: readonly Coverage[];
  readonly warnings?: readonly string[];
  /** Peers rows by id, with the status that has to be read back over HTTP. */
  readonly reopened?: Readonly<Record<string, string>>;
  /** False: on this node it has no effect, or there is nothing to do it with. */
  readonly works?: boolean;
  readonly evidence: EvidenceHead;
}

/** A peer that was let in; `at`: since when it delivers, by the clock of the node's machine. ISO 8601. */
export interface LetIn extends HostDone {
  readonly at: string;
}

/** What people are told at once, and not only where they look. */
export type AnnouncementKind = 'rotation' | 'rotation-overdue' | 'trip' | 'watch-over';

export interface Announcement {
  readonly ref: IncidentRef;
  readonly kind: AnnouncementKind;
  readonly text: string;
}

export interface AlertsHeld {
  readonly alerts: readonly HeldAlert[];
  readonly evidence: EvidenceHead;
}

export interface ClaimAnswer {
  /** null when this incident holds the peer, else the workflow id that does. */
  readonly heldBy: string | null;
}

export interface Sealed extends StepResult {
  /** Path of the report, relative to the evidence folder. */
  readonly report: string;
}
