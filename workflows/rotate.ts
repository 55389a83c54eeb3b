import { ActivityFailure } from '@temporalio/common';
import { CancellationScope, condition, isCancellation } from '@temporalio/workflow';
import { durationMs } from '../src/contract/duration.ts';
import { rotationDefault } from '../src/contract/policy.ts';
import type { KeysVerified, PeerRef } from '../src/contract/steps.ts';
import { announce } from './ask.ts';
import type { Incident } from './incident.ts';
import { noticeActs } from './notices.ts';
import { patient } from './policies.ts';
import { insist, settle, step, stillCounts } from './steps.ts';

/**
 * Recover 3: asks for new keys, waits for them, for weeks if need be, and verifies them by itself. Nothing of the peer is
 * let in meanwhile.
 */
export async function rotateKeys(incident: Incident): Promise<void> {
  incident.enter('rotate');
  await step(incident, 'requestRotation', noticeActs(incident).requestRotation);
  await newKeys(incident);
}

/** Waits until the peer shows keys that can be believed; ends without any only where people skipped that, behind gate `skip`. */
export async function newKeys(incident: Incident): Promise<void> {
  const { state } = incident;
  const { peer } = state;
  if (incident.isDone('verifyKeys') || !peer) return;
  state.keysAskedSince ??= incident.now();
  const found = await insist(incident, 'verifyKeys', () => askUntilThere(incident, peer));
  if (!found || found === 'skipped') return;
  state.keys = found.keys;
  state.keysSealed = found.evidenceId;
  settle(incident, 'verifyKeys', found);
}

/**
 * One activity that Temporal tries again until the peer shows new keys, which leaves nothing in history. Beside it people
 * are reminded, and may have it asked at once.
 */
async function askUntilThere(incident: Incident, peer: PeerRef): Promise<KeysVerified | 'skipped'> {
  const { state } = incident;
  for (;;) {
    incident.wait({
      step: 'verifyKeys',
      kind: 'paced',
      why: `The peer's operator was asked for new keys; since ${state.keysAskedSince ?? ''} its well-known and its manifest are asked for them, at least once an hour.`,
      how: 'Nothing to do until they rotate: it goes on by itself. cordon retry <incident> verifyKeys --by <you> asks at once; cordon close <incident> … ends it.',
    });
    const scope = new CancellationScope();
    const asked = scope.run(() => patient.verifyKeys({ ref: incident.ref('rotate'), peer, firstBad: state.firstBad }));
    if (await isAnswered(incident, asked)) return asked;
    scope.cancel();
    await asked.catch(cancelledOnly);
    if (state.pending.verifyKeys === undefined) return 'skipped';
    await serveCommand(incident);
  }
}

/** True once the keys are there, or asking for them failed for good; false when people want something first. */
async function isAnswered(incident: Incident, asked: Promise<unknown>): Promise<boolean> {
  const { state } = incident;
  let answered = false;
  const settled = (): void => {
    answered = true;
  };
  asked.then(settled, settled);
  const called = () => answered || wants(incident) || state.pending.verifyKeys === undefined;
  const { remindEvery } = state.policy.rotation ?? rotationDefault;
  // Weeks may pass here: a switch to a new run must not wait for it.
  incident.busy -= 1;
  try {
    while (!(await condition(called, durationMs(remindEvery)))) await remindRotation(incident);
  } finally {
    incident.busy += 1;
  }
  return answered;
}

function wants(incident: Incident): boolean {
  return incident.commands.some(isAboutKeys);
}

const isAboutKeys = (command: { readonly step: string; readonly do: string }): boolean =>
  command.step === 'verifyKeys' && command.do !== 'skip';

async function serveCommand(incident: Incident): Promise<void> {
  const command = incident.takeCommand(isAboutKeys);
  if (!command || !(await stillCounts(incident, command)) || command.do === 'retry') return;
  incident.note('cordon', `verifyKeys: ${command.by} says it is done; cordon reads the peer's documents by itself, and asks again now`);
}

/** The peer's operator is slow: says so where people look; after a while to those above them too. */
async function remindRotation(incident: Incident): Promise<void> {
  const { state } = incident;
  const { escalateAfter } = state.policy.rotation ?? rotationDefault;
  const since = state.keysAskedSince ?? incident.now();
  const isOverdue = Date.now() - Date.parse(since) >= durationMs(escalateAfter);
  if (isOverdue)
    incident.warn(`The peer's operator has not delivered new keys within ${escalateAfter}: call them, or close the incident as expelled.`);
  const said = isOverdue ? 'are overdue: call its operator, or close the incident as expelled' : 'have not come so far';
  await announce(incident, isOverdue ? 'rotation-overdue' : 'rotation', `The peer's new keys ${said}. Asked for since ${since}.`);
}

function cancelledOnly(error: unknown): void {
  if (!isCancellation(error) && !(error instanceof ActivityFailure)) throw error;
}
