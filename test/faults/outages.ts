import { setTimeout as sleep } from 'node:timers/promises';
import { statusQuery } from '../../src/contract/messages.ts';
import type { Row } from '../../src/lab/shapes.ts';
import { waitUntil } from '../../src/lab/processes.ts';
import { play, type Played } from './drive.ts';
import type { Stage } from './stage.ts';
import { nodeState } from './template.ts';
import type { World } from './world.ts';

/** One time that nothing listened at the node's address. */
export interface Outage {
  readonly at: string;
  readonly step: string;
  readonly why: string;
  readonly how: string;
  readonly seconds: number;
  readonly before: Row;
  readonly after: Row;
}

/** When it begins: at the first such request; and the step that has to park then. */
export interface Trigger {
  readonly activity: string;
  readonly method: string;
  readonly step: string;
}

/**
 * Plays one incident during which the node goes away, once for each trigger, until the step it was needed for has
 * parked and `holdMs` more have gone by. Nobody says retry: what parked has to go on by itself.
 */
export async function withOutages(
  stage: Stage,
  options: { readonly id: string; readonly triggers: readonly Trigger[]; readonly holdMs: number },
): Promise<{ readonly world: World; readonly played: Played; readonly outages: Outage[] }> {
  const world = await stage.world({ id: options.id, faultAt: () => undefined });
  const { proxy } = world;
  const inner = proxy.onRequest;
  const waiting = [...options.triggers];
  const outages: Promise<Outage>[] = [];
  let isDown = false;
  proxy.onRequest = async (request) => {
    const struck = waiting.findIndex(({ activity, method }) => request.method === method && request.path.startsWith(`/~${activity}/`));
    const [trigger] = isDown || struck < 0 ? [] : waiting.splice(struck, 1);
    if (trigger === undefined) return inner?.(request);
    isDown = true;
    outages.push(outage(trigger).finally(() => (isDown = false)));
    return { kind: 'refuse' };
  };
  const outage = async ({ activity, method, step }: Trigger): Promise<Outage> => {
    const began = Date.now();
    await proxy.down();
    // What was on its way to the node lands.
    await sleep(1_000);
    const before = await nodeState(world.node);
    const handle = stage.client.workflow.getHandle(options.id);
    const parked = await waitUntil(
      `${step} to park`,
      async () => {
        const { waitingFor } = await handle.query(statusQuery);
        return waitingFor.flatMap((one) => (one.kind === 'step' && one.step === step && one.why.includes('ECONNREFUSED') ? [one] : []))[0];
      },
      { timeoutMs: 180_000, everyMs: 500 },
    );
    await sleep(options.holdMs);
    const after = await nodeState(world.node);
    await proxy.up();
    const { why, how } = parked;
    return { at: `${activity} ${method}`, step, why, how, seconds: Math.round((Date.now() - began) / 1_000), before, after };
  };
  const played = await play(stage.client, world);
  return { world, played, outages: await Promise.all(outages) };
}
