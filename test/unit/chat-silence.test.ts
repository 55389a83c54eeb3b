import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { z } from 'zod';
import { expect, it } from 'vitest';
import { boundedFetch } from '../../src/chat/slack.ts';

const Gc = z.custom<() => void>((given) => typeof given === 'function');
const Port = z.object({ port: z.int() });

it('a call that is never answered ends, although memory is collected while it waits', async () => {
  setFlagsFromString('--expose-gc');
  const gc = Gc.parse(runInNewContext('gc'));
  const server = createServer(() => undefined).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = Port.parse(server.address());
  const waiting = boundedFetch(1_000)(`http://127.0.0.1:${port}/`, { signal: new AbortController().signal }).then(
    () => 'an answer',
    (error: unknown) => (error instanceof Error ? error.name : error),
  );
  await sleep(200);
  for (let times = 0; times < 3; times += 1) {
    gc();
    await sleep(50);
  }
  expect(await Promise.race([waiting, sleep(5_000, 'none')])).toBe('TimeoutError');
  server.closeAllConnections();
  server.close();
});
