import type { Context } from '@temporalio/activity';
import { ApplicationFailure, ApplicationFailureCategory, CancelledFailure } from '@temporalio/common';
import type { ActivityInterceptors } from '@temporalio/worker';
import { z } from 'zod';
import { stepOf } from './activity-steps.ts';
import type { ActivitySpan, Tracing } from './tracing.ts';

/** What an activity's input says of the incident; none of it is needed. */
const Input = z.looseObject({
  ref: z
    .looseObject({ incident: z.string(), firstRun: z.string(), phase: z.string(), round: z.number(), mode: z.string() })
    .partial()
    .optional(),
  incident: z.string().optional(),
});

/** What a step's result has in common with others. */
const Result = z.looseObject({ outcome: z.string(), way: z.string(), detail: z.string() }).partial();

/** The workflow that seals a run's history is named after the incident's first run. */
const sealing = /^cordon-seal:([^:]+):/;

/** Asked for each decision, and says nothing that the decision's own line does not say. */
const quiet: ReadonlySet<string> = new Set(['whichRun']);
/** Tried again for weeks, by design. */
const waiting: ReadonlySet<string> = new Set(['verifyKeys', 'watchPeer']);

/** Puts incident, phase, round and step on each line of an activity, says how each attempt went, and makes a span of it. */
export function observeActivities(tracing: Tracing | undefined): (context: Context) => ActivityInterceptors {
  return (context) => {
    const { info, log } = context;
    const step = stepOf(info.activityType);
    let about: Readonly<Record<string, unknown>> = step === undefined ? {} : { step };
    return {
      outbound: {
        getLogAttributes: (input, next) => next({ ...input, ...about }),
      },
      inbound: {
        async execute(input, next) {
          const { ref = {}, incident = ref.incident } = Input.safeParse(input.args[0]).data ?? {};
          const { firstRun = sealing.exec(info.workflowExecution?.workflowId ?? '')?.[1], phase, round, mode } = ref;
          about = { ...about, ...definedOf({ incident, phase, round, mode }) };
          const isQuiet = quiet.has(info.activityType);
          if (info.attempt > 1) log[waiting.has(info.activityType) ? 'debug' : 'warn'](`${info.activityType} is tried again`);
          const span = isQuiet ? undefined : tracing?.startActivity({ info, incident, firstRun, phase, round, step });
          const started = performance.now();
          try {
            const result = await next(input);
            const { outcome, way, detail } = Result.safeParse(result).data ?? {};
            const said = definedOf({ outcome, way, detail: detail?.slice(0, 500), ms: Math.round(performance.now() - started) });
            log[isQuiet ? 'debug' : 'info'](`${info.activityType} ${outcome ?? 'done'}`, said);
            span?.end(definedOf({ outcome, way }));
            return result;
          } catch (error) {
            // The SDK itself logs what failed, with the error.
            endFailed(span, error);
            throw error;
          }
        },
      },
    };
  };
}

function endFailed(span: ActivitySpan | undefined, error: unknown): void {
  if (error instanceof CancelledFailure) span?.end({ outcome: 'cancelled' });
  else if (isBenign(error)) span?.end({ outcome: 'waiting' });
  else span?.fail(error);
}

/** It waits for something, which is no trouble. */
function isBenign(error: unknown): boolean {
  return error instanceof ApplicationFailure && error.category === ApplicationFailureCategory.BENIGN;
}

function definedOf(values: Readonly<Record<string, string | number | undefined>>): Record<string, string | number> {
  return Object.fromEntries(Object.entries(values).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])));
}
