import type { WorkflowInterceptorsFactory } from '@temporalio/workflow';

/** Names that Temporal keeps for itself. */
const reserved = '__temporal_';

/**
 * The SDK throws on a signal or an update under a reserved name when there is a default handler: one message that
 * anybody can send would fail every workflow task from then on. Under another name the default handler records it.
 */
export const interceptors: WorkflowInterceptorsFactory = () => ({
  internals: [
    {
      activate(input, next) {
        for (const { signalWorkflow, doUpdate } of input.activation.jobs ?? []) {
          if (signalWorkflow?.signalName?.startsWith(reserved)) signalWorkflow.signalName = `reserved name ${signalWorkflow.signalName}`;
          if (doUpdate?.name?.startsWith(reserved)) doUpdate.name = `reserved name ${doUpdate.name}`;
        }
        next(input);
      },
    },
  ],
});
