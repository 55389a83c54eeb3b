import { defaultPayloadConverter } from '@temporalio/common';
import type { Client } from '@temporalio/client';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { decideUpdate, amendUpdate, planQuery, statusQuery } from '../../src/contract/messages.ts';
import { defaultTaskQueue, stepsByPhase, workflowType, type Gate } from '../../src/contract/names.ts';
import type { IncidentResult, PlanAnswer, Status } from '../../src/contract/schemas.ts';
import { waitUntil } from '../../src/lab/processes.ts';
import type { PeerCompromise } from '../../workflows/index.ts';

/** Called when a gate is open and its digest known, with what decides it: a test may end the worker before, and start it after. */
export type AtGate = (gate: Gate, decide: () => Promise<void>) => Promise<void>;

/** How the incident was started: `cordon` gives workflow tasks 5 s, anybody else leaves the server's 10 s. */
export type StartedBy = 'cordon' | 'others';

interface Memo {
  readonly phase?: string;
  readonly gates?: readonly string[];
  readonly outcome?: string | null;
}

const patienceMs = 90_000;

/**
 * The people at one incident. Each message is sent once, under an id of its own, however often the server or
 * the worker dies meanwhile; whether it counted is seen in the end.
 */
export class Operator {
  readonly id: string;
  readonly #client: Client;
  readonly #atGate: AtGate;
  firstRun = '';
  decisions = 0;

  constructor(client: Client, id: string, atGate: AtGate = async (_gate, decide) => decide()) {
    this.#client = client;
    this.id = id;
    this.#atGate = atGate;
  }

  get handle() {
    return this.#client.workflow.getHandle<typeof PeerCompromise>(this.id);
  }

  /** Signal-with-start, as `cordon start` does it. */
  async start(input: { readonly peer: string; readonly policy?: object }, by: StartedBy): Promise<void> {
    const started = await this.#client.workflow.signalWithStart<(payload: unknown) => Promise<unknown>, [object]>(workflowType, {
      workflowId: this.id,
      taskQueue: defaultTaskQueue,
      args: [input],
      signal: 'alert',
      signalArgs: [{ name: 'peer_replay_burst' }],
      ...(by === 'cordon' ? { workflowTaskTimeout: '5s' } : {}),
    });
    this.firstRun = started.signaledRunId;
  }

  /** Waits for an opening of the gate, then approves it; `before` runs when it is seen. */
  async approve(gate: Gate, opening = 1, before?: () => Promise<void>): Promise<void> {
    const digest = await this.digestOf(gate, opening);
    await before?.();
    await this.#atGate(gate, async () => {
      this.decisions += 1;
      await this.signal('approve', { gate, digest, by: 'bob' });
    });
  }

  /** The same by update, which answers: it is sent under one id until it does. */
  async decide(gate: Gate, opening = 1): Promise<void> {
    const digest = await this.digestOf(gate, opening);
    await this.#atGate(gate, async () => {
      this.decisions += 1;
      const updateId = randomUUID();
      const ask = { updateId, args: [{ gate, decision: 'approve', digest, by: 'bob' }] as [unknown] };
      // It answers only when a worker is there again: nobody waits for that here.
      void this.#sure(`the verdict on ${gate}`, async () => {
        const { accepted } = await this.handle.executeUpdate(decideUpdate, ask);
        return accepted || undefined;
      }).catch(() => undefined);
      await sleep(100);
    });
  }

  /** Narrows the retract plan: keeps its first fact that was to be undone. */
  async amend(): Promise<void> {
    const digest = await this.digestOf('retract', 1);
    const plan = await this.#sure('the plan', (): Promise<PlanAnswer> => this.handle.query(planQuery, { gate: 'retract' }));
    const [first] = (plan.items ?? []).filter(({ action }) => action === 'retract').toSorted((a, b) => a.id.localeCompare(b.id));
    if (!first) throw new Error('nothing in the plan to keep');
    const updateId = randomUUID();
    const keep = [{ factId: first.id, justification: 'known to be true' }];
    await this.#sure('the amendment', async () => {
      const answer = await this.handle.executeUpdate(amendUpdate, { updateId, args: [{ gate: 'retract', digest, keep, by: 'alice' }] });
      if (!answer.accepted) throw new Error(`the amendment was refused: ${JSON.stringify(answer)}`);
      return true;
    });
  }

  /** Signals under one request id, again until the server has it: it takes the same one once. */
  async signal(signalName: string, payload: object): Promise<void> {
    const requestId = randomUUID();
    const { namespace, identity } = this.#client.options;
    await this.#sure(`the server to take ${signalName}`, async () => {
      await this.#client.workflowService.signalWorkflowExecution({
        namespace,
        identity,
        workflowExecution: { workflowId: this.id },
        signalName,
        input: { payloads: [defaultPayloadConverter.toPayload(payload)] },
        requestId,
      });
      return true;
    });
  }

  async close(outcome: 'expelled' | 'dismissed'): Promise<void> {
    if (outcome === 'dismissed') await this.told();
    const { run } = await this.status();
    await this.signal('close', { outcome, run, by: 'alice', reason: 'the matrix' });
    await this.approve(outcome === 'expelled' ? 'close' : 'restore');
  }

  /** Nobody dismisses an incident while its notices go out: the report would rightly be another one. */
  async told(): Promise<void> {
    await this.#sure('the notices to be out', async () => {
      const { steps } = await this.status();
      return stepsByPhase.communicate.every((name) => steps.some((step) => step.name === name)) || undefined;
    });
  }

  /** Nobody closes an incident between a reminder and its record: the activity would rightly not be tried again. */
  async reminded(): Promise<void> {
    await this.#sure('a reminder on record', async () => {
      const { events } = await this.handle.fetchHistory();
      const asked = (events ?? []).filter(({ activityTaskScheduledEventAttributes: of }) => of?.activityType?.name === 'remind');
      const ids = new Set(asked.map(({ eventId }) => String(eventId)));
      return (events ?? []).some(({ activityTaskCompletedEventAttributes: of }) => of && ids.has(String(of.scheduledEventId))) || undefined;
    });
  }

  /** What people see without a worker. */
  async memo(): Promise<Memo> {
    const { memo = {} } = await this.handle.describe();
    return (memo['cordon'] ?? {}) as Memo;
  }

  async until(what: string, fits: (memo: Memo) => boolean): Promise<void> {
    await this.#sure(what, async () => fits(await this.memo()) || undefined);
  }

  /** Needs a worker, or waits for one. */
  async status(): Promise<Status> {
    return this.#sure('status', () => this.#client.withDeadline(Date.now() + 10_000, () => this.handle.query(statusQuery)));
  }

  async result(): Promise<IncidentResult> {
    await this.#sure(`${this.id} to end`, async () => (await this.handle.describe()).status.name !== 'RUNNING' || undefined);
    return this.handle.result();
  }

  /** The memo first: a query would itself wake an incident whose worker is gone. */
  private async digestOf(gate: Gate, opening: number): Promise<string> {
    await this.until(`gate ${gate}#${opening} of ${this.id}`, ({ gates = [] }) => gates.includes(`${gate}#${opening}`));
    return this.#sure(`the digest of ${gate}#${opening}`, async () => {
      const { waitingFor } = await this.status();
      return waitingFor.flatMap((waiting) =>
        waiting.kind === 'gate' && waiting.gate === gate && waiting.opening === opening ? [waiting.digest] : [],
      )[0];
    });
  }

  #sure<T>(what: string, check: () => Promise<T | false | undefined>): Promise<T> {
    return waitUntil(what, check, { timeoutMs: patienceMs, everyMs: 50 });
  }
}
