import { activityInfo } from '@temporalio/activity';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { repoRoot } from '../../src/lab/tools.ts';

/** The run that `npm run demo` recorded: real activities on a real node. */
const recorded = join(repoRoot, 'test', 'replay', 'histories', '0.1.0-demo.json');

const History = z.object({
  events: z.array(
    z.looseObject({
      eventId: z.string(),
      activityTaskScheduledEventAttributes: z.looseObject({ activityType: z.looseObject({ name: z.string() }) }).optional(),
      activityTaskCompletedEventAttributes: z
        .looseObject({ scheduledEventId: z.string(), result: z.looseObject({ payloads: z.array(z.looseObject({ data: z.string() })) }) })
        .optional(),
    }),
  ),
});
const Answer = z.record(z.string(), z.unknown());
const Plan = z.looseObject({ items: z.array(Answer) });

/**
 * Activities that answer at once what they answered in a real incident, so that what a parked one weighs is what a
 * real one weighs. `planItems` stretches or cuts the plan that stands in its state; 0: so large that it has none.
 */
export function parkedActivities(planItems: number, called: (name: string) => void): Record<string, () => Promise<unknown>> {
  const answers = new Map<string, Record<string, unknown>>();
  const names = new Map<string, string>();
  const { events } = History.parse(JSON.parse(readFileSync(recorded, 'utf8')));
  for (const { eventId, activityTaskScheduledEventAttributes: made, activityTaskCompletedEventAttributes: done } of events) {
    if (made) names.set(eventId, made.activityType.name);
    const name = names.get(done?.scheduledEventId ?? '');
    const data = done?.result.payloads[0]?.data;
    if (name !== undefined && data !== undefined) answers.set(name, Answer.parse(JSON.parse(Buffer.from(data, 'base64').toString('utf8'))));
  }
  const assessed = answers.get('assess');
  if (!assessed) throw new Error(`${recorded}: no assess in it`);
  const { items, ...plan } = Plan.parse(assessed['plan']);
  const stretched = Array.from({ length: planItems }, (_, index) => ({ ...items[index % items.length], id: `fact-${index}` }));
  answers.set('assess', { ...assessed, plan: planItems === 0 ? plan : { ...plan, items: stretched } });
  return Object.fromEntries(
    [...answers].map(([name, answer]) => [
      name,
      async () => {
        called(name);
        return name === 'openRun' || name === 'whichRun' ? { ...answer, run: activityInfo().workflowExecution?.runId ?? '' } : answer;
      },
    ]),
  );
}
