import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode, NativeConnection, Worker, type WorkflowBundleWithSourceMap } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { incidentId } from '../../src/contract/names.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { connectTemporal, loadTemporalSettings, type TemporalSession } from '../../src/temporal.ts';
import { cordon } from '../helpers/cli.ts';

vi.setConfig({ testTimeout: 60_000 });
const taskQueue = 'cli-test';
const evidence = mkdtempSync(join(tmpdir(), 'cordon-cli-evidence-'));
let server: TemporalServer;
let session: TemporalSession;
let bundle: WorkflowBundleWithSourceMap;
let env: Record<string, string>;

beforeAll(async () => {
  server = await startTemporal({ dir: mkdtempSync(join(tmpdir(), 'cordon-cli-')) });
  env = {
    TEMPORAL_ADDRESS: server.address,
    TEMPORAL_CONFIG_FILE: '/nonexistent/temporal.toml',
    CORDON_TASK_QUEUE: taskQueue,
    CORDON_EVIDENCE_DIR: evidence,
  };
  session = await connectTemporal(loadTemporalSettings(env));
  const workflowsPath = fileURLToPath(new URL('../helpers/stub-incident.ts', import.meta.url));
  bundle = await bundleWorkflowCode({ workflowsPath });
}, 120_000);

afterAll(async () => {
  await session?.close();
  await server?.stop();
});

/** A worker with the stub incident, for as long as `work` takes. */
async function withWorker<T>(work: () => Promise<T>): Promise<T> {
  const connection = await NativeConnection.connect({ address: server.address });
  const worker = await Worker.create({ connection, taskQueue, workflowBundle: bundle });
  try {
    return await worker.runUntil(work);
  } finally {
    await connection.close();
  }
}

const run = (...args: string[]) => cordon(args, env);
const Plan = z.object({ plan: z.object({ digest: z.string() }) });
const digestOf = async (id: string) => Plan.parse((await run('plan', id, '--gate', 'retract', '--json')).json()).plan.digest;
const approve = (id: string, digest: string, by = 'alice') => run('approve', id, '--gate', 'retract', '--digest', digest, '--by', by);

