import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker';
import { Client, Connection } from '@temporalio/client';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { paced } from './bare.ts';
import { figure, type Figure } from './figures.ts';

const Weight = z.object({ rss: z.number(), rssAfterGc: z.number(), heapUsed: z.number(), cached: z.number() });
type Weight = z.infer<typeof Weight>;
const Progress = z.object({ calls: z.number(), lastCallAt: z.number(), cached: z.number() });

interface Kind {
  readonly kind: 'cordon' | 'sample';
  readonly taskQueue: string;
  readonly planItems: number;
}

/** The sample's bundle, made ahead as cordon's is. */
export async function sampleBundle(dir: string): Promise<string> {
  const { code } = await bundleWorkflowCode({
    workflowsPath: fileURLToPath(new URL('./sample-workflow.js', import.meta.url)),
    logger: new DefaultLogger('ERROR'),
  });
  const path = join(dir, 'sample-bundle.js');
  writeFileSync(path, code);
  return path;
}

/** Starts a worker in a process of its own, and waits until it takes work. */
export async function parkedWorker(address: string, bundle: string, { kind, taskQueue, planItems }: Kind): Promise<ChildProcess> {
  const beside = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
  const execArgv = ['--expose-gc', '--import', beside('./collect.js')];
  const child = fork(beside('./parked-worker.js'), [kind, address, taskQueue, bundle, String(planItems)], { execArgv });
  // One that could not start says why on its standard error.
  await Promise.race([once(child, 'message'), once(child, 'exit').then(() => Promise.reject(new Error(`the ${kind} worker ended`)))]);
  return child;
}

export async function stopParked(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit');
  child.send('stop');
  await gone;
}

async function ask(child: ChildProcess, what: 'weigh' | 'progress'): Promise<unknown> {
  const answer = once(child, 'message');
  child.send(what);
  const [said]: unknown[] = await answer;
  return said;
}
const weigh = async (child: ChildProcess): Promise<Weight> => Weight.parse(await ask(child, 'weigh'));

/** What one incident that waits at a gate costs its worker, against the sample shape; and one with the longest plan a state may hold. */
export async function memoryFigures({ parked }: { parked: number }): Promise<Figure[]> {
  const dir = join(repoRoot, '.test', 'bench', 'memory');
  rmSync(dir, { recursive: true, force: true });
  const server = await startTemporal({ dir });
  const connection = await Connection.connect({ address: server.address });
  const client = new Client({ connection });
  try {
    const bundle = await sampleBundle(dir);
    const of = (kind: Kind) => costOf(server, client, bundle, kind, parked);
    const sample = await of({ kind: 'sample', taskQueue: 'sample', planItems: 0 });
    const usual = await of({ kind: 'cordon', taskQueue: 'usual', planItems: 60 });
    const long = await of({ kind: 'cordon', taskQueue: 'long', planItems: 200 });
    const huge = await of({ kind: 'cordon', taskQueue: 'huge', planItems: 0 });
    const line = (what: string, weight: Cost): Figure =>
      figure({
        group: 'memory',
        what,
        unit: 'KB',
        value: weight.rssKb,
        baseline: sample.rssKb,
        bound: { of: 'value', most: 400 },
        samples: parked,
        note: `resident set of the worker for each parked incident; after a collection in all its threads ${weight.rssAfterGcKb.toFixed(0)} KB; live on the heaps ${weight.heapKb.toFixed(0)} KB, of the sample ${sample.heapKb.toFixed(0)} KB; ${weight.cached} cached`,
      });
    return [
      line(`for each of ${parked} parked incidents, 60 facts in the plan`, usual),
      line(`the same with 200 facts, the longest plan that a state holds`, long),
      line(`the same with more facts: the plan stands in the evidence`, huge),
      figure({
        group: 'memory',
        what: 'of the first, what lives on the heaps',
        unit: 'KB',
        value: usual.heapKb,
        baseline: sample.heapKb,
        samples: parked,
      }),
    ];
  } finally {
    await connection.close();
    await server.stop();
  }
}

interface Cost {
  readonly rssKb: number;
  readonly rssAfterGcKb: number;
  readonly heapKb: number;
  readonly cached: number;
}

async function costOf(server: TemporalServer, client: Client, bundle: string, kind: Kind, parked: number): Promise<Cost> {
  const child = await parkedWorker(server.address, bundle, kind);
  const type = kind.kind === 'cordon' ? 'PeerCompromise' : 'SampleApproval';
  const start = (index: number) =>
    client.workflow.start(type, {
      taskQueue: kind.taskQueue,
      workflowId: `${kind.taskQueue}-${index}`,
      args: kind.kind === 'cordon' ? [{ peer: 'http://127.0.0.1:8802' }] : [],
    });
  // One first: what is loaded once is not the cost of an incident.
  await start(0);
  await quiet(child, 1);
  const before = await weigh(child);
  await paced(
    Array.from({ length: parked }, (_, index) => index + 1),
    8,
    start,
  );
  await quiet(child, parked + 1);
  const after = await weigh(child);
  await stopParked(child);
  const each = (name: 'rss' | 'rssAfterGc' | 'heapUsed') => (after[name] - before[name]) / 1_024 / parked;
  return { rssKb: each('rss'), rssAfterGcKb: each('rssAfterGc'), heapKb: each('heapUsed'), cached: after.cached };
}

/** Waits until all of them are cached and no activity has been called for a while: they wait for people now. */
async function quiet(child: ChildProcess, workflows: number): Promise<void> {
  for (;;) {
    await sleep(1_000);
    const { cached, lastCallAt } = Progress.parse(await ask(child, 'progress'));
    if (cached >= workflows && Date.now() - lastCallAt > 3_000) return;
  }
}
