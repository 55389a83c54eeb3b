import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { HistoryError, parseHistory } from '../../src/audit/history.ts';
import { readHistory } from '../../src/audit/read.ts';

const started = {
  eventId: '1',
  eventTime: '2026-11-23T01:00:00Z',
  eventType: 'EVENT_TYPE_WORKFLOW_EXECUTION_STARTED',
  workflowExecutionStartedEventAttributes: { workflowId: 'w', originalExecutionRunId: 'r', firstExecutionRunId: 'r' },
};
const signalled = (input: unknown) => ({
  eventId: '2',
  eventTime: '2026-11-23T01:00:01Z',
  eventType: 'EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED',
  workflowExecutionSignaledEventAttributes: { signalName: 'approve', input },
});

it.each([
  ['', /expected at least one event, got none/],
  ['not json', /line 1: expected a JSON object, got "not json"/],
  ['{}', /events: expected the list of events, got undefined/],
  ['{"events":7}', /events: expected the list of events, got number/],
  ['{"events":[]}', /expected at least one event/],
  [JSON.stringify({ events: [{ ...started, eventId: 'x' }] }), /events\.0: eventId: expected an event id, got "x"/],
  [JSON.stringify({ events: [{ ...started, eventTime: 'now' }] }), /events\.0: eventTime: expected a time, got "now"/],
  [
    JSON.stringify({ events: [started, signalled([{ gate: 'retract' }])] }),
    /events\.1: workflowExecutionSignaledEventAttributes\.input: expected object, got \[/,
  ],
  [`${JSON.stringify(started)}\n{"eventId":`, /line 2: expected a JSON object/],
])('a bad history %# names the field, what was expected and what came', (text, message) => {
  expect(() => parseHistory(text, 'h.json')).toThrow(message);
  expect(() => parseHistory(text, 'h.json')).toThrow(HistoryError);
});

it('keeps what can not be decoded, and says why', () => {
  const payload = (encoding: string, data: string) => ({
    metadata: { encoding: Buffer.from(encoding).toString('base64') },
    data: Buffer.from(data).toString('base64'),
  });
  const input = {
    payloads: [payload('json/plain', '{"a":'), payload('binary/encrypted', 'x'), payload('json/plain', '{"__proto__":{"x":1}}'), {}],
  };
  const events = parseHistory(JSON.stringify({ events: [started, signalled(input)] }), 'h');
  const seen = events[1]?.workflowExecutionSignaledEventAttributes?.input ?? [];
  expect(seen[0]).toEqual({ undecodable: 'the bytes are no JSON' });
  expect(seen[1]).toEqual({ undecodable: 'encoding binary/encrypted' });
  expect(seen[3]).toEqual({ undecodable: 'no encoding named' });
});

it('names a file that is not there, or that does not begin with the start', async () => {
  await expect(readHistory({ kind: 'file', path: '/nowhere/h.json' })).rejects.toThrow(/expected a readable history file, got ENOENT/);
  const path = join(mkdtempSync(join(tmpdir(), 'history-')), 'h.json');
  writeFileSync(path, JSON.stringify({ events: [signalled({ payloads: [] })] }));
  await expect(readHistory({ kind: 'file', path })).rejects.toThrow(
    /events\.0: expected the start of the workflow, got EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED/,
  );
});
