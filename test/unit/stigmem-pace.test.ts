import { expect, test } from 'vitest';
import { StigmemHttpError } from '../../src/stigmem/errors.ts';
import { atItsPace } from '../../src/stigmem/pace.ts';

const refused = (status: number, retryAfterMs: number | null): StigmemHttpError =>
  new StigmemHttpError({ method: 'GET', path: '/v1/facts' }, { status, statusText: '', detail: '', retryAfterMs });

/** A node that refuses so many times and then answers. */
function node(times: number, error: Error) {
  const asked: number[] = [];
  const ask = async (): Promise<string> => {
    asked.push(Date.now());
    if (asked.length <= times) throw error;
    return 'answer';
  };
  return { asked, ask };
}

test('a 429 that names a short wait is waited for, then asked again', async () => {
  const { asked, ask } = node(2, refused(429, 60));
  await expect(atItsPace(ask)).resolves.toBe('answer');
  expect(asked).toHaveLength(3);
  expect((asked.at(-1) ?? 0) - (asked[0] ?? 0)).toBeGreaterThanOrEqual(115);
});

test('a 429 without an end is thrown, so that the step can say so', async () => {
  const { asked, ask } = node(Infinity, refused(429, 1));
  await expect(atItsPace(ask)).rejects.toMatchObject({ status: 429 });
  expect(asked).toHaveLength(4);
});

test.each([
  ['names no wait', refused(429, null)],
  ['names a long wait', refused(429, 60_000)],
  ['is another refusal', refused(503, 1)],
  ['is no answer of the node', new Error('broken')],
])('what %s is thrown at once', async (_what, error) => {
  const { asked, ask } = node(1, error);
  await expect(atItsPace(ask)).rejects.toBe(error);
  expect(asked).toHaveLength(1);
});

test('a wait ends when the activity is cancelled', async () => {
  const { ask } = node(1, refused(429, 4_000));
  await expect(atItsPace(ask, AbortSignal.timeout(30))).rejects.toMatchObject({ name: 'AbortError' });
});

test('many side by side get through a bucket that fills slowly: none takes the turn of another for ever', async () => {
  const everyMs = 20;
  let tokens = 3;
  let filledAt = Date.now();
  const ask = async (): Promise<void> => {
    tokens += (Date.now() - filledAt) / everyMs;
    filledAt = Date.now();
    if (tokens < 1) throw refused(429, everyMs);
    tokens -= 1;
  };
  const lane = async (): Promise<void> => {
    for (let asked = 0; asked < 10; asked += 1) await atItsPace(ask);
  };
  await expect(Promise.all(Array.from({ length: 6 }, lane))).resolves.toHaveLength(6);
});
