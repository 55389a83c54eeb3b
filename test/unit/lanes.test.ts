import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { inLanes } from '../../activities/facts/lanes.ts';

test('answers stand in the order of the items, however long each took, so many at a time', async () => {
  let now = 0;
  let most = 0;
  const answers = await inLanes([30, 1, 20, 2, 10], 2, async (ms) => {
    most = Math.max(most, ++now);
    await sleep(ms);
    now -= 1;
    return ms * 2;
  });
  expect(answers).toEqual([60, 2, 40, 4, 20]);
  expect(most).toBe(2);
});

test('the first failure ends it once every lane is at rest, and nothing is begun after it', async () => {
  const begun: number[] = [];
  const ended: number[] = [];
  const failing = inLanes([0, 1, 2, 3, 4, 5], 3, async (item) => {
    begun.push(item);
    await sleep(item === 1 ? 5 : 50);
    ended.push(item);
    if (item === 1) throw new Error('the first');
    if (item === 2) throw new Error('a later one');
  });
  await expect(failing).rejects.toThrow('the first');
  expect(begun).toEqual([0, 1, 2]);
  expect(ended.toSorted()).toEqual([0, 1, 2]);
});

test('a failure that is no error at all is thrown as well', async () => {
  await expect(inLanes([1], 1, () => Promise.reject(undefined))).rejects.toBeUndefined();
});
