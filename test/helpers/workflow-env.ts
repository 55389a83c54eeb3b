import { WorkflowNotFoundError } from '@temporalio/common';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import type { WorkflowHandle } from '@temporalio/client';
import { DefaultLogger, Runtime, Worker, type WorkflowBundleWithSourceMap } from '@temporalio/worker';
import { fileURLToPath } from 'node:url';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { bundleWorkflows } from '../../src/bundle-workflows.ts';
import { bundlePath } from '../../src/paths.ts';
import { startTemporal } from '../../src/lab/temporal-server.ts';
import { repoRoot, temporalTestServerBin } from '../../src/lab/tools.ts';
import { amendUpdate, decideUpdate, planQuery, statusQuery } from '../../src/contract/messages.ts';
import type { AmendAnswer, DecisionAnswer, IncidentResult, PlanAnswer, Status } from '../../src/contract/schemas.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { fakeActivities, type FakeWorld } from './fake-activities.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
/** Built: the worker loads it by itself, and Node does not read TypeScript. */
export const converterPath = here('../../dist/src/payload-converter.js');

let bundling: Promise<WorkflowBundleWithSourceMap> | undefined;
let installed = false;

/** The workflow code, bundled once for a test file. */
export function workflowBundle(): Promise<WorkflowBundleWithSourceMap> {
  if (!installed) Runtime.install({ logger: new DefaultLogger('ERROR') });
  installed = true;
  bundling ??= bundleWorkflows({ dir: repoRoot, payloadConverter: converterPath, logger: new DefaultLogger('ERROR') });
  return bundling;
}

export type Incident = WorkflowHandle<typeof PeerCompromise>;

/** A dev server on a database of its own (a file, if not told otherwise): reset, listing and a real clock. */
export async function devServer(
  name: string,
  dynamicConfig: readonly string[] = [],
  inMemory = false,
): Promise<TestWorkflowEnvironment & { readonly address: string; readonly pid: number | undefined; stop(): Promise<void> }> {
  await workflowBundle();
  const dir = join(repoRoot, '.test', name);
  rmSync(dir, { recursive: true, force: true });
  const server = await startTemporal({ dir, dynamicConfig, inMemory });
  const env = await TestWorkflowEnvironment.createFromExistingServer({ address: server.address });
  const stop = async (): Promise<void> => {
    await env.teardown();
    await server.stop();
  };
  return Object.assign(env, { address: server.address, pid: server.pid, stop });
}

/** A server with time skipping. */
export async function timeSkipping(): Promise<TestWorkflowEnvironment> {
  await workflowBundle();
  return TestWorkflowEnvironment.createTimeSkipping({ server: { executable: { type: 'existing-path', path: temporalTestServerBin() } } });
}

export interface StartOptions {
  readonly input?: unknown;
  readonly id?: string;
  readonly taskQueue?: string;
  /** Runs the bundle that the build made, as `cordon worker` does. */
  readonly built?: boolean;
  /** 0: every workflow task and every query replays the whole history, as after a crash. */
  readonly maxCachedWorkflows?: number;
  /** While no worker is there yet. */
  readonly before?: (incident: Incident) => Promise<unknown>;
}

let started = 0;

/** Runs `test` with a worker on the fake world, and an incident that has begun. */
export async function withIncident<T>(
  env: TestWorkflowEnvironment,
  world: FakeWorld,
  test: (incident: Incident) => Promise<T>,
  options: StartOptions = {},
): Promise<T> {
  started += 1;
  const taskQueue = options.taskQueue ?? `test-${started}`;
  const worker = await Worker.create({
    connection: env.nativeConnection,
    taskQueue,
    workflowBundle: options.built ? { codePath: bundlePath() } : await workflowBundle(),
    dataConverter: { payloadConverterPath: converterPath },
    activities: fakeActivities(world),
    ...(options.maxCachedWorkflows === undefined ? {} : { maxCachedWorkflows: options.maxCachedWorkflows }),
  });
  const incident = await env.client.workflow.start<typeof PeerCompromise>('PeerCompromise', {
    taskQueue,
    workflowId: options.id ?? `incident-${started}`,
    args: ['input' in options ? options.input : { peer: 'http://127.0.0.1:8802' }],
  });
  await options.before?.(incident);
  return worker.runUntil(async () => {
    try {
      return await test(incident);
    } finally {
      // A task of an open workflow that no worker takes would stop the server's clock for the tests that follow.
      await incident.terminate('the test is over').catch(ignoreNotFound);
    }
  });
}

