import type { Gate, Refusal } from '../contract/names.ts';
import { isGate } from '../contract/names.ts';
import { samePerson, type Policy } from '../contract/policy.ts';
import type { Digests, Named } from './digests.ts';

/** One decision that came, and what the audit makes of it by itself. */
export interface Decision {
  readonly at: string;
  readonly runId: string;
  readonly eventId: number;
  readonly via: 'signal' | 'update';
  readonly decision: 'approve' | 'reject';
  readonly gate: string;
  readonly digest: string;
  readonly by: string;
  readonly note: string;
  readonly fingerprint: string;
  /** What the sender called itself, and whom the server saw where it says so. */
  readonly identity: string;
  readonly principal: string;
  readonly named: Named | null;
  /** null: counted. */
  readonly refusedBecause: Refusal | null;
  /** How the workflow answered, where an update makes it known. */
  answered?: { readonly accepted: boolean; readonly refusedBecause: string | null };
}

/** An opening that people decided. */
export interface Decided extends Named {
  readonly approved: boolean;
  readonly at: string;
  readonly eventId: number;
  readonly inRun: string;
  readonly by: readonly string[];
}

type Vote = Omit<Decision, 'named' | 'refusedBecause' | 'answered'>;

/** Counts votes as the contract says, from history alone, so that the workflow's own word is not needed. */
export class VoteLedger {
  readonly decided: Decided[] = [];
  readonly #votes = new Map<string, { readonly by: string; readonly decision: 'approve' | 'reject' }[]>();

  /** @param openNow - the opening of each gate that was open when the vote came */
  count(vote: Vote, digests: Digests, policy: Policy, openNow: ReadonlyMap<Gate, number>): Decision {
    const refuse = (refusedBecause: Refusal, named: Named | null = null): Decision => ({ ...vote, named, refusedBecause });
    const { gate, by } = vote;
    if (!isGate(gate)) return refuse('unknown_gate');
    const named = digests.find(vote.digest, gate) ?? null;
    const opening = openNow.get(gate);
    if (opening === undefined) return refuse('not_open', named);
    // An opening without the plan that it is about is of the run before: its digest still has to be of this run.
    if (!named || named.runId !== vote.runId || named.opening !== opening) return refuse('stale_digest', named);
    const key = `${gate} ${named.runId} ${opening}`;
    if (this.decided.some((other) => other.gate === gate && other.runId === named.runId && other.opening === opening))
      return refuse('not_open', named);
    const { need, approvers } = policy.gates[gate];
    const allowed = approvers === null || approvers.some((name) => samePerson(name, by));
    const own = need > 1 && named.requestedBy !== undefined && samePerson(named.requestedBy, by);
    if (!allowed || own) return refuse('not_allowed', named);
    const votes = this.#votes.get(key) ?? [];
    if (votes.some((other) => samePerson(other.by, by))) return refuse('already_counted', named);
    const isOther = named.fingerprint !== undefined && vote.fingerprint !== named.fingerprint;
    if (isOther && vote.decision === 'approve') return refuse('fingerprint_mismatch', named);
    votes.push({ by, decision: vote.decision });
    this.#votes.set(key, votes);
    const approvals = votes.filter(({ decision }) => decision === 'approve');
    if (vote.decision === 'reject' || approvals.length >= need) {
      const { at, eventId, runId: inRun } = vote;
      const who = vote.decision === 'reject' ? [by] : approvals.map((other) => other.by);
      this.decided.push({ ...named, approved: vote.decision === 'approve', at, eventId, inRun, by: who });
    }
    return { ...vote, named, refusedBecause: null };
  }

  /** Continue-as-new carries counted votes into the next run, under its new digest; a reset does not. */
  carry(fromRun: string, toRun: string): void {
    for (const [key, votes] of Array.from(this.#votes)) {
      const [gate = '', runId = '', opening = ''] = key.split(' ');
      const isDecided = this.decided.some((other) => other.gate === gate && other.runId === fromRun && String(other.opening) === opening);
      if (runId === fromRun && !isDecided) this.#votes.set(`${gate} ${toRun} ${opening}`, [...votes]);
    }
  }
}
