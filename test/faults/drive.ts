import { ServiceError, type Client } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';
import { activityInfo } from '@temporalio/activity';
import { setTimeout as sleep } from 'node:timers/promises';
import { createActivities } from '../../activities/index.ts';
import { decideUpdate, statusQuery } from '../../src/contract/messages.ts';
import { isStep, workflowType, type Step } from '../../src/contract/names.ts';
import type { IncidentResult, Status } from '../../src/contract/schemas.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { converterPath, workflowBundle } from '../helpers/workflow-env.ts';
import { peerEntity, type Template } from './template.ts';
import type { Cell, World } from './world.ts';

const taskQueue = 'faults';

/** One worker for all worlds: an incident's activities are those of its own world. */
export async function faultWorker(address: string, template: Template, worlds: ReadonlyMap<string, World>) {
  // First: it installs the runtime that a connection would start.
  const bundle = await workflowBundle();
  const connection = await NativeConnection.connect({ address });
  const names = Object.keys(createActivities(template.scene.deps));
  const activities = Object.fromEntries(
    names.map((name) => [
      name,
      async (input: unknown) => {
        const workflowId = activityInfo().workflowExecution?.workflowId ?? '';
        // SealHistory runs under an id of its own, and names its incident.
        const incident = worlds.has(workflowId) ? workflowId : (input as { incident?: string }).incident;
        const world = worlds.get(incident ?? '');
        if (world === undefined) throw new Error(`${workflowId} has no world`);
        return world.act(name, input);
      },
    ]),
  );
  const worker = await Worker.create({
    connection,
    taskQueue,
    workflowBundle: bundle,
    dataConverter: { payloadConverterPath: converterPath },
    activities,
    stickyQueueScheduleToStartTimeout: '5s',
    maxHeartbeatThrottleInterval: '1s',
    defaultHeartbeatThrottleInterval: '1s',
  });
  const running = worker.run();
  return {
    async stop() {
      worker.shutdown();
      await running;
      await connection.close();
    },
  };
}

export interface Played {
  readonly result: IncidentResult;
  readonly status: Status;
  readonly history: string;
  readonly statuses: string[];
  readonly ms: number;
}

const stepOf = (activity: string): Step => {
  if (isStep(activity)) return activity;
  if (activity === 'remakePlan' || activity === 'narrowPlan') return 'assess';
  if (activity === 'holdAlerts') return 'captureLocal';
  if (activity === 'releasePeer') return 'seal';
  return 'resolvePeer';
};

/** How long a step may take to park before the run is called stuck. */
const stuckAfterMs = 600_000;
const pollMs = 700;

/**
 * Plays one incident to `dismissed`: every phase this version has, and the way back. Whatever parks under
 * a fault is released and told to retry.
 */
export async function play(client: Client, world: World, { beforeClose }: { beforeClose?: () => Promise<void> } = {}): Promise<Played> {
  const began = Date.now();
  const handle = await client.workflow.start<typeof PeerCompromise>(workflowType, {
    taskQueue,
    workflowId: world.id,
    args: [{ peer: peerEntity, alerts: [{ name: 'peer_replay_burst' }], reportedBy: 'alice' }],
  });
  const statuses: string[] = [];
  const look = async (): Promise<Status> => {
    const now = await asked(() => handle.query(statusQuery));
    const text = JSON.stringify(now);
    if (text !== statuses.at(-1)) statuses.push(text);
    return now;
  };
  /** Looks, serves what parked, and looks again, until it fits. */
  const until = async (what: string, fits: (now: Status) => boolean): Promise<Status> => {
    let since = Date.now();
    for (let seen = 0; ; await sleep(pollMs)) {
      const now = await look();
      if (fits(now)) return now;
      for (const cell of world.active.values()) await serveCell(handle, world, cell, now);
      if (now.state === 'closed') throw new Error(`${world.id}: closed before ${what}: ${JSON.stringify(now)}`);
      if (world.cells.length !== seen) since = Date.now();
      seen = world.cells.length;
      if (Date.now() - since > stuckAfterMs) throw new Error(`${world.id}: ${what} did not come about: ${JSON.stringify(now)}`);
    }
  };
  const approve = async (gate: string): Promise<void> => {
    const open = ({ waitingFor }: Status) => waitingFor.flatMap((one) => (one.kind === 'gate' && one.gate === gate ? [one] : []))[0];
    const digest = open(await until(`gate ${gate}`, (now) => open(now) !== undefined))?.digest ?? '';
    await handle.executeUpdate(decideUpdate, { args: [{ gate, decision: 'approve', digest, by: 'bob' }] });
  };
  await until('gate retract', ({ waitingFor }) => waitingFor.some((one) => one.kind === 'gate'));
  // Comes late, so it is held against the audit right before acting.
  await handle.signal('alert', { name: 'peer_capability_violation' });
  // What changed meanwhile is asked about in one more opening.
  for (let phase = ''; phase !== 'rotate';) {
    await approve('retract');
    const asksAgain = (now: Status) => now.waitingFor.some((one) => one.kind === 'gate' && one.gate === 'retract');
    ({ phase } = await until('rotate', (now) => now.phase === 'rotate' || asksAgain(now)));
  }
  await until('the request for new keys', ({ steps }) => steps.some(({ name }) => name === 'requestRotation'));
  await beforeClose?.();
  const { run } = await look();
  await handle.signal('close', { outcome: 'dismissed', run, by: 'alice', reason: 'a false alarm' });
  await approve('restore');
  await until('the end', ({ state }) => state === 'closed');
  const result = await handle.result();
  const { events } = await handle.fetchHistory();
  const status = await look();
  return { result, status, history: readable(events), statuses, ms: Date.now() - began };
}

/** On a machine that is short of time a query may come too late; nothing is lost by asking again. */
async function asked<T>(question: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await question();
    } catch (error) {
      if (!(error instanceof ServiceError) || tries === 10) throw error;
      await sleep(1_000);
    }
  }
}

type Handle = ReturnType<typeof handleOf>;
function handleOf(client: Client, id: string) {
  return client.workflow.getHandle<typeof PeerCompromise>(id);
}

async function serveCell(handle: Handle, world: World, cell: Cell, now: Status): Promise<void> {
  const step = stepOf(cell.activity);
  // What parked under this step before said something else.
  const said = cell.failures.at(-1)?.message.slice(0, 500);
  const parked = now.waitingFor.find(
    (one) => one.kind === 'step' && one.step === step && one.how.includes('tries again by itself') && one.why === said,
  );
  if (parked?.kind !== 'step' || world.active.get(cell.activity) !== cell) return;
  cell.why = parked.why;
  cell.how = parked.how;
  await world.release(cell, 'parked');
  await handle.signal('retry', { step, run: now.run, by: 'carol', note: '' });
}

/** History with every payload as text, so that a secret can be looked for. */
function readable(events: unknown): string {
  return JSON.stringify(events, (_name, value: unknown) =>
    value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : typeof value === 'bigint' ? String(value) : value,
  );
}
