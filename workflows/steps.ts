import { ActivityFailure, ApplicationFailure } from '@temporalio/common';
import { CancellationScope, condition, isCancellation, patched } from '@temporalio/workflow';
import { canonicalJson, planHash, sha256Id } from '../src/contract/canonical.ts';
import { spanWords } from '../src/contract/duration.ts';
import { phaseOf, type Phase, type Step } from '../src/contract/names.ts';
import type { IncidentRef, StepResult } from '../src/contract/steps.ts';
import { askPeople } from './ask.ts';
import { explain, failureTypeOf, type Tried } from './explain.ts';
import type { GatePlan } from './gates.ts';
import type { Incident } from './incident.ts';
import type { PendingStep, StepCommand } from './state.ts';

/** What an activity of a step is told: `readBack` asks it to look only, after a person did it by hand. */
export interface Attempt {
  readonly ref: IncidentRef;
  readonly readBack: boolean;
  /** The note of the person who sent `retry`: which of two peers it is, for one. */
  readonly hint?: string;
  /** People asked for another attempt: a stronger way may be there now. */
  readonly again?: boolean;
}
type Act<T extends StepResult> = (attempt: Attempt) => Promise<T>;

const firstWaitMs = 15_000;
const longestWaitMs = 600_000;

/** These phases can't be skipped by one word: a skip counts only through gate `skip`. */
const skipNeedsGate: readonly Phase[] = ['contain', 'rotate', 'reregister', 'watch'];

/**
 * Runs one step to its end and records how it ended. A step that was done in this round (before
 * continue-as-new) is not done again.
 * @returns what the activity found, or undefined when it was done before, skipped, or done by hand
 */
export async function step<T extends StepResult>(incident: Incident, name: Step, act: Act<T>): Promise<T | undefined> {
  if (incident.isDone(name)) return undefined;
  const result = await insist(incident, name, act, act);
  return result && settle(incident, name, result);
}

/**
 * Does what a step needs until it works. A failure parks the step: status says what is stuck and what to
 * do, and it tries again by itself with growing waits, so that an outage never ends an incident and needs
 * nobody when it ends.
 * @param look - what `done` reads back by; without it, `done` has nothing to be believed by
 * @returns what the activity found, or undefined when people ended the step by `done` or `skip`
 */
export async function insist<T>(
  incident: Incident,
  name: Step,
  act: (attempt: Attempt) => Promise<T>,
  look?: Act<StepResult>,
): Promise<T | undefined> {
  incident.busy += 1;
  // What comes after a closing is not begun any more.
  const { begun = [] } = incident.state;
  if (!CancellationScope.current().consideredCancelled && !begun.includes(name)) incident.state.begun = [...begun, name];
  let hint: string | undefined;
  try {
    for (let waitMs = firstWaitMs; ; waitMs = Math.min(waitMs * 2, longestWaitMs)) {
      const ref = incident.ref(phaseOf(name));
      const waited = incident.state.pending[name] !== undefined;
      const tried = await attempt(() => act({ ref, readBack: false, ...(hint === undefined ? {} : { hint }) }), hint !== undefined);
      if ('result' in tried) {
        if (incident.state.pending[name]?.kind === 'parked') incident.resume(name);
        return tried.result;
      }
      // Skipped behind its gate while this attempt was under way.
      if (waited && incident.state.pending[name] === undefined && patched('skipped-meanwhile')) return undefined;
      const how = `${tried.how} It tries again by itself within ${spanWords(waitMs)}; or: cordon retry|done|skip <incident> ${name} --by <you>.`;
      incident.wait({ step: name, kind: 'parked', why: tried.why, how });
      const woken = await parked(incident, name, waitMs, look);
      if (woken === 'ended') return undefined;
      // A note names a peer only where one was asked for; one that fits none is forgotten, and the question stands again.
      if (tried.type === 'PeerAmbiguous') hint = woken.hint ?? hint;
      else if (tried.type === 'PeerNotFound') hint = woken.hint;
    }
  } finally {
    incident.busy -= 1;
  }
}

