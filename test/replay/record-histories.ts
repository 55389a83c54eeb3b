import proto from '@temporalio/proto';
import { execFileSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { startTemporal } from '../../src/lab/temporal-server.ts';
import { repoRoot, temporalBin } from '../../src/lab/tools.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { fakeWorld, type FakeWorld } from '../helpers/fake-activities.ts';
import {
  amend,
  approve,
  closeAs,
  decide,
  gateOpen,
  status,
  until,
  withIncident,
  workflowBundle,
  type Incident,
} from '../helpers/workflow-env.ts';

/** The events as `History.fromObject` reads them, with the workflow id that a replay needs. */
export interface RecordedHistory {
  readonly workflowId: string;
  readonly events: Record<string, unknown>[];
}

interface Scenario {
  readonly world?: Partial<FakeWorld>;
  readonly act: (incident: Incident, world: FakeWorld) => Promise<unknown>;
}

async function undoneAndExpelled(incident: Incident): Promise<void> {
  await approve(incident, 'retract');
  await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
  await closeAs(incident, 'expelled');
}

const scenarios: Readonly<Record<string, Scenario>> = {
  expelled: {
    async act(incident) {
      await gateOpen(incident, 'retract');
      await incident.signal('alert', { name: 'peer_replay_burst' });
      await incident.signal('sudo', {});
      await undoneAndExpelled(incident);
    },
  },
  dismissed: {
    async act(incident) {
      await gateOpen(incident, 'retract');
      await closeAs(incident, 'dismissed');
    },
  },
  'reject-retry': {
    async act(incident) {
      const { digest } = await gateOpen(incident, 'retract');
      await decide(incident, { gate: 'retract', decision: 'reject', digest, by: 'bob' });
      const { run } = await until(incident, ({ waitingFor }) => waitingFor.some(({ kind }) => kind === 'step'), 'held');
      await incident.signal('retry', { step: 'undoFacts', run, by: 'bob' });
      await gateOpen(incident, 'retract', 2);
      await undoneAndExpelled(incident);
    },
  },
  amend: {
    async act(incident) {
      const { digest } = await gateOpen(incident, 'retract');
      await amend(incident, { gate: 'retract', digest, keep: [{ factId: 'fact-a', justification: 'checked by phone' }], by: 'bob' });
      await gateOpen(incident, 'retract', 2);
      await undoneAndExpelled(incident);
    },
  },
  duplicate: { world: { heldBy: 'peer-compromise:other' }, act: (incident) => incident.result() },
  park: {
    world: { failing: new Map([['collectFacts', { type: 'StigmemUnavailable', times: 1 }]]) },
    async act(incident) {
      const { run } = await until(incident, ({ state }) => state === 'parked', 'parked');
      await incident.signal('retry', { step: 'collectFacts', run, by: 'bob' });
      await undoneAndExpelled(incident);
    },
  },
  skip: {
    world: { failing: new Map([['fenceOutbound', { type: 'StigmemRejected', times: Infinity }]]) },
    async act(incident) {
      const { run } = await until(incident, ({ state }) => state === 'parked', 'parked');
      await incident.signal('skip', { step: 'fenceOutbound', run, by: 'alice', note: 'firewalled' });
      await approve(incident, 'skip');
      await undoneAndExpelled(incident);
    },
  },
  'cancel-request': {
    async act(incident) {
      await gateOpen(incident, 'retract');
      await incident.cancel();
      await until(incident, ({ warnings }) => warnings.length > 0, 'the record');
      await undoneAndExpelled(incident);
    },
  },
};

/** Plays every scenario on a dev server with fake activities. Gives one history for each run. */
export async function recordHistories(): Promise<Map<string, RecordedHistory>> {
  await workflowBundle();
  const recorded = new Map<string, RecordedHistory>();
  const dir = join(repoRoot, '.test', 'record');
  rmSync(dir, { recursive: true, force: true });
  // Low, so that a small history continues as new.
  const suggestAt = 150;
  const [server, small] = await Promise.all([
    startTemporal({ dir: join(dir, 'a') }),
    startTemporal({ dir: join(dir, 'b'), dynamicConfig: [`limit.historyCount.suggestContinueAsNew=${suggestAt}`] }),
  ]);
  const env = await TestWorkflowEnvironment.createFromExistingServer({ address: server.address });
  const envSmall = await TestWorkflowEnvironment.createFromExistingServer({ address: small.address });
  try {
    for (const [name, { world: change, act }] of Object.entries(scenarios)) {
      const world = fakeWorld(change);
      await withIncident(env, world, (incident) => act(incident, world), { id: `incident-${name}` });
      recorded.set(name, await show(env, `incident-${name}`));
    }
    await withIncident(
      env,
      fakeWorld(),
      async (incident) => {
        await gateOpen(incident, 'retract');
        await incident.signal('note', { by: 'alice', text: 'a task of its own' });
        await until(incident, ({ notes }) => notes.length === 1, 'the note');
        const { events } = await incident.fetchHistory();
        const point =
          (events ?? []).flatMap(({ eventId, workflowTaskCompletedEventAttributes: task }) => (task ? [String(eventId)] : [])).at(-1) ?? '';
        await approve(incident, 'retract');
        await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
        const answer: { runId: string } = JSON.parse(
          execFileSync(
            temporalBin(),
            [
              'workflow',
              'reset',
              '--address',
              server.address,
              '-w',
              'incident-reset',
              '--event-id',
              point,
              '--reason',
              'test',
              '--output',
              'json',
            ],
            { encoding: 'utf8' },
          ),
        );
        const copy = env.client.workflow.getHandle<typeof PeerCompromise>('incident-reset', answer.runId);
        await until(copy, ({ refused }) => refused.count > 0, 'the old approval refused');
        await undoneAndExpelled(copy);
      },
      { id: 'incident-reset' },
    );
    recorded.set('reset', await show(env, 'incident-reset'));
    await withIncident(
      envSmall,
      fakeWorld(),
      async (incident) => {
        const { run } = await gateOpen(incident, 'retract').then(() => status(incident));
        for (let now = run; now === run; now = (await status(incident)).run) {
          await Promise.all(Array.from({ length: 10 }, () => incident.signal('note', { by: 'alice', text: 'still waiting' })));
        }
        await undoneAndExpelled(incident);
        recorded.set('continue-as-new-1', await show(envSmall, 'incident-continue-as-new', run));
      },
      { id: 'incident-continue-as-new' },
    );
    recorded.set('continue-as-new-2', await show(envSmall, 'incident-continue-as-new'));
  } finally {
    await env.teardown();
    await envSmall.teardown();
    await Promise.all([server.stop(), small.stop()]);
  }
  return recorded;
}

/** The two runs of the last `npm run demo`, from its server's own file: real activities on real nodes. */
export async function recordDemo(): Promise<Map<string, RecordedHistory>> {
  const dir = join(repoRoot, '.demo', 'temporal');
  if (!existsSync(dir)) throw new Error('run `npm run demo` first: its histories are recorded too');
  const server = await startTemporal({ dir });
  const env = await TestWorkflowEnvironment.createFromExistingServer({ address: server.address });
  try {
    const recorded = new Map<string, RecordedHistory>();
    for await (const { workflowId } of env.client.workflow.list({ query: "WorkflowType='PeerCompromise'" })) {
      recorded.set(workflowId.startsWith('peer-compromise:') ? 'demo' : 'demo-duplicate', await show(env, workflowId));
    }
    return recorded;
  } finally {
    await env.teardown();
    await server.stop();
  }
}

async function show(env: TestWorkflowEnvironment, workflowId: string, runId?: string): Promise<RecordedHistory> {
  const history = await env.client.workflow.getHandle(workflowId, runId).fetchHistory();
  const plain: { events: Record<string, unknown>[] } = JSON.parse(
    JSON.stringify(
      proto.temporal.api.history.v1.History.toObject(proto.temporal.api.history.v1.History.create(history), {
        enums: String,
        longs: String,
        bytes: String,
      }),
    ),
  );
  const started = plain.events[0]?.['workflowExecutionStartedEventAttributes'];
  // A reset copy still names the run it was copied from as its original one; a replay takes that for the run it is.
  const copied = plain.events
    .map((event) => event['workflowTaskFailedEventAttributes'])
    .find((failed) => isRecord(failed) && failed['newRunId'] !== undefined && failed['newRunId'] !== '');
  if (isRecord(started) && isRecord(copied)) started['originalExecutionRunId'] = copied['newRunId'];
  return { workflowId, events: plain.events.map(withoutMachine).filter(isRecord) };
}

/** Who and where it was recorded is nobody's business. */
function withoutMachine(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutMachine);
  if (!isRecord(value)) return value;
  const entries = Object.entries(value).map(([name, field]): [string, unknown] => {
    if (name === 'identity') return [name, 'recorder'];
    if (name === 'stackTrace') return [name, ''];
    if (name === 'taskQueue' && isRecord(field) && field['kind'] === 'TASK_QUEUE_KIND_STICKY') return [name, { ...field, name: 'sticky' }];
    return [name, withoutMachine(field)];
  });
  return Object.fromEntries(entries);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
