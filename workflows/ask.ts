import { ActivityFailure } from '@temporalio/common';
import { condition, isCancellation } from '@temporalio/workflow';
import { durationMs } from '../src/contract/duration.ts';
import type { Gate } from '../src/contract/names.ts';
import type { AmendAnswer } from '../src/contract/schemas.ts';
import type { AnnouncementKind } from '../src/contract/steps.ts';
import { digestOf, type AskedBy, type GatePlan } from './gates.ts';
import type { Incident } from './incident.ts';
import { read } from './policies.ts';

export type Answer = 'approved' | 'rejected' | 'amended' | 'moot';

/**
 * Opens a gate and waits for people, for days if need be. Fails closed: it reminds, and when an opening
 * expires its votes are void and the next one opens. Nothing is ever approved by silence.
 * A gate that was open before continue-as-new stays open with its votes.
 */
export async function askPeople(
  incident: Incident,
  gate: Gate,
  plan: GatePlan,
  { isMoot = () => false, ...by }: AskedBy & { isMoot?: () => boolean } = {},
): Promise<Answer> {
  if (!incident.gate(gate)) incident.open(gate, plan, by);
  const policy = incident.state.policy.gates[gate];
  let remindAt = Date.now() + durationMs(policy.remindEvery);
  const called = () => incident.decided(gate) !== undefined || (gate === 'retract' && incident.amendments.length > 0);
  const alarmed = () => gate === 'reregister' && incident.mismatches > 0;
  const woken = () => called() || isMoot() || alarmed();
  for (;;) {
    const expiresAt = Date.parse(incident.gate(gate)?.expiresAt ?? '');
    await condition(woken, Math.max(1, Math.min(remindAt, expiresAt) - Date.now()));
    if (isMoot()) {
      incident.shut(gate);
      return 'moot';
    }
    if (called()) {
      // Of two things at once the decision counts: it was about the plan as it stood.
      const answer = await counted(incident, gate);
      if (answer) return answer;
    } else if (alarmed()) {
      incident.mismatches = 0;
      await remind(incident, gate, 'mismatch');
    } else if (Date.now() >= expiresAt) {
      const open = incident.gate(gate);
      incident.open(gate, open?.plan ?? plan, by);
      remindAt = Date.now() + durationMs(policy.remindEvery);
      await remind(incident, gate, 'expired');
    } else {
      remindAt = Date.now() + durationMs(policy.remindEvery);
      await remind(incident, gate, 'waiting');
    }
  }
}

/** The answer, once it is known to be one of this run; undefined when a reset voided it. */
async function counted(incident: Incident, gate: Gate): Promise<Answer | undefined> {
  const before = incident.decided(gate);
  const run = await incident.confirmRun();
  const decided = incident.decided(gate);
  if (decided === 'approved') {
    // Amendments that came beside the approval were about a plan that is no longer asked about.
    while (gate === 'retract' && incident.amendments.length > 0) answerAmendment(incident, { accepted: false, refusedBecause: 'not_open' });
    incident.shut(gate);
  }
  if (decided !== undefined) return decided;
  if (before !== undefined) return undefined;
  const queued = incident.amendments[0];
  if (!queued) return undefined;
  if (queued.run === run) return 'amended';
  answerAmendment(incident, { accepted: false, refusedBecause: 'stale_digest' });
  return undefined;
}

/** Answers the amendment at the head of the queue, and puts a refusal on record. */
export function answerAmendment(incident: Incident, answer: AmendAnswer): void {
  const queued = incident.amendments.shift();
  if (!queued) return;
  queued.answer = answer;
  if (answer.refusedBecause) incident.refuse(answer.refusedBecause, queued.amendment.by, `amend retract: ${answer.detail ?? ''}`);
}

async function remind(incident: Incident, gate: Gate, why: 'waiting' | 'expired' | 'mismatch'): Promise<void> {
  const open = incident.gate(gate);
  if (!open) return;
  const { have, need } = incident.tallyOf(open);
  try {
    const told = await read.remind({
      ref: incident.ref(),
      gate,
      why,
      opening: open.opening,
      digest: digestOf(open, incident.runs.current),
      summary: open.plan.summary,
      have,
      need,
    });
    incident.absorb(told);
  } catch (error) {
    // A reminder that can't be sent must not keep the gate from its decision; status says that it failed.
    if (!(error instanceof ActivityFailure) || isCancellation(error)) throw error;
    incident.warn(`Reminder for gate ${gate} could not be sent: ${(error.cause ?? error).message.slice(0, 200)}`);
  }
}

/** Tells people at once. One that can't be sent holds nothing up; status says that it failed. */
export async function announce(incident: Incident, kind: AnnouncementKind, text: string): Promise<void> {
  incident.busy += 1;
  try {
    incident.absorb(await read.announce({ ref: incident.ref(), kind, text }));
  } catch (error) {
    if (!(error instanceof ActivityFailure) || isCancellation(error)) throw error;
    incident.warn(`The announcement (${kind}) could not be sent: ${(error.cause ?? error).message.slice(0, 200)}`);
  } finally {
    incident.busy -= 1;
  }
}
