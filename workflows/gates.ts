import { digestMatches, gateDigest } from '../src/contract/canonical.ts';
import { durationMs } from '../src/contract/duration.ts';
import { isGate, type Gate, type Refusal } from '../src/contract/names.ts';
import { samePerson, type Policy } from '../src/contract/policy.ts';
import type { PlanItem, Vote } from '../src/contract/schemas.ts';

/** What a gate asks about. */
export interface GatePlan {
  readonly planHash: string;
  readonly counts: Readonly<Record<string, number>>;
  readonly summary: string;
  readonly items?: readonly PlanItem[];
  readonly evidenceId?: string;
}

interface CountedVote {
  readonly by: string;
  readonly decision: 'approve' | 'reject';
  readonly at: string;
  /** The run whose digest the vote carried. */
  readonly run: string;
}

/** One opening of one gate. Plain JSON: it is carried through continue-as-new. */
export interface OpenGate {
  readonly gate: Gate;
  readonly opening: number;
  readonly plan: GatePlan;
  readonly since: string;
  readonly expiresAt: string;
  readonly votes: readonly CountedVote[];
  /** A rejected retract plan stays on the table for `amend`, but takes no more votes. */
  readonly held: boolean;
  /** Who asked for it, where a person did; may not be the only one to approve it when policy asks for two. */
  readonly requestedBy?: string;
  /** What the peer's operator told the approvers out of band must equal this. */
  readonly expectFingerprint?: string;
}

/** Who asked, and what is expected of those who answer. */
export type AskedBy = Pick<OpenGate, 'requestedBy' | 'expectFingerprint'>;

export type OpenGates = Readonly<Partial<Record<Gate, OpenGate>>>;

/** The runs a digest may be made from: this one, and the one the copied part of a reset history was recorded in. */
export interface Runs {
  readonly current: string;
  readonly recorded: string;
}

export interface Verdict {
  readonly refusedBecause?: Refusal;
  readonly have: number;
  readonly need: number;
  readonly digest?: string;
}

/** Opens a gate, or opens it anew: earlier votes are void. */
export function openGate(policy: Policy, openings: number, ask: AskedBy & { gate: Gate; plan: GatePlan }, nowMs: number): OpenGate {
  return {
    ...ask,
    opening: openings + 1,
    since: new Date(nowMs).toISOString(),
    expiresAt: new Date(nowMs + durationMs(policy.gates[ask.gate].expiresAfter)).toISOString(),
    votes: [],
    held: false,
  };
}

/** The digest people have to name to decide this opening. */
export function digestOf(gate: OpenGate, runId: string): string {
  return gateDigest({ gate: gate.gate, opening: gate.opening, planHash: gate.plan.planHash, runId });
}

/** How many people approved this opening, and how many it takes. */
export function tally(gate: OpenGate, policy: Policy): { have: number; need: number } {
  return {
    have: gate.votes.filter((vote) => vote.decision === 'approve').length,
    need: policy.gates[gate.gate].need,
  };
}

/**
 * Does this digest name the opening, in the run an activity last saw? What a message does must not hang on
 * workflowInfo().runId: it is another in each reset copy, and the copied part has to replay as it was.
 */
export function namesOpening(gate: OpenGate, digest: string, { recorded }: Pick<Runs, 'recorded'>): boolean {
  return digestMatches(digest, digestOf(gate, recorded));
}

/**
 * Counts one vote, or says why not. Pure: the same for signal and update, CLI and UI.
 * A vote is about exactly one opening: gate, digest and person.
 */
export function reduceVote(
  gates: OpenGates,
  policy: Policy,
  runs: Runs,
  decision: 'approve' | 'reject',
  vote: Vote,
  at: string,
): { gates: OpenGates; verdict: Verdict } {
  const refuse = (refusedBecause: Refusal, open?: OpenGate) => ({
    gates,
    verdict: {
      refusedBecause,
      ...(open ? { ...tally(open, policy), digest: digestOf(open, runs.current) } : { have: 0, need: 0 }),
    },
  });
  if (!isGate(vote.gate)) return refuse('unknown_gate');
  const open = gates[vote.gate];
  if (!open || open.held || isDecided(open, policy)) return refuse('not_open');
  if (!namesOpening(open, vote.digest, runs)) return refuse('stale_digest', open);
  const run = runs.recorded;
  if (!mayDecide(open, policy, vote.by)) return refuse('not_allowed', open);
  if (open.votes.some((counted) => counted.run === run && samePerson(counted.by, vote.by))) {
    return refuse('already_counted', open);
  }
  if (decision === 'approve' && open.expectFingerprint !== undefined && vote.fingerprint !== open.expectFingerprint) {
    return refuse('fingerprint_mismatch', open);
  }
  const others = open.votes.filter((counted) => !samePerson(counted.by, vote.by));
  const counted: OpenGate = { ...open, votes: [...others, { by: vote.by, decision, at, run }] };
  const verdict: Verdict = { ...tally(counted, policy), digest: digestOf(counted, runs.current) };
  // Only the copied part of a reset history, or a message replayed into it, names the recorded run. It is
  // counted, so that the copied part replays as it was, and answered as stale: acting on it needs confirmRun.
  const stale = run === runs.current ? {} : { refusedBecause: 'stale_digest' as const };
  return { gates: { ...gates, [vote.gate]: counted }, verdict: { ...verdict, ...stale } };
}

/** Has this opening been decided? One reject decides; approvals need the quorum. */
export function isDecided(gate: OpenGate, policy: Policy): 'approved' | 'rejected' | undefined {
  if (gate.votes.some((vote) => vote.decision === 'reject')) return 'rejected';
  const { have, need } = tally(gate, policy);
  return have >= need ? 'approved' : undefined;
}

function mayDecide(gate: OpenGate, policy: Policy, by: string): boolean {
  const { need, approvers } = policy.gates[gate.gate];
  if (approvers !== null && !approvers.some((name) => samePerson(name, by))) return false;
  return need === 1 || gate.requestedBy === undefined || !samePerson(gate.requestedBy, by);
}