/** Waits for a word or the time to try again; `ended` when people ended the step meanwhile. */
async function parked(
  incident: Incident,
  name: Step,
  waitMs: number,
  look?: Act<StepResult>,
): Promise<'ended' | { readonly hint?: string }> {
  const deadline = Date.now() + waitMs;
  const wants = (command: StepCommand) => command.step === name && !needsGate(command);
  // Not whether the step is done: what belongs to it (a claim, alerts that came later) parks under its name when it is.
  const ended = () => incident.state.pending[name] === undefined;
  for (;;) {
    incident.busy -= 1;
    try {
      await condition(() => ended() || incident.commands.some(wants), Math.max(1, deadline - Date.now()));
    } finally {
      incident.busy += 1;
    }
    if (ended()) return 'ended';
    const command = incident.takeCommand(wants);
    if (!command && Date.now() >= deadline) return {};
    if (!command || !(await stillCounts(incident, command))) continue;
    if (command.do === 'retry') return command.note === '' ? {} : { hint: command.note };
    if (command.do === 'skip') {
      skip(incident, command);
      return 'ended';
    }
    if (await readBack(incident, command, look)) return 'ended';
  }
}

export function settle<T extends StepResult>(incident: Incident, name: Step, result: T): T {
  incident.absorb(result);
  incident.record(name, result);
  if (result.manual) incident.wait({ step: name, kind: 'manual', ...result.manual });
  else if (incident.state.pending[name]) incident.resume(name);
  return result;
}

/** `retry`, `done` and `skip` for steps a person has to do by hand: they hold nobody up, so a desk of their own serves them. */
export async function manualStepDesk(incident: Incident, acts: Partial<Record<Step, Act<StepResult>>>): Promise<never> {
  const wants = (command: StepCommand) => incident.state.pending[command.step]?.kind === 'manual' && !needsGate(command);
  for (;;) {
    await condition(() => incident.commands.some(wants));
    const command = incident.takeCommand(wants);
    if (!command) continue;
    incident.busy += 1;
    try {
      if (!(await stillCounts(incident, command))) continue;
      const act = acts[command.step];
      if (command.do === 'skip') skip(incident, command);
      else if (command.do === 'done') await readBack(incident, command, act);
      else if (act) await tryAgain(incident, command.step, act);
      else incident.note('cordon', `${command.step}: there is nothing to try again; do what status says, then send skip`);
    } finally {
      incident.busy -= 1;
    }
  }
}

/** Waits until people ask for it again by `retry`, or the step was skipped behind its gate: nothing else is believed here. */
export async function holdFor(incident: Incident, { step: name, why, how }: Pick<PendingStep, 'step' | 'why' | 'how'>): Promise<void> {
  incident.wait({ step: name, kind: 'held', why, how });
  // What is held may be a step that ended: then only another record of it is news.
  const before = incident.recordOf(name);
  const isSkipped = () => incident.recordOf(name) !== before;
  const isAbout = (command: StepCommand) => command.step === name && !needsGate(command);
  for (;;) {
    await condition(() => incident.commands.some(isAbout) || isSkipped());
    const command = incident.takeCommand(isAbout);
    if (!command || (command.do === 'retry' && (await stillCounts(incident, command)))) break;
    if (command.do !== 'retry') incident.note('cordon', `${name}: ${command.by} sent ${command.do}: use retry, or close`);
  }
  incident.resume(name);
}

/** Does a step once more, now that more is known; its record is replaced. */
export async function stepAgain(incident: Incident, name: Step, act: Act<StepResult>): Promise<void> {
  incident.forget(name);
  await step(incident, name, act);
}

async function tryAgain(incident: Incident, name: Step, act: Act<StepResult>): Promise<void> {
  const tried = await attempt(() => act({ ref: incident.ref(phaseOf(name)), readBack: false, again: true }));
  if ('result' in tried) settle(incident, name, tried.result);
  else incident.note('cordon', `retry of ${name} failed: ${tried.why}`);
}

