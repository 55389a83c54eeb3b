import { CancellationScope, condition } from '@temporalio/workflow';
import { isGate, isStep } from '../src/contract/names.ts';
import { samePerson } from '../src/contract/policy.ts';
import type { AmendAnswer, Amendment, CloseRequest, DecisionAnswer, StepMessage, Vote } from '../src/contract/schemas.ts';
import type { Refusal } from '../src/contract/names.ts';
import { digestOf, namesOpening, reduceVote, type OpenGate } from './gates.ts';
import type { Incident, QueuedAmendment } from './incident.ts';
import type { StepCommand } from './state.ts';
import { tellVote } from './tell.ts';

// What people's messages do: they are counted or queued, or refused on record. The runbook acts.
// In handlers the root scope is current, which a cancel request cancels: what they wait for must not be.

/** An amendment is handed on to an activity whole, and one payload holds 2 MB. */
const amendmentChars = 300_000;

/** A message that fits no run this history has seen may name the one a reset made: an activity knows. */
async function learnRun(incident: Incident, fits: () => boolean): Promise<void> {
  if (!fits()) await incident.askSoon();
}

/** Counts one vote, or says why not. */
export async function vote(incident: Incident, decision: 'approve' | 'reject', given: Vote): Promise<DecisionAnswer> {
  await learnRun(incident, () => {
    const open = isGate(given.gate) ? incident.gate(given.gate) : undefined;
    return !open || namesOpening(open, given.digest, incident.runs);
  });
  const { state } = incident;
  const { gates, verdict } = reduceVote(state.gates, state.policy, incident.runs, decision, given, incident.now());
  state.gates = gates;
  const { refusedBecause, have, need, digest } = verdict;
  if (refusedBecause) incident.refuse(refusedBecause, given.by, `${decision} ${given.gate.slice(0, 50)}`);
  else tellVote(state, given.gate, decision, given.by);
  return {
    accepted: refusedBecause === undefined,
    ...(refusedBecause ? { refusedBecause } : {}),
    have,
    need,
    ...(digest === undefined ? {} : { digest }),
  };
}

/** Queues an amendment, or says why not; the retract gate narrows the plan and answers. */
export async function amend(incident: Incident, amendment: Amendment): Promise<AmendAnswer> {
  const size = JSON.stringify(amendment.keep).length;
  if (size > amendmentChars) {
    const detail = `amend: keep: expected at most ${amendmentChars} characters in all, got ${size}: amend in parts`;
    incident.refuse('malformed', amendment.by, detail);
    return { accepted: false, refusedBecause: 'malformed', detail };
  }
  await learnRun(incident, () => {
    const asked = incident.gate('retract');
    return !asked || namesOpening(asked, amendment.digest, incident.runs);
  });
  const open = incident.gate('retract');
  const refusal = amendRefusal(incident, open, amendment);
  if (refusal || !open) {
    const refusedBecause = refusal ?? 'not_open';
    incident.refuse(refusedBecause, amendment.by, 'amend retract');
    return { accepted: false, refusedBecause, ...(open ? { digest: digestOf(open, incident.runs.current) } : {}) };
  }
  const queued: QueuedAmendment = { amendment, run: incident.state.recordedRun };
  incident.amendments.push(queued);
  await CancellationScope.nonCancellable(() => condition(() => queued.answer !== undefined));
  return queued.answer ?? { accepted: false, refusedBecause: 'not_open' };
}

function amendRefusal(incident: Incident, open: OpenGate | undefined, amendment: Amendment): Refusal | undefined {
  if (!open || incident.decided('retract') || incident.amendments.length >= 10) return 'not_open';
  if (!namesOpening(open, amendment.digest, incident.runs)) return 'stale_digest';
  const { approvers } = incident.state.policy.gates.retract;
  return approvers && !approvers.some((name) => samePerson(name, amendment.by)) ? 'not_allowed' : undefined;
}

/** Queues `retry`, `done` or `skip` for a step that waits, or says why not. */
export async function stepCommand(incident: Incident, command: StepCommand['do'], message: StepMessage): Promise<void> {
  const run = await runThatMatches(incident, message.run);
  if (run === undefined) return incident.refuse('stale_run', message.by, `${command} ${message.step}`);
  const { step } = message;
  const waits = isStep(step) && incident.state.pending[step] !== undefined;
  const queued = incident.commands.some((other) => other.step === step && other.do === command);
  if (!isStep(step) || !waits) return incident.refuse('not_open', message.by, `${command} ${step}: no such step waits`);
  if (queued) return incident.refuse('already_counted', message.by, `${command} ${step}`);
  incident.commands.push({ do: command, step, by: message.by, note: message.note ?? '', run });
}

/** Queues a request to close, or says why not. */
export async function closeRequest(incident: Incident, request: CloseRequest): Promise<void> {
  const run = await runThatMatches(incident, request.run);
  const what = `close ${request.outcome}`;
  if (run === undefined) return incident.refuse('stale_run', request.by, what);
  const gate = request.outcome === 'expelled' ? 'close' : 'restore';
  const asked = incident.closeRequests.some(({ outcome }) => outcome === request.outcome);
  if (incident.gate(gate) || asked) return incident.refuse('already_counted', request.by, `${what}: asked already`);
  if (incident.state.closing) return incident.refuse('closed', request.by, what);
  incident.closeRequests.push({ ...request, runNamed: run });
}

async function runThatMatches(incident: Incident, prefix: string): Promise<string | undefined> {
  await learnRun(incident, () => incident.state.recordedRun.startsWith(prefix));
  const { recordedRun } = incident.state;
  return recordedRun.startsWith(prefix) ? recordedRun : undefined;
}
