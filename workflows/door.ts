import { arrayFromPayloads, type Payload } from '@temporalio/common';
import type { WorkflowInterceptorsFactory } from '@temporalio/workflow';
import { payloadConverter } from '../src/payload-converter.ts';

/** Names that Temporal keeps for itself. */
const reserved = '__temporal_';

/** Settles a signal at once, or leaves it to its handler: false. The first ones have no handler yet, and are settled in any case. */
type TakeSignal = (name: string, args: readonly unknown[], isFirst: boolean) => boolean;

// The bundle gives each workflow modules of its own.
let take: TakeSignal | undefined;
const first: Signal[] = [];

/**
 * Each signal that goes through its handler costs the SDK about a millisecond (promises, each with a stack trace),
 * and a worker whose workflow code runs for five seconds at a stretch is not only too late, it crashes: ten thousand
 * messages of anybody's would stop every incident. What changes nothing is therefore settled here, before the SDK sees it.
 */
export function openDoor(settle: TakeSignal): void {
  take = settle;
  for (const signal of first.splice(0)) settle(signal.signalName ?? '', argsOf(signal), true);
}

/**
 * The SDK throws on a signal or an update under a reserved name when there is a default handler: one message that
 * anybody can send would fail every workflow task from then on. Under another name the default handler records it.
 */
function renamed<T extends string | null | undefined>(name: T): T | string {
  return name?.startsWith(reserved) === true ? `reserved name ${name}` : name;
}

interface Signal {
  signalName?: string | null;
  input?: Payload[] | null;
}

function argsOf({ input }: Signal): unknown[] {
  return arrayFromPayloads(payloadConverter, input);
}

function isSettled(signal: Signal): boolean {
  if (take) return take(signal.signalName ?? '', argsOf(signal), false);
  // Came with the start: the workflow's first line opens the door.
  first.push(signal);
  return true;
}

export const interceptors: WorkflowInterceptorsFactory = () => ({
  internals: [
    {
      activate(input, next) {
        const jobs = input.activation.jobs ?? [];
        for (const { signalWorkflow, doUpdate } of jobs) {
          if (signalWorkflow) signalWorkflow.signalName = renamed(signalWorkflow.signalName) ?? null;
          if (doUpdate) doUpdate.name = renamed(doUpdate.name) ?? null;
        }
        input.activation.jobs = jobs.filter(({ signalWorkflow }) => !signalWorkflow || !isSettled(signalWorkflow));
        next(input);
      },
    },
  ],
});
