import { CancellationScope, condition } from '@temporalio/workflow';
import { durationMs } from '../src/contract/duration.ts';
import { isGate, isStep } from '../src/contract/names.ts';
import { samePerson } from '../src/contract/policy.ts';
import type { AmendAnswer, Amendment, CloseRequest, DecisionAnswer, Extension, StepMessage, Vote } from '../src/contract/schemas.ts';
import type { Refusal } from '../src/contract/names.ts';
import { digestOf, namesOpening, reduceVote, type OpenGate } from './gates.ts';
import type { Incident, QueuedAmendment } from './incident.ts';
import type { StepCommand } from './state.ts';
import { tellVote } from './tell.ts';

// What people's messages do: they are counted or queued, or refused on record. The runbook acts.
// In handlers the root scope is current, which a cancel request cancels: what they wait for must not be.

/** An amendment is handed on to an activity whole, and one payload holds 2 MB. */
const amendmentChars = 300_000;

/** What becomes of one message. */
export interface Judgement<A> {
  /** false: it is only refused, on record. */
  readonly counts: boolean;
  readonly settle: () => A;
}

/** A message and how it is judged. One that fits no run this history has seen may name the one a reset made: an activity knows. */
export interface Case<A> {
  readonly fits: () => boolean;
  readonly judge: () => Judgement<A>;
}

/** Settles a message, once it is known which run this is. */
export async function settle<A>(incident: Incident, { fits, judge }: Case<A>): Promise<A> {
  await learnRun(incident, fits);
  return judge().settle();
}

/** Awaited in any case: what a message sets off comes after all that arrived with it, in old histories as in new ones. */
async function learnRun(incident: Incident, fits: () => boolean): Promise<void> {
  if (!fits()) await incident.askSoon();
}

/**
 * Settles a signal that changes nothing, now or, together with all others that have to wait for it, once it is known
 * which run this is. Such signals come by the thousand.
 * @returns false: it counts, and its handler has to take it
 */
export function settleJunk(incident: Incident, { fits, judge }: Case<unknown>): boolean {
  if (!fits()) {
    incident.whenRunIsKnown(() => void judge().settle());
    return true;
  }
  const judged = judge();
  if (judged.counts) return false;
  judged.settle();
  return true;
}

/** Counts one vote, or says why not. */
export function voteCase(incident: Incident, decision: 'approve' | 'reject', given: Vote): Case<DecisionAnswer> {
  return {
    fits: () => {
      const open = isGate(given.gate) ? incident.gate(given.gate) : undefined;
      return !open || namesOpening(open, given.digest, incident.runs);
    },
    judge: () => {
      const { state } = incident;
      const { gates, verdict } = reduceVote(state.gates, state.policy, incident.runs, decision, given, incident.now());
      const { refusedBecause, have, need, digest } = verdict;
      const answer = {
        accepted: refusedBecause === undefined,
        ...(refusedBecause ? { refusedBecause } : {}),
        have,
        need,
        ...(digest === undefined ? {} : { digest }),
      };
      return {
        counts: gates !== state.gates,
        settle: () => {
          state.gates = gates;
          if (refusedBecause === 'fingerprint_mismatch') mismatch(incident, given.by);
          if (refusedBecause) incident.refuse(refusedBecause, given.by, `${decision} ${given.gate.slice(0, 50)}`);
          else tellVote(state, given.gate, decision, given.by);
          return answer;
        },
      };
    },
  };
}

/** Somebody brought another fingerprint than that of the key the peer shows: a typing error, or somebody between. */
function mismatch(incident: Incident, by: string): void {
  incident.mismatches += 1;
  incident.warn(
    `${by.slice(0, 200)} brought a fingerprint at ${incident.now()} that is not that of the key the peer shows: ask its operator again, by another channel. If it stays so, somebody else answers at its URL.`,
  );
}

/** Queues an amendment, or says why not. */
export function amendCase(incident: Incident, amendment: Amendment): Case<AmendAnswer | QueuedAmendment> {
  const size = JSON.stringify(amendment.keep).length;
  const tooLarge =
    size > amendmentChars ? `amend: keep: expected at most ${amendmentChars} characters in all, got ${size}: amend in parts` : undefined;
  return {
    fits: () => {
      const asked = incident.gate('retract');
      return tooLarge !== undefined || !asked || namesOpening(asked, amendment.digest, incident.runs);
    },
    judge: () => {
      const open = incident.gate('retract');
      const refusedBecause = tooLarge === undefined ? amendRefusal(incident, open, amendment) : 'malformed';
      if (refusedBecause === undefined) {
        const queued: QueuedAmendment = { amendment, run: incident.state.recordedRun };
        return {
          counts: true,
          settle: () => {
            incident.amendments.push(queued);
            return queued;
          },
        };
      }
      return {
        counts: false,
        settle: () => {
          incident.refuse(refusedBecause, amendment.by, tooLarge ?? 'amend retract');
          if (tooLarge !== undefined) return { accepted: false, refusedBecause, detail: tooLarge };
          return { accepted: false, refusedBecause, ...(open ? { digest: digestOf(open, incident.runs.current) } : {}) };
        },
      };
    },
  };
}

