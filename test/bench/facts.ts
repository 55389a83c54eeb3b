import { Worker } from '@temporalio/worker';
import { readFile } from 'node:fs/promises';
import { bundlePath } from '../../src/paths.ts';
import { payloadConverter } from './built.ts';
import { text } from '../../src/lab/shapes.ts';
import { Bare, paced } from './bare.ts';
import { figure, median, type Figure } from './figures.ts';
import { historyOf, type HistoryFigures } from './history.ts';
import { expel, gate, startIncident, until, type Incident } from './incident.ts';
import { benchLab, type BenchLab } from './lab.ts';
import { parkedWorker, sampleBundle, stopParked } from './memory.ts';

/** As CORDON_CONCURRENCY is by default. */
const concurrency = 4;
const replays = 5;

export interface FactsSize {
  readonly facts: number;
  readonly perEntity: number;
  readonly most: { readonly events: number; readonly kb: number } | null;
  /** `ANALYZE` on the node's host first, as docs/explanation/performance.md advises for so many. */
  readonly analyze?: boolean;
  /** How long the longest part may take before the run is given up. */
  readonly patienceMs: number;
}

/** One incident from start to expulsion, with so many hostile facts: rate, history, replay and where its time goes. */
export async function factsFigures({ facts, perEntity, most, analyze = false, patienceMs }: FactsSize): Promise<Figure[]> {
  const group = `${facts} facts`;
  const lab = await benchLab(`facts-${facts}`, 1);
  try {
    const [real, other] = lab.peers;
    if (!real || !other) throw new Error('no peers');
    // As many as fit the time, from a second peer: facts as the first one's, so that a bare retraction costs the node the same.
    const plain = Math.min(facts, 1_000);
    await lab.deliver([
      { peer: real, label: 'hostile', facts, perEntity },
      { peer: other, label: 'spare', facts: plain, perEntity },
    ]);
    if (analyze) await lab.ours.exec('ANALYZE');
    const worker = lab.worker();
    await worker.start();
    const spare = await deliveredBy(lab, other.nodeId);
    const half = Math.ceil(spare.length / 2);
    const bare = new Bare(lab.ours);
    // Half before and half after, since the node slows down as its table grows.
    let bareMs = await retractBare(bare, lab, spare.slice(0, half));
    const incident = await startIncident(lab.client, real);
    const { digest, run } = await gate(incident, 'retract', patienceMs);
    await incident.signal('approve', { gate: 'retract', digest, by: 'bob' });
    await until(incident, 'the end of undoing', ({ phase }) => phase === 'rotate', patienceMs);
    bareMs += await retractBare(bare, lab, spare.slice(half));
    await bare.close();
    const { outcome } = await expel(incident, run);
    if (outcome !== 'expelled') throw new Error(`expected expelled, got ${outcome}`);
    const undone = await retractions(lab, real.nodeId);
    const history = await historyOf(lab.client, incident.workflowId);
    const sample = await sampleRun(lab);
    const tookMs = (name: string) => {
      const took = history.activities.filter((activity) => activity.name === name).map(({ startedAt, endedAt }) => endedAt - startedAt);
      return took.reduce((sum, ms) => sum + ms, 0);
    };
    const bound = (value: number | undefined) => (value === undefined ? null : ({ of: 'value', most: value } as const));
    const rate = undone / (tookMs('undoFacts') / 1_000);
    const bareRate = spare.length / (bareMs / 1_000);
    return [
      figure({
        group,
        what: `retractions per second, ${concurrency} at a time`,
        unit: '/s',
        value: rate,
        baseline: bareRate,
        bound: { of: 'ratio', least: 0.9 },
        samples: undone,
        note: `${undone} retractions in the node's own rows; bare ${spare.length}`,
      }),
      figure({
        group,
        what: 'events in the history',
        unit: '',
        value: history.events,
        baseline: sample.history.events,
        bound: bound(most?.events),
      }),
      figure({
        group,
        what: 'size of the history',
        unit: 'KB',
        value: history.bytes / 1_024,
        baseline: sample.history.bytes / 1_024,
        bound: bound(most?.kb),
        note: `by event type: ${JSON.stringify(history.byType)}`,
      }),
      figure({
        group,
        what: 'replay of the whole history, p50',
        unit: 'ms',
        value: await replayMs(incident, bundlePath(), payloadConverter),
        baseline: await replayMs(lab.client.workflow.getHandle(sample.workflowId), sample.bundle),
        samples: replays,
      }),
      ...(['captureLocal', 'collectFacts', 'assess', 'remakePlan', 'undoFacts', 'verifyUndone'] as const).map((name) =>
        figure({
          group,
          what: `time in ${name}`,
          unit: 's',
          value: tookMs(name) / 1_000,
          ...(analyze ? { note: 'after ANALYZE on the host' } : {}),
        }),
      ),
      figure({
        group,
        what: 'start to gate retract open',
        unit: 's',
        value: spanMs(history, 'openRun', 'assess') / 1_000,
      }),
    ];
  } finally {
    await lab.stop();
  }
}