describe('with a worker', () => {
  it('starts, joins, shows, plans, decides, amends and closes', async () => {
    await withWorker(async () => {
      const first = await run('start', 'node-1', '--alert', 'burst', '--alert', 'replay@2026-11-23T01:00:00Z=19', '--json');
      expect(first.json()).toMatchObject({ exitCode: 0, incident: 'peer-compromise:node-1', joined: false });
      const second = await run('start', 'node-1', '--alert', 'third', '--reason', 'seen again');
      expect(second.code).toBe(0);
      expect(second.out).toContain('joined the incident that is already open');

      const shown = await run('show', 'node-1', '--json');
      expect(shown.json()).toMatchObject({ exitCode: 0, source: 'workflow', status: { phase: 'retract', alerts: { count: 3 } } });
      const words = await run('show', 'node-1');
      expect(words.out.split('\n')[0]).toContain('cordon plan peer-compromise:node-1 --gate retract');
      expect(words.out).toContain('Residual risk');
      expect(Math.max(...words.out.split('\n').map((line) => line.length))).toBeLessThanOrEqual(110);
      expect(words.out).not.toContain('\u001b');

      const digest = await digestOf('node-1');
      const wrong = await approve('node-1', `sha256:${'0'.repeat(64)}`);
      expect(wrong.code).toBe(1);
      expect(wrong.out).toContain('REFUSED (stale_digest)');
      const amended = await run('amend', 'node-1', '--digest', digest, '--keep', 'f-1=ours', '--by', 'bob', '--json');
      expect(amended.json()).toMatchObject({ exitCode: 0, verdict: { accepted: true } });
      expect((await approve('node-1', digest)).code).toBe(1);
      const now = await digestOf('node-1');
      const yes = await approve('node-1', now.slice(0, 'sha256:'.length + 12));
      expect(yes.code).toBe(0);
      expect(yes.out).toContain('1 of 2 approvals');
      // The same decision again is the same update: one decision, the same verdict.
      expect((await approve('node-1', now.slice(0, 'sha256:'.length + 12))).out).toContain('1 of 2 approvals');
      expect((await approve('node-1', now)).out).toContain('already_counted');

      expect((await run('note', 'node-1', 'called the operator', '--by', 'alice')).out).toContain('taken: your note');
      expect((await run('retry', 'node-1', 'revokeKeys', '--by', 'alice')).code).toBe(0);
      const skipped = await run('skip', 'node-1', 'revokeKeys', '--by', 'mallory', '--note', 'why not');
      expect(skipped.code).toBe(1);
      expect(skipped.out).toContain('REFUSED (not_allowed)');
      const closed = await run('close', 'node-1', '--outcome', 'expelled', '--reason', 'enough', '--by', 'alice');
      expect(closed.code).toBe(0);
      expect(closed.out).toContain('gate close');
    });
  });

  it('does not join the incident of another node, which does nothing for this one', async () => {
    await withWorker(async () => {
      expect((await run('start', 'node-queue')).code).toBe(0);
      const other = await cordon(['start', 'node-queue', '--alert', 'burst'], { ...env, CORDON_TASK_QUEUE: 'of-another-node' });
      expect(other.code).toBe(1);
      expect(other.err).toContain('is open on task queue');
      expect(other.err).toContain('--id peer-compromise:node-queue:of-another-node');
      expect((await run('show', 'node-queue', '--json')).json()).toMatchObject({ status: { alerts: { count: 0 } } });
    });
  });

  it('asks a person on a terminal to type the digest, and sends nothing otherwise', async () => {
    await withWorker(async () => {
      await run('start', 'node-typed');
      const digest = await digestOf('node-typed');
      const args = ['approve', 'node-typed', '--gate', 'retract', '--by', 'alice'];
      const typo = await cordon(args, env, { ask: () => Promise.resolve('000000000000') });
      expect(typo.code).toBe(2);
      const hex = digest.slice('sha256:'.length, 'sha256:'.length + 12);
      const typed = await cordon(args, env, { ask: () => Promise.resolve(hex) });
      expect(typed.code).toBe(0);
      expect(typed.out).toContain(digest);
    });
  });

  it('keeps drills apart, and finds an incident by any unique part', async () => {
    await withWorker(async () => {
      await run('start', 'https://peer-drill.example', '--drill');
      await expect.poll(async () => (await run('show', 'peer-drill.example')).code, { timeout: 10_000 }).toBe(0);
      const listed = await run('list', '--json');
      expect(listed.out).toContain('peer-compromise-drill:https://peer-drill.example');
      const many = await run('show', 'node-');
      expect(many.code).toBe(2);
      expect(many.err).toContain('incidents match');
    });
  });

  it('doctor finds the server, the search attributes and the worker', async () => {
    await withWorker(async () => {
      const report = await run('doctor');
      expect(report.out).toMatch(/ok {4}Temporal/);
      expect(report.out).toMatch(/ok {4}search attributes/);
      expect(report.out).toMatch(/ok {4}worker/);
    });
  });
});

describe('with a worker whose code fails on a message', () => {
  it('show names the task that fails, how often, and why', async () => {
    await withWorker(async () => {
      await run('start', 'node-fails');
      expect((await run('show', 'node-fails', '--json')).json()).toMatchObject({ source: 'workflow' });
      // The stub throws on what does not parse, as the real workflow never does.
      await session.client.workflow.getHandle(incidentId('node-fails', 'live')).signal('note', { by: 42 });
      await vi.waitFor(
        async () =>
          expect((await run('show', 'node-fails', '--json')).json()).toMatchObject({
            source: 'server',
            failingTask: { attempt: expect.any(Number), why: expect.stringContaining('expected string') },
          }),
        { timeout: 40_000, interval: 500 },
      );
      const shown = await run('show', 'node-fails');
      expect(shown.out.split('\n')[0]).toContain('its code fails on this incident');
      expect(shown.out).toContain('FAILING');
    });
  });
});

