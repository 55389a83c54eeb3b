import type { HostQueue, IncidentRef } from '../src/contract/steps.ts';
import { auditSource } from '../src/host/effect.ts';
import { assertBoundNode, cancelSignal, type Deps } from './deps.ts';
import { StepFailure } from './failures.ts';

/** temporal.api.enums.v1.TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY */
const activityQueue = 2;

/** Is a host worker there? */
export function hostQueueActivities(deps: Deps) {
  return {
    /** Who polls the host queue, as the server knows it: asking costs milliseconds, a task that nobody takes seconds. */
    async findHostQueue(_of: { ref: IncidentRef }): Promise<HostQueue> {
      const { namespace } = deps.temporal.options;
      const queue = deps.hostTaskQueue;
      const { pollers } = await deps.temporal.workflowService.describeTaskQueue({
        namespace,
        taskQueue: { name: queue },
        taskQueueType: activityQueue,
      });
      return { queue, polled: pollers.length > 0 };
    },

    /** Does our node show, over HTTP, what the host worker has just written to its audit? */
    async seeHostProof({ ref, proof }: { ref: IncidentRef; proof: string }): Promise<{ seen: boolean }> {
      await assertBoundNode(deps, ref);
      const { entries } = await deps.node.auditPage({ source: auditSource, fact_id: proof, limit: 1 }, cancelSignal());
      return { seen: entries.some(({ id }) => id === proof) };
    },

    /** What only a host worker can do waits for one: fails until it is there. */
    async missHost({ why }: { ref: IncidentRef; why: string }): Promise<never> {
      throw new StepFailure('HostUnavailable', `no host worker serves this incident on task queue ${deps.hostTaskQueue}: ${why}`);
    },
  };
}