function spanMs({ activities }: HistoryFigures, from: string, to: string): number {
  const first = activities.find(({ name }) => name === from);
  const last = activities.findLast(({ name }) => name === to);
  return (last?.endedAt ?? Number.NaN) - (first?.scheduledAt ?? Number.NaN);
}

type FactRow = Readonly<Record<'id' | 'entity' | 'relation' | 'scope', string>>;

async function deliveredBy(lab: BenchLab, nodeId: string): Promise<FactRow[]> {
  const rows = await lab.ours.sql('SELECT id, entity, relation, scope FROM facts WHERE received_from = ? ORDER BY rowid', [nodeId]);
  return rows.map(({ id, entity, relation, scope }) => ({
    id: text(id),
    entity: text(entity),
    relation: text(relation),
    scope: text(scope),
  }));
}

/** How many retractions stand in the node's own rows for facts of this peer. */
async function retractions(lab: BenchLab, nodeId: string): Promise<number> {
  const query =
    'SELECT COUNT(*) AS n FROM facts r WHERE r.confidence = 0 AND r.received_from IS NULL AND EXISTS ' +
    '(SELECT 1 FROM facts f WHERE f.entity = r.entity AND f.relation = r.relation AND f.scope = r.scope AND f.received_from = ?)';
  const [row] = await lab.ours.sql(query, [nodeId]);
  return Number(row?.['n'] ?? 0);
}

/** The loop a script would write: the same body as cordon's, nothing read back, nothing put on record. */
async function retractBare(bare: Bare, lab: BenchLab, facts: readonly FactRow[]): Promise<number> {
  return paced(facts, concurrency, ({ id, entity, relation, scope }) =>
    bare.call({
      method: 'POST',
      path: '/v1/facts',
      body: JSON.stringify({
        entity,
        relation,
        scope,
        value: { type: 'text', v: `retracted: ${id}` },
        confidence: 0,
        source: lab.ours.entityUri,
        derived_from: [{ fact_id: id }],
      }),
    }),
  );
}

async function sampleRun(lab: BenchLab): Promise<{ workflowId: string; bundle: string; history: HistoryFigures }> {
  const bundle = await sampleBundle(lab.dir);
  const worker = await parkedWorker(lab.temporal.address, bundle, { kind: 'sample', taskQueue: 'sample', planItems: 0 });
  const handle = await lab.client.workflow.start('SampleApproval', { taskQueue: 'sample', workflowId: 'sample' });
  await handle.signal('approve');
  await handle.result();
  await stopParked(worker);
  return { workflowId: 'sample', bundle, history: await historyOf(lab.client, 'sample') };
}

/** What a worker does that takes an incident over: from the stored history to the present state, worker set-up included. */
async function replayMs(handle: Pick<Incident, 'fetchHistory' | 'workflowId'>, bundle: string, converter?: string): Promise<number> {
  const history = await handle.fetchHistory();
  const workflowBundle = { code: await readFile(bundle, 'utf8') };
  const took: number[] = [];
  for (let round = 0; round < replays; round += 1) {
    const began = performance.now();
    await Worker.runReplayHistory(
      { workflowBundle, ...(converter === undefined ? {} : { dataConverter: { payloadConverterPath: converter } }) },
      history,
      handle.workflowId,
    );
    took.push(performance.now() - began);
  }
  return median(took);
}