function ignoreNotFound(error: unknown): void {
  if (!(error instanceof WorkflowNotFoundError)) throw error;
}

export function status(incident: Incident): Promise<Status> {
  return incident.query(statusQuery);
}

export function plan(incident: Incident, gate?: string): Promise<PlanAnswer> {
  return gate === undefined ? incident.query(planQuery) : incident.query(planQuery, { gate });
}

/** Polls status until it fits; the last one is in the error when it never does. Real time, since queries skip none. */
export async function until(incident: Incident, fits: (status: Status) => boolean, what: string, timeoutMs = 20_000): Promise<Status> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const now = await status(incident);
    if (fits(now)) return now;
    if (Date.now() > deadline) throw new Error(`${what} did not come about; status: ${JSON.stringify(now, null, 1)}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Waits until a gate is open; gives its entry of `waitingFor`. */
export async function gateOpen(incident: Incident, gate: string, opening?: number) {
  const open = (now: Status) =>
    now.waitingFor.flatMap((waiting) =>
      waiting.kind === 'gate' && waiting.gate === gate && (opening === undefined || waiting.opening === opening) ? [waiting] : [],
    );
  const found = open(await until(incident, (now) => open(now).length > 0, `gate ${gate}`))[0];
  if (!found) throw new Error('unreachable');
  return found;
}

export function stepOf(now: Status, step: string): Status['steps'][number] | undefined {
  return now.steps.find(({ name }) => name === step);
}

/** Waits until this step waits for people or for time; gives its entry of `waitingFor`, and the run. */
export async function waits(incident: Incident, step: string, why = '') {
  const entry = (now: Status) =>
    now.waitingFor.flatMap((waiting) =>
      waiting.kind === 'step' && waiting.step === step && waiting.why.includes(why) ? [waiting] : [],
    )[0];
  const now = await until(incident, (seen) => entry(seen) !== undefined, `${step} waiting`);
  return { now, run: now.run, ...entry(now) };
}

/**
 * The time-skipping server loses its workflow task when an update comes while one is under way (the dev server
 * and a real one do not): so under time skipping, updates wait until nothing is.
 */
export async function idle(incident: Incident): Promise<void> {
  for (let quiet = 0; quiet < 2;) {
    const { raw } = await incident.describe();
    // What waits for the peer is at rest; the test server shows it as started between two attempts too.
    const atWork = (raw.pendingActivities ?? []).filter(({ activityType }) => activityType?.name !== 'verifyKeys');
    const busy = atWork.length > 0 || raw.pendingWorkflowTask;
    quiet = busy ? 0 : quiet + 1;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function decide(incident: Incident, decision: unknown): Promise<DecisionAnswer> {
  await idle(incident);
  return incident.executeUpdate(decideUpdate, { args: [decision] });
}

export async function amend(incident: Incident, amendment: unknown): Promise<AmendAnswer> {
  await idle(incident);
  return incident.executeUpdate(amendUpdate, { args: [amendment] });
}

/** Approves whatever opening of the gate is open now. */
export async function approve(incident: Incident, gate: string, by = 'bob'): Promise<DecisionAnswer> {
  const { digest } = await gateOpen(incident, gate);
  return decide(incident, { gate, decision: 'approve', digest, by });
}

/** Asks to close, approves, and waits for the result. */
export async function closeAs(incident: Incident, outcome: 'expelled' | 'dismissed', by = 'bob'): Promise<IncidentResult> {
  const { run } = await status(incident);
  await incident.signal('close', { outcome, run, by: 'alice', reason: 'test' });
  await approve(incident, outcome === 'expelled' ? 'close' : 'restore', by);
  return incident.result();
}
