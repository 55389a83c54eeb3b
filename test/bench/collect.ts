import { BroadcastChannel, isMainThread } from 'node:worker_threads';
import { z } from 'zod';

// Loaded ahead in every thread (`--import`, with `--expose-gc`): workflows run in threads of the SDK's, each with a heap of
// its own, and garbage of one that nobody asks for back is not what an incident weighs.

const collect = z.function({ input: [], output: z.unknown() }).parse(Reflect.get(globalThis, 'gc'));
const asked = 'collect';
const done = 'collect-done';

if (!isMainThread) {
  const asking = new BroadcastChannel(asked);
  const answering = new BroadcastChannel(done);
  asking.unref();
  answering.unref();
  asking.onmessage = () => {
    collect();
    answering.postMessage(process.memoryUsage().heapUsed);
  };
}

/** Collects in all of them. Gives the bytes that live on their heaps. */
export async function collectEverywhere(threads: number): Promise<number> {
  collect();
  let heapUsed = process.memoryUsage().heapUsed;
  const asking = new BroadcastChannel(asked);
  const answering = new BroadcastChannel(done);
  let answered = 0;
  await new Promise<void>((resolve) => {
    answering.onmessage = (message) => {
      heapUsed += z.object({ data: z.number() }).parse(message).data;
      answered += 1;
      if (answered >= threads) resolve();
    };
    if (threads === 0) resolve();
    asking.postMessage('now');
  });
  asking.close();
  answering.close();
  return heapUsed;
}
