import { TestWorkflowEnvironment } from '@temporalio/testing';
import { Worker } from '@temporalio/worker';
import { temporalTestServerBin } from '../../src/lab/tools.ts';
import { bundlePath } from '../../src/paths.ts';
import { payloadConverter } from './built.ts';
import { figure, type Figure } from './figures.ts';
import { historyOf } from './history.ts';
import { parkedActivities } from './parked-activities.ts';

/** What a day of waiting at a gate adds to the history, reminders and openings that expire included; time is skipped. */
export async function daysFigures({ days }: { days: number }): Promise<Figure[]> {
  const env = await TestWorkflowEnvironment.createTimeSkipping({
    server: { executable: { type: 'existing-path', path: temporalTestServerBin() } },
  });
  try {
    const parked = parkedActivities(60, () => undefined);
    const worker = await Worker.create({
      connection: env.nativeConnection,
      taskQueue: 'days',
      workflowBundle: { codePath: bundlePath() },
      dataConverter: { payloadConverterPath: payloadConverter },
      activities: {
        ...parked,
        // The server that skips time has no search attributes, and an unknown one wedges the first task.
        openRun: async () => Object.assign({}, await parked['openRun']?.(), { registeredSearchAttributes: [] }),
        remind: async () => ({ evidence: { head: `sha256:${'0'.repeat(64)}`, entries: 99 } }),
      },
    });
    return await worker.runUntil(async () => {
      const { workflowId } = await env.client.workflow.start('PeerCompromise', {
        taskQueue: 'days',
        workflowId: 'days',
        args: [{ peer: 'http://127.0.0.1:8802' }],
      });
      await env.sleep('1 hour');
      const before = await historyOf(env.client, workflowId);
      await env.sleep(`${days} days`);
      const after = await historyOf(env.client, workflowId);
      const line = (what: string, unit: string, value: number): Figure => figure({ group: 'days', what, unit, value, samples: days });
      return [
        line('events for each day at an open gate', '', (after.events - before.events) / days),
        line('KB for each day at an open gate', 'KB', (after.bytes - before.bytes) / 1_024 / days),
      ];
    });
  } finally {
    await env.teardown();
  }
}
