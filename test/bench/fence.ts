import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Bare, startRecorder, type SeenCall } from './bare.ts';
import { figure, median, quantile, type Figure } from './figures.ts';
import { activityOf } from './history.ts';
import { startIncident, until, type Incident } from './incident.ts';
import { benchLab, type BenchLab, type BenchPeer } from './lab.ts';

const fences = ['fenceInbound', 'fenceOutbound'] as const;

/** From the start of an incident until both sides of the fence were read back, against the same calls made bare. */
export async function fenceFigures({ rounds, facts }: { rounds: number; facts: number }): Promise<Figure[]> {
  const lab = await benchLab('fence', rounds * 2 + 2);
  try {
    const [real, warm, ...others] = lab.peers;
    if (!real || !warm) throw new Error('no peers');
    await lab.deliver([{ peer: real, label: 'hostile', facts, perEntity: 5 }]);
    const calls = await recordedCalls(lab, real);
    const worker = lab.worker();
    await worker.start();
    await settled(await startIncident(lab.client, warm));
    const bare = new Bare(lab.ours);
    const [ours, plain]: [number[], number[]] = [[], []];
    for (let round = 0; round < rounds; round += 1) {
      const [forBare, forCordon] = [others[round * 2], others[round * 2 + 1]];
      if (!forBare || !forCordon) throw new Error('too few peers');
      const reword = (text: string) => text.replaceAll(real.peerId, forBare.peerId).replaceAll(real.nodeId, forBare.nodeId);
      plain.push(await bare.replay(calls, reword));
      const calledAt = Date.now();
      const incident = await startIncident(lab.client, forCordon);
      await settled(incident);
      ours.push((await fencedAt(lab, incident)) - calledAt);
      await assertSealedBefore(lab, incident.workflowId);
    }
    await bare.close();
    const note = `${calls.length} calls; local evidence sealed before the first change each time`;
    const base = { group: 'fence', unit: 'ms', samples: rounds };
    return [
      figure({
        ...base,
        what: 'start to fence read back, p50',
        value: median(ours),
        baseline: median(plain),
        bound: { of: 'ratio', most: 3 },
        note,
      }),
      figure({ ...base, what: 'start to fence read back, p95', value: quantile(ours, 0.95), baseline: quantile(plain, 0.95), note }),
    ];
  } finally {
    await lab.stop();
  }
}

/** Until nothing of it is under way any more: it must not disturb the next measurement. */
async function settled(incident: Incident): Promise<void> {
  await until(incident, 'the end of its reading', ({ phase, state }) => phase === 'rotate' || state === 'waiting', 120_000);
}

async function fencedAt(lab: BenchLab, incident: Incident): Promise<number> {
  const ends = await Promise.all(fences.map(async (name) => (await activityOf(lab.client, incident, name))?.endedAt));
  if (ends.includes(undefined)) throw new Error(`${incident.workflowId}: no fence in its history`);
  return Math.max(...ends.map(Number));
}

/** The calls of one incident up to the read-back of both sides, as they went over the wire. */
async function recordedCalls(lab: BenchLab, peer: BenchPeer): Promise<SeenCall[]> {
  const recorder = await startRecorder(lab.ours);
  const worker = lab.worker({ name: 'recorded', nodeUrl: recorder.url });
  await worker.start();
  await settled(await startIncident(lab.client, peer));
  await worker.stop(15_000);
  await recorder.stop();
  const { calls } = recorder;
  const patches = calls.filter(({ method }) => method === 'PATCH');
  if (patches.length !== fences.length) throw new Error(`expected ${fences.length} PATCH calls, saw ${patches.length}`);
  const readBacks = patches.map((patch) =>
    calls
      .filter(({ method, path, startedAt }) => method === 'GET' && path === '/v1/federation/peers' && startedAt >= patch.endedAt)
      .reduce((first, { endedAt }) => Math.min(first, endedAt), Infinity),
  );
  const cut = Math.max(...readBacks);
  return calls.filter(({ endedAt }) => endedAt <= cut);
}

/** Throws unless the whole of the local evidence stands in the index before the first thing that was read back as changed. */
async function assertSealedBefore(lab: BenchLab, incident: string): Promise<void> {
  const root = join(lab.dir, 'evidence');
  for (const folder of await readdir(root)) {
    const text = await readFile(join(root, folder, 'incident.json'), 'utf8').catch(() => '');
    if (!text.includes(JSON.stringify(incident))) continue;
    const index = await readFile(join(root, folder, 'index.jsonl'), 'utf8');
    const captured = index.indexOf('"name":"captureLocal alerts"');
    const changed = index.search(/"name":"(ingest|pull)_tenant after"/);
    if (captured >= 0 && captured < changed) return;
    throw new Error(`${incident}: the fence went up before the local evidence was sealed`);
  }
  throw new Error(`${incident}: no evidence`);
}