describe('with no worker alive', () => {
  // The server remembers for minutes that a worker polled: a queue nobody ever polled, where it matters.
  const nobody = () => ({ ...env, CORDON_TASK_QUEUE: 'cli-nobody' });
  const digest = `sha256:${'a'.repeat(64)}`;

  it('starts, and says that nothing happens yet', async () => {
    const started = await run('start', 'node-2', '--alert', 'burst', '--reported-by', 'alice');
    expect(started.code).toBe(0);
    const alone = await cordon(['start', 'node-5'], nobody());
    expect(alone.out).toContain('no worker polls task queue cli-nobody');
  });

  it.each([
    ['show', ['show', 'node-2'], 5],
    ['plan', ['plan', 'node-2'], 5],
    ['approve', ['approve', 'node-2', '--gate', 'retract', '--digest', digest, '--by', 'alice'], 5],
    ['amend', ['amend', 'node-2', '--digest', digest, '--keep', 'f=why', '--by', 'alice'], 5],
    ['note', ['note', 'node-2', 'words', '--by', 'alice'], 5],
    ['close', ['close', 'node-2', '--outcome', 'expelled', '--reason', 'r', '--by', 'alice'], 5],
    ['list', ['list'], 0],
    ['doctor', ['doctor'], 1],
    ['show of an unknown incident', ['show', 'nobody'], 3],
  ])('%s answers within 5 s', async (_name, args, code) => {
    const answer = await cordon(args, args[0] === 'doctor' ? nobody() : env);
    expect(answer.code).toBe(code);
    expect(answer.ms).toBeLessThan(5_000);
  });

  it('shows what the server knows: the signals that wait', async () => {
    const shown = await run('show', 'node-2', '--json');
    expect(shown.json()).toMatchObject({ source: 'server', serverState: 'running' });
    expect(shown.out).toContain('signal approve');
    expect((await run('show', 'node-2')).out).toContain('only what the Temporal server knows');
  });

  it('the unconfirmed decision is there when a worker runs', async () => {
    await withWorker(async () => {
      const shown = await run('show', 'node-2', '--json');
      expect(shown.json()).toMatchObject({ source: 'workflow', status: { notes: [{ by: 'alice', text: 'words' }] } });
      expect(shown.out).toContain('"because": "stale_digest"');
    });
  });

  it('doctor names a terminated incident and how to take it over; messages to it are refused', async () => {
    await run('start', 'node-3');
    await session.client.workflow.getHandle(incidentId('node-3', 'live')).terminate('by hand');
    await expect.poll(async () => (await run('doctor')).out, { timeout: 15_000, interval: 500 }).toContain('cordon start node-3');
    expect((await run('note', 'node-3', 'words', '--by', 'alice')).code).toBe(1);
    expect((await approve('node-3', digest)).err).toContain('closed (terminated)');
    expect((await run('show', 'node-3')).out).toContain('TERMINATED');
  });

  it('leaves other kinds of workflow alone', async () => {
    await session.client.workflow.start('SomethingElse', { workflowId: 'other-1', taskQueue, args: [] });
    expect((await run('note', 'other-1', 'words', '--by', 'alice')).code).toBe(3);
  });
});

it('writes ids only into memo and summary, and no key into history', async () => {
  const canary = 'sk-canary-0c1d';
  await cordon(['start', 'node-4', '--alert', 'a'], { ...env, STIGMEM_URL: 'http://127.0.0.1:1', STIGMEM_ADMIN_KEY: canary });
  const handle = session.client.workflow.getHandle('peer-compromise:node-4');
  const { memo } = await handle.describe();
  expect(Object.keys(memo ?? {}).toSorted()).toEqual(['peer', 'startRequest']);
  expect(JSON.stringify(await handle.fetchHistory())).not.toContain(canary);
});
