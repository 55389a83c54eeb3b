import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fakeWorld } from '../helpers/fake-activities.ts';
import { approve, gateOpen, timeSkipping, until, withIncident, type Incident } from '../helpers/workflow-env.ts';

// An incident that the node's write limit stretches over days.

let env: TestWorkflowEnvironment;
beforeEach(async () => {
  env = await timeSkipping();
});
afterEach(async () => {
  await env?.teardown();
});

const hourMs = 3_600_000;
const why = 'The node takes 1,000 writes an hour.';
const paced = async (incident: Incident, done: number): Promise<string> => {
  const words = `${done} of 5 facts are done`;
  const says = (now: Awaited<ReturnType<typeof until>>) =>
    now.waitingFor.find((one) => one.kind === 'step' && one.why.startsWith(words) && one.why.endsWith(why));
  const now = await until(incident, (status) => says(status) !== undefined, words);
  const waiting = says(now);
  return waiting?.kind === 'step' ? waiting.why : '';
};

/** Memo and search attributes written so far. */
const shown = async (incident: Incident): Promise<number> => {
  const { events } = await incident.fetchHistory();
  const isShown = (event: NonNullable<typeof events>[number]) =>
    event.workflowPropertiesModifiedEventAttributes ?? event.upsertWorkflowSearchAttributesEventAttributes;
  return (events ?? []).filter((event) => isShown(event)).length;
};

test('says at each pause how much is done and when the rest will be, and writes nothing but the wait', async () => {
  const pause = { ms: hourMs, why };
  const facts = new Map(['a', 'b', 'c', 'd', 'e'].map((id) => [`fact-${id}`, 'retract'] as const));
  const world = fakeWorld({ facts, pause: { ...pause, restMs: 72 * hourMs } });
  await withIncident(env, world, async (incident) => {
    await gateOpen(incident, 'retract');
    await approve(incident, 'retract');
    const first = await paced(incident, 1);
    const at = /^1 of 5 facts are done; at the pace so far the rest takes until about (\S+) \(3d 1h\)\. /.exec(first)?.[1];
    const off = Date.parse(at ?? '') - ((await env.currentTimeMs()) + 73 * hourMs);
    expect(off).toBeGreaterThan(-120_000);
    expect(off).toBeLessThanOrEqual(0);

    // Slower than it was: what is said follows.
    world.pause = { ...pause, restMs: 95 * hourMs };
    await env.sleep('61m');
    expect(await paced(incident, 2)).toMatch(/^2 of 5 facts are done; at the pace so far the rest takes until about \S+ \(4d\)\. /);
    const before = await shown(incident);

    // Nothing was written in that go: there is nothing to go by, and no time is made up.
    world.pause = pause;
    await env.sleep('61m');
    expect(await paced(incident, 3)).toBe(`3 of 5 facts are done. ${why}`);
    expect(await shown(incident)).toBe(before);

    await env.sleep('61m');
    await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
    expect([...world.undone.values()]).toEqual([1, 1, 1, 1, 1]);
  });
});
