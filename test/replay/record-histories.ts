import proto from '@temporalio/proto';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { startTemporal } from '../../src/lab/temporal-server.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { fakeHost, withHostWorker } from '../helpers/fake-host.ts';
import { nextTask, reset } from '../helpers/reset.ts';
import { approve, gateOpen, status, until, withIncident, workflowBundle } from '../helpers/workflow-env.ts';
import { scenarios, undoneAndExpelled } from './scenarios.ts';

/** The events as `History.fromObject` reads them, with the workflow id that a replay needs. */
export interface RecordedHistory {
  readonly workflowId: string;
  readonly events: Record<string, unknown>[];
}

/** Low, so that a small history continues as new. */
const suggestAt = 150;

/**
 * Plays scenarios on a dev server with fake activities. Gives one history for each run.
 * @param wanted - which of the names are to be recorded: those that are recorded already are not played again
 */
export async function recordHistories(wanted: (name: string) => boolean): Promise<Map<string, RecordedHistory>> {
  await workflowBundle();
  const recorded = new Map<string, RecordedHistory>();
  const dir = join(repoRoot, '.test', 'record');
  rmSync(dir, { recursive: true, force: true });
  const [server, small] = await Promise.all([
    startTemporal({ dir: join(dir, 'a') }),
    startTemporal({ dir: join(dir, 'b'), dynamicConfig: [`limit.historyCount.suggestContinueAsNew=${suggestAt}`] }),
  ]);
  const env = await TestWorkflowEnvironment.createFromExistingServer({ address: server.address });
  const envSmall = await TestWorkflowEnvironment.createFromExistingServer({ address: small.address });
  try {
    for (const [name, { world, act, hasHost = false, input }] of Object.entries(scenarios)) {
      if (!wanted(name)) continue;
      const played = fakeWorld(world);
      const play = () =>
        withIncident(env, played, (incident) => act(incident, played), { id: `incident-${name}`, ...(input ? { input } : {}) });
      await (hasHost ? withHostWorker(env, 'host', fakeHost(), play) : play());
      recorded.set(name, await show(env, `incident-${name}`));
    }
    if (wanted('reset')) recorded.set('reset', await recordReset(env, server.address));
    if (wanted('sealed-switch-1')) for (const [name, history] of await recordSwitch(envSmall)) recorded.set(name, history);
    if (wanted('seal-history') || wanted('peer-claim')) {
      await withIncident(
        env,
        fakeWorld(),
        async (incident) => {
          const { runId } = await incident.describe();
          await undoneAndExpelled(incident);
          const sealId = `cordon-seal:${runId}:${runId}`;
          await env.client.workflow.getHandle(sealId).result();
          recorded.set('seal-history', await show(env, sealId));
          const { taskQueue } = await incident.describe();
          const claim = await env.client.workflow.start('PeerClaim', { taskQueue, workflowId: 'claim', args: [] });
          await claim.signal('sudo');
          // Asked until a worker has taken its first task.
          while (((await claim.describe()).historyLength ?? 0) < 4) await new Promise((resolve) => setTimeout(resolve, 50));
          await claim.terminate('released');
          recorded.set('peer-claim', await show(env, 'claim'));
        },
        { id: 'incident-sealed' },
      );
    }
  } finally {
    await env.teardown();
    await envSmall.teardown();
    await Promise.all([server.stop(), small.stop()]);
  }
  return new Map([...recorded].filter(([name]) => wanted(name)));
}

async function recordReset(env: TestWorkflowEnvironment, address: string): Promise<RecordedHistory> {
  await withIncident(
    env,
    fakeWorld(),
    async (incident) => {
      await gateOpen(incident, 'retract');
      const point = await nextTask(incident);
      await approve(incident, 'retract');
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      const copy = await reset({ address, client: env.client }, incident, point);
      await until(copy, ({ refused }) => refused.count > 0, 'the old approval refused');
      await undoneAndExpelled(copy);
    },
    { id: 'incident-reset' },
  );
  return show(env, 'incident-reset');
}

async function recordSwitch(env: TestWorkflowEnvironment): Promise<[string, RecordedHistory][]> {
  const runs: string[] = [];
  await withIncident(
    env,
    fakeWorld(),
    async (incident) => {
      const { run } = await gateOpen(incident, 'retract').then(() => status(incident));
      for (let now = run; now === run; now = (await status(incident)).run) {
        await Promise.all(Array.from({ length: 10 }, () => incident.signal('note', { by: 'alice', text: 'still waiting' })));
        await new Promise((resolve) => setTimeout(resolve, 1_500));
      }
      runs.push(run);
      await undoneAndExpelled(incident);
    },
    { id: 'incident-sealed-switch' },
  );
  return [
    ['sealed-switch-1', await show(env, 'incident-sealed-switch', runs[0])],
    ['sealed-switch-2', await show(env, 'incident-sealed-switch')],
  ];
}

/** The two runs of the last `npm run demo`, from its server's own file: real activities on real nodes. */
export async function recordDemo(): Promise<Map<string, RecordedHistory>> {
  const dir = join(repoRoot, '.demo', 'temporal');
  if (!existsSync(dir)) return new Map();
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