/** Queues an amendment, or says why not; the retract gate narrows the plan and answers. */
export async function amend(incident: Incident, amendment: Amendment): Promise<AmendAnswer> {
  const settled = await settle(incident, amendCase(incident, amendment));
  if ('accepted' in settled) return settled;
  await CancellationScope.nonCancellable(() => condition(() => settled.answer !== undefined));
  return settled.answer ?? { accepted: false, refusedBecause: 'not_open' };
}

function amendRefusal(incident: Incident, open: OpenGate | undefined, amendment: Amendment): Refusal | undefined {
  if (!open || incident.decided('retract') || incident.amendments.length >= 10) return 'not_open';
  if (!namesOpening(open, amendment.digest, incident.runs)) return 'stale_digest';
  const { approvers } = incident.state.policy.gates.retract;
  return approvers && !approvers.some((name) => samePerson(name, amendment.by)) ? 'not_allowed' : undefined;
}

/** Queues `retry`, `done` or `skip` for a step that waits, or says why not. */
export function stepCase(incident: Incident, command: StepCommand['do'], message: StepMessage): Case<void> {
  const { step, by, note = '' } = message;
  return {
    fits: () => incident.state.recordedRun.startsWith(message.run),
    judge: () => {
      const run = incident.state.recordedRun;
      if (!run.startsWith(message.run)) return refusal(incident, 'stale_run', by, `${command} ${step}`);
      const waits = isStep(step) && incident.state.pending[step] !== undefined;
      if (!isStep(step) || !waits) return refusal(incident, 'not_open', by, `${command} ${step}: no such step waits`);
      const queued = incident.commands.some((other) => other.step === step && other.do === command);
      if (queued) return refusal(incident, 'already_counted', by, `${command} ${step}`);
      return { counts: true, settle: () => void incident.commands.push({ do: command, step, by, note, run }) };
    },
  };
}

/** Queues a request to close, or says why not. */
export function closeCase(incident: Incident, request: CloseRequest): Case<void> {
  const { outcome, by } = request;
  const what = `close ${outcome}`;
  return {
    fits: () => incident.state.recordedRun.startsWith(request.run),
    judge: () => {
      const run = incident.state.recordedRun;
      if (!run.startsWith(request.run)) return refusal(incident, 'stale_run', by, what);
      const gate = outcome === 'expelled' ? 'close' : 'restore';
      const asked = incident.closeRequests.some((other) => other.outcome === outcome);
      if (incident.gate(gate) || asked) return refusal(incident, 'already_counted', by, `${what}: asked already`);
      if (incident.state.closing) return refusal(incident, 'closed', by, what);
      return { counts: true, settle: () => void incident.closeRequests.push({ ...request, runNamed: run }) };
    },
  };
}

/** No watch ends later than this from now on. */
const longestWatchMs = durationMs('366d');

/** Lets a watch last longer, by anyone who may approve full trust, or says why not. */
export function extendCase(incident: Incident, { for: longer, by, run: named, note = '' }: Extension): Case<void> {
  const what = `extend watch by ${longer}`;
  return {
    fits: () => incident.state.recordedRun.startsWith(named),
    judge: () => {
      const { state } = incident;
      if (!state.recordedRun.startsWith(named)) return refusal(incident, 'stale_run', by, what);
      if (!state.watch || incident.isDone('watch')) return refusal(incident, 'not_open', by, `${what}: no watch is under way`);
      const { approvers } = state.policy.gates.restore;
      if (approvers && !approvers.some((name) => samePerson(name, by))) return refusal(incident, 'not_allowed', by, what);
      const until = Date.parse(state.watch.until) + durationMs(longer);
      if (until > Date.now() + longestWatchMs) return refusal(incident, 'malformed', by, `${what}: expected an end within 366d`);
      const watch = { ...state.watch, until: new Date(until).toISOString() };
      return {
        counts: true,
        settle: () => {
          state.watch = watch;
          incident.note(by, `watch extended by ${longer}, until ${watch.until}${note === '' ? '' : `: ${note}`}`);
        },
      };
    },
  };
}

/** What changes the incident at once and needs nobody's answer. */
export function plainCase(record: () => void): Case<void> {
  return { fits: () => true, judge: () => ({ counts: false, settle: record }) };
}

function refusal(incident: Incident, because: Refusal, by: string, detail: string): Judgement<void> {
  return { counts: false, settle: () => incident.refuse(because, by, detail) };
}
