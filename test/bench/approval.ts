import { setTimeout as sleep } from 'node:timers/promises';
import { figure, quantile, type Figure } from './figures.ts';
import { historyOf } from './history.ts';
import { gate, startIncident } from './incident.ts';
import { benchLab, type BenchLab } from './lab.ts';
import { parkedWorker, sampleBundle, stopParked } from './memory.ts';

/** From the moment somebody approves until an activity has started, against the sample shape on the same server. */
export async function approvalFigures({ rounds }: { rounds: number }): Promise<Figure[]> {
  const lab = await benchLab('approval', rounds);
  try {
    const [, ...peers] = lab.peers;
    await lab.deliver(peers.map((peer, index) => ({ peer, label: `hostile-${index}`, facts: 2, perEntity: 1 })));
    const worker = lab.worker();
    await worker.start();
    const sample = await parkedWorker(lab.temporal.address, await sampleBundle(lab.dir), {
      kind: 'sample',
      taskQueue: 'sample',
      planItems: 0,
    });
    const [first, acting, plain]: [number[], number[], number[]] = [[], [], []];
    for (const [index, peer] of peers.entries()) {
      const incident = await startIncident(lab.client, peer);
      const { digest } = await gate(incident, 'retract', 120_000);
      const id = `sample-${index}`;
      await lab.client.workflow.start('SampleApproval', { taskQueue: 'sample', workflowId: id });
      await started(lab, id, 'prepare', 1);
      // Both have been quiet for a moment, as a gate is when somebody decides.
      await sleep(1_000);
      const sampleAt = Date.now();
      await lab.client.workflow.getHandle(id).signal('approve');
      plain.push((await started(lab, id, 'act', 1)) - sampleAt);
      const { activities: before } = await historyOf(lab.client, incident.workflowId);
      const approvedAt = Date.now();
      await incident.signal('approve', { gate: 'retract', digest, by: 'bob' });
      acting.push((await started(lab, incident.workflowId, 'remakePlan', 1)) - approvedAt);
      const { activities } = await historyOf(lab.client, incident.workflowId);
      // One that is under way has no start in the history yet.
      const begun = activities.slice(before.length).filter(({ startedAt }) => startedAt > 0);
      first.push(Math.min(...begun.map(({ startedAt }) => startedAt)) - approvedAt);
      // It goes on to undo two facts: out of the way before the next one is measured.
      await started(lab, incident.workflowId, 'verifyUndone', 1, true);
    }
    await stopParked(sample);
    const line = (what: string, share: number, ours: readonly number[]): Figure =>
      figure({
        group: 'approval',
        what,
        unit: 'ms',
        value: quantile(ours, share),
        baseline: quantile(plain, share),
        samples: peers.length,
      });
    return [
      line('approval to the first activity started, p50', 0.5, first),
      line('approval to the first activity started, p95', 0.95, first),
      line('approval to the activity that makes the plan again, p50', 0.5, acting),
      line('approval to the activity that makes the plan again, p95', 0.95, acting),
    ];
  } finally {
    await lab.stop();
  }
}

/** Waits until an activity of this name has started (or ended) for the nth time, and says when, by the server's clock. */
async function started(lab: BenchLab, workflowId: string, name: string, times: number, ended = false): Promise<number> {
  for (;;) {
    const { activities } = await historyOf(lab.client, workflowId);
    const found = activities.filter((activity) => activity.name === name)[times - 1];
    if (found && found.startedAt > 0 && (!ended || found.endedAt > 0)) return found.startedAt;
    await sleep(100);
  }
}