/** Skipping a step of contain, rotate or reregister leaves a door open: it counts only through gate `skip`, one at a time. */
export async function skipDesk(incident: Incident): Promise<never> {
  const { state } = incident;
  for (;;) {
    if (!state.skipAsked) {
      await condition(() => incident.commands.some(needsGate));
      const command = incident.takeCommand(needsGate);
      if (!command || !(await stillCounts(incident, command))) continue;
      state.skipAsked = command;
    }
    const command = state.skipAsked;
    const isMoot = () => state.pending[command.step] === undefined;
    const answer = await askPeople(incident, 'skip', skipPlan(command), { requestedBy: command.by, isMoot });
    if (answer === 'approved' && !isMoot()) skip(incident, command);
    if (answer === 'rejected') incident.shut('skip');
    state.skipAsked = null;
  }
}

function needsGate(command: StepCommand): boolean {
  return command.do === 'skip' && skipNeedsGate.includes(phaseOf(command.step));
}

function skipPlan({ step: id, by, note }: StepCommand): GatePlan {
  const reason = `${note || 'no reason given'} (asked by ${by})`;
  return {
    planHash: planHash([{ id, action: 'skip', contentHash: sha256Id(canonicalJson({ by, note })) }]),
    counts: { skip: 1 },
    summary: `skip ${id}: ${reason}`.slice(0, 1_000),
    items: [{ id, entity: '', relation: '', scope: '', action: 'skip', way: 'none', rule: 'skip', reason, evidence: [] }],
  };
}

function skip(incident: Incident, { step: name, by, note }: StepCommand): void {
  incident.record(name, { outcome: 'unverified', way: 'none', detail: `skipped by ${by}: ${note || 'no reason given'}` });
  incident.resume(name);
}

/** A person says it is done: it counts as `manual` only when the node shows it. */
async function readBack(incident: Incident, command: StepCommand, look: Act<StepResult> | undefined): Promise<boolean> {
  const { step: name, by, note } = command;
  const said = `${by} says it is done${note ? ` (${note})` : ''}`;
  if (!look) {
    incident.note('cordon', `${name}: ${said}, but this step has nothing to read back: use retry or skip`);
    return false;
  }
  const tried = await attempt(() => look({ ref: incident.ref(phaseOf(name)), readBack: true }));
  if (!('result' in tried)) {
    incident.note('cordon', `${name}: ${said}, but reading back failed: ${tried.why}`);
    return false;
  }
  const { result } = tried;
  incident.absorb(result);
  if (result.outcome === 'verified') {
    incident.record(name, { ...result, outcome: 'manual', way: 'manual', detail: `${said}; read back: ${result.detail}` });
    incident.resume(name);
    return true;
  }
  const detail = `${said}; the read-back does not show it: ${result.detail}`;
  const pending = incident.state.pending[name];
  if (pending?.kind === 'manual') incident.record(name, { ...result, outcome: 'unverified', way: 'manual', detail });
  if (pending) incident.wait({ ...pending, why: detail });
  return false;
}

/** Was the command given in this run? After a reset an old one comes again and is void. */
export async function stillCounts(incident: Incident, command: StepCommand): Promise<boolean> {
  const run = await incident.confirmRun();
  if (command.run === run) return true;
  incident.refuse('stale_run', command.by, `${command.do} ${command.step}: given before a reset`);
  return false;
}

async function attempt<T>(act: () => Promise<T>, hinted = false): Promise<Tried<T>> {
  try {
    return { result: await act() };
  } catch (error) {
    if (isCancellation(error)) throw error;
    const type = failureTypeOf(error);
    // Nothing that time or people at this incident could mend: the start itself was wrong.
    if ((type === 'PeerNotFound' && !hinted) || type === 'InvalidInput') {
      throw ApplicationFailure.nonRetryable(error instanceof ActivityFailure ? (error.cause ?? error).message : String(error), type);
    }
    return explain(error);
  }
}
