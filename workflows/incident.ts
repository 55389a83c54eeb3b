import {
  allHandlersFinished,
  CancellationScope,
  patched,
  setCurrentDetails,
  sleep,
  upsertMemo,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import { phaseOf, searchAttributes, type Gate, type Mode, type Phase, type Refusal, type Step } from '../src/contract/names.ts';
import type { AmendAnswer, Amendment, CloseRequest, Coverage, Status } from '../src/contract/schemas.ts';
import type { EvidenceHead, FirstBad, IncidentRef, StepResult } from '../src/contract/steps.ts';
import { isDecided, openGate, tally, type AskedBy, type GatePlan, type OpenGate, type Runs } from './gates.ts';
import { here } from './policies.ts';
import { countsOf, detailsOf, memoOf, searchAttributesOf, statusOf } from './status.ts';
import type { IncidentState, PendingStep, StepCommand, StepRecord } from './state.ts';
import { tellGateEnded, tellGateOpened, tellPending, tellPhase, tellRefused, tellResumed, tellStepEnded, tellWarning } from './tell.ts';

/** A flood of stale messages must not become a flood of questions: their senders wait this long at worst. */
const askAgainMs = 1_000;
const kept = { refusals: 50, notes: 50, alerts: 500, alertChars: 300, warnings: 50, coverage: 100 } as const;

/** An amendment that waits for the retract gate to narrow the plan by it. */
export interface QueuedAmendment {
  readonly amendment: Amendment;
  readonly run: string;
  answer?: AmendAnswer;
}

/**
 * One incident: its state, and what waits for the runbook in peer-compromise.ts. What messages do to it is in
 * inbox.ts. Every method is deterministic.
 */
export class Incident {
  /** Step commands, amendments and close requests that were accepted and wait for the runbook. */
  readonly commands: StepCommand[] = [];
  readonly amendments: QueuedAmendment[] = [];
  readonly closeRequests: (CloseRequest & { readonly runNamed: string })[] = [];
  /** Steps and desks at work: continue-as-new waits until there are none. */
  busy = 0;
  messages = 0;
  /** How many of them were signals. */
  signals = 0;
  private published = '';
  private publishedValues = '';
  private asking: Promise<string> | undefined;
  private askingSoon: Promise<string> | undefined;
  private askedAtMs = 0;
  private readonly waitingForRun: (() => void)[] = [];
  isSwitching = false;
  /** Fingerprints that were brought and did not fit, not told to people yet. */
  mismatches = 0;

  constructor(public state: IncidentState) {}

  get mode(): Mode {
    return this.state.start.mode ?? 'live';
  }

  get runs(): Runs {
    return { current: workflowInfo().runId, recorded: this.state.recordedRun };
  }

  now = (): string => new Date().toISOString();

  ref(phase: Phase = this.state.phase): IncidentRef {
    const { workflowId, firstExecutionRunId } = workflowInfo();
    return {
      incident: workflowId,
      firstRun: firstExecutionRunId,
      mode: this.mode,
      phase,
      round: this.state.round,
      at: this.now(),
      ...(this.state.ourNode ? { nodeId: this.state.ourNode.nodeId } : {}),
      ...(this.state.evidence.head === '' ? {} : { evidenceHead: this.state.evidence.head }),
    };
  }

  /** Takes over what an activity found out, whatever it was about. */
  absorb(result: Partial<Pick<StepResult, 'coverage' | 'warnings'>> & { readonly evidence: EvidenceHead }): void {
    // Steps run side by side and finish in any order; the chain only grows.
    if (result.evidence.entries >= this.state.evidence.entries) this.state.evidence = result.evidence;
    for (const coverage of result.coverage ?? []) this.cover(coverage);
    for (const warning of result.warnings ?? []) this.warn(warning);
  }

  private cover(coverage: Coverage): void {
    this.state.coverage = [...this.state.coverage.filter(({ what }) => what !== coverage.what), coverage].slice(-kept.coverage);
  }

  warn(warning: string): void {
    if (this.state.warnings.includes(warning)) return;
    this.state.warnings = [...this.state.warnings, warning].slice(-kept.warnings);
    tellWarning(this.state, warning);
  }

  firstBad(found: FirstBad | null): void {
    const known = this.state.firstBad;
    if (!found || known?.from === 'operator') return;
    if (!known || Date.parse(found.at) < Date.parse(known.at)) this.state.firstBad = found;
  }

  enter(phase: Phase): void {
    if (phase !== this.state.phase) {
      tellPhase(this.state, phase, this.now());
      this.state.phaseSince = this.now();
    }
    this.state.phase = phase;
    this.publish();
  }

  /** Shows where the incident is to those who can't query: memo, search attributes, current details. */
  publish(): void {
    const withCounts = this.showsCounts();
    const memo = withCounts ? { ...memoOf(this.state), ...countsOf(this.state) } : memoOf(this.state);
    const shown = JSON.stringify(memo);
    if (shown !== this.published) {
      this.published = shown;
      upsertMemo({ cordon: memo });
      const attributes = searchAttributesOf(this.state, searchAttributes);
      const values = JSON.stringify(attributes.map(({ value }) => value));
      if (attributes.length > 0 && !(withCounts && values === this.publishedValues)) upsertSearchAttributes(attributes);
      this.publishedValues = values;
    }
    setCurrentDetails(detailsOf(this.state, this.runs.current));
  }

  /** The counts in the memo came after 0.1.0: a run begun before shows them once it goes on. */
  private showsCounts(): boolean {
    return patched('memo-counts');
  }

  refuse(because: Refusal, by: string, detail?: string): void {
    const { count, last } = this.state.refused;
    const entry = { at: this.now(), by: by.slice(0, 200), because, ...(detail === undefined ? {} : { detail: detail.slice(0, 500) }) };
    this.state.refused = { count: count + 1, last: [...last, entry].slice(-kept.refusals) };
    tellRefused(this.state, because, entry.by, entry.detail);
  }

  // ── gates ──────────────────────────────────────────────────────────────────────────────────────

  gate(gate: Gate): OpenGate | undefined {
    return this.state.gates[gate];
  }

  setGate(gate: OpenGate): void {
    this.state.gates = { ...this.state.gates, [gate.gate]: gate };
  }

  open(gate: Gate, plan: GatePlan, by: AskedBy = {}): OpenGate {
    const opened = openGate(this.state.policy, this.state.openings[gate] ?? 0, { gate, plan, ...by }, Date.now());
    const before = this.gate(gate);
    if (before && !before.held) tellGateEnded(this.state, before, 'asked anew', this.now());
    this.state.openings = { ...this.state.openings, [gate]: opened.opening };
    this.setGate(opened);
    tellGateOpened(this.state, opened);
    this.publish();
    return opened;
  }

  shut(gate: Gate): void {
    const { [gate]: shut, ...others } = this.state.gates;
    if (shut && !shut.held) tellGateEnded(this.state, shut, isDecided(shut, this.state.policy) ?? 'nothing left to ask', this.now());
    this.state.gates = others;
    this.publish();
  }

  decided(gate: Gate): 'approved' | 'rejected' | undefined {
    const open = this.gate(gate);
    return open && !open.held ? isDecided(open, this.state.policy) : undefined;
  }

  /**
   * Asks an activity which run this is. A reset copies the history up to its point into a new run: what
   * people decided in the old run is void there, and this is how the copied part still replays as it was.
   */
  confirmRun(): Promise<string> {
    // One question at a time. What was decided is off the table until it is answered: handing over now would lose it.
    if (this.asking === undefined) {
      this.busy += 1;
      this.asking = CancellationScope.nonCancellable(() => this.askRun()).finally(() => {
        this.busy -= 1;
        this.asking = undefined;
      });
    }
    return this.asking;
  }

  private async askRun(): Promise<string> {
    const { run } = await here.whichRun();
    this.askedAtMs = Date.now();
    if (run !== this.state.recordedRun) {
      this.state.recordedRun = run;
      for (const open of Object.values(this.state.gates)) {
        const voided = open.votes.filter((vote) => vote.run !== run);
        for (const vote of voided) this.refuse('stale_digest', vote.by, `${open.gate}: decided before a reset, asked again`);
        this.setGate({ ...open, votes: open.votes.filter((vote) => vote.run === run) });
      }
      this.warn(`This run is a reset copy: what people decided before ${this.now()} is void and asked again.`);
      this.publish();
    }
    return run;
  }

  // ── what messages bring ────────────────────────────────────────────────────────────────────────

  /** Asks within a second which run this is, for all who want to know meanwhile; not at all once it hands over to the next run. */
  async askSoon(): Promise<void> {
    if (this.isSwitching) return;
    this.askingSoon ??= CancellationScope.nonCancellable(async () => {
      const waitMs = this.askedAtMs + askAgainMs - Date.now();
      if (waitMs > 0) await sleep(waitMs);
      return this.confirmRun();
    }).finally(() => (this.askingSoon = undefined));
    await this.askingSoon;
  }

  /** Settles a signal once it is known which run this is: one question, and one promise, for however many come. */
  whenRunIsKnown(settle: () => void): void {
    this.waitingForRun.push(settle);
    if (this.waitingForRun.length > 1) return;
    void this.askSoon().then(() => {
      for (const each of this.waitingForRun.splice(0)) each();
    });
  }

  /** Has every message been settled that came so far? */
  readonly isAllSettled = (): boolean => this.waitingForRun.length === 0 && allHandlersFinished();

  alert(alert: IncidentState['alerts'][number]): void {
    this.state.alertCount += 1;
    if (this.state.alerts.length >= kept.alerts) return;
    // The whole of it stands in the history; one payload could not hold five hundred of the longest.
    const { detail, ...named } = alert;
    const short = detail === undefined ? named : { ...named, detail: detail.slice(0, kept.alertChars) };
    this.state.alerts = [...this.state.alerts, short];
  }

  note(by: string, text: string): void {
    this.state.notes = [...this.state.notes, { at: this.now(), by, text: text.slice(0, 1_000) }].slice(-kept.notes);
  }

  // ── steps ──────────────────────────────────────────────────────────────────────────────────────

  isDone(step: Step): boolean {
    return this.recordOf(step) !== undefined;
  }

  /** How it ended in this round. */
  recordOf(step: Step): StepRecord | undefined {
    return this.state.steps.find(({ name, round }) => name === step && round === this.state.round);
  }

  record(step: Step, result: Omit<StepResult, 'evidence'>): void {
    const others = this.state.steps.filter(({ name, round }) => name !== step || round !== this.state.round);
    const { outcome, way, detail, residual = [] } = result;
    const ended: StepRecord = { name: step, phase: phaseOf(step), round: this.state.round, outcome, way, at: this.now(), detail, residual };
    this.state.steps = [...others, ended];
    tellStepEnded(this.state, ended);
    // Where nothing else is shown soon, the count of what is not verified would stay behind.
    if (this.showsCounts()) this.publish();
  }

  /** Takes a record back: the step has to be done again. */
  forget(step: Step): void {
    this.state.steps = this.state.steps.filter(({ name, round }) => name !== step || round !== this.state.round);
  }

  wait(pending: Omit<PendingStep, 'since'>): void {
    this.state.pending = { ...this.state.pending, [pending.step]: { ...pending, since: this.now() } };
    tellPending(this.state, pending);
    this.publish();
  }

  resume(step: Step): void {
    const { [step]: resumed, ...others } = this.state.pending;
    if (resumed) tellResumed(this.state, resumed, this.now());
    this.state.pending = others;
    this.publish();
  }

  /** Takes the next command that the given predicate wants, refusing those from before a reset. */
  takeCommand(wants: (command: StepCommand) => boolean): StepCommand | undefined {
    const index = this.commands.findIndex(wants);
    return index < 0 ? undefined : this.commands.splice(index, 1)[0];
  }

  /** The status as of now: for the query, and for the report. */
  snapshot(): Status {
    const { workflowId, runId } = workflowInfo();
    const drill = this.mode === 'drill' ? ['DRILL: the node is read, nothing on it is changed, and nobody outside is told.'] : [];
    return statusOf(this.state, { incident: workflowId, runId, extra: drill });
  }

  tallyOf(open: OpenGate): ReturnType<typeof tally> {
    return tally(open, this.state.policy);
  }
}
