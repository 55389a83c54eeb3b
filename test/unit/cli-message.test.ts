import { expect, test } from 'vitest';
import { refusalOf } from '../../src/cli/message.ts';

const refused = (count: number, ...last: { by: string; because: 'malformed' | 'not_open' | 'stale_run'; detail?: string }[]) => ({
  refused: { count, last: last.map((one) => ({ at: '2026-11-23T01:00:00Z', ...one })) },
});
const retry = { verb: 'retry', by: 'alice', about: 'fenceInbound' };
const own = { by: 'alice', because: 'not_open' as const, detail: 'retry fenceInbound: no such step waits' };
const junk = { by: 'unknown', because: 'malformed' as const, detail: 'close: run: expected the run id' };

test.each([
  ['nothing new', refused(3, own), refused(3, own), undefined],
  ['junk of others only', refused(3, own), refused(5, own, junk, junk), undefined],
  ['our own before junk of others', refused(3, junk), refused(6, junk, own, junk, junk), 'not_open'],
  ['our own about another step', refused(0), refused(1, { ...own, detail: 'retry lowerTrust: no such step waits' }), undefined],
  ['a flood that pushed out what came first', refused(0), refused(90, junk, junk), undefined],
])("a refusal is the sender's own: %s", (_, before, after, because) => {
  expect(refusalOf(retry, before, after)?.because).toBe(because);
});
