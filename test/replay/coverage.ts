import proto from '@temporalio/proto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventJson } from '../../src/audit/event-json.ts';
import { parseEvent } from '../../src/audit/history.ts';
import { project } from '../../src/audit/project.ts';
import { gates, outcomes } from '../../src/contract/names.ts';
import type { RecordedHistory } from './record-histories.ts';

const workflowsDir = fileURLToPath(new URL('../../workflows/', import.meta.url));

/** What a history is of, read from its events and not from its name. */
export function coveredBy({ workflowId, events: raw }: RecordedHistory): string[] {
  const events = raw.map((event, at) => parseEvent(eventJson(proto.temporal.api.history.v1.HistoryEvent.fromObject(event)), `event ${at}`));
  const started = events[0]?.workflowExecutionStartedEventAttributes;
  const type = started?.workflowType.name ?? '';
  if (type !== 'PeerCompromise') return [`workflow ${type}`];
  const audit = project({ runs: [{ workflowId, runId: started?.originalExecutionRunId ?? '', events }], gaps: [] });
  const payloads = JSON.stringify(raw).matchAll(/"data":"([^"]*)"/g);
  const decoded = [...payloads].map(([, data = '']) => Buffer.from(data, 'base64').toString('utf8')).join('\n');
  const has = (what: string, is: boolean): string[] => (is ? [what] : []);
  return [
    ...has(`outcome ${audit.result?.outcome ?? ''}`, audit.result !== null),
    ...audit.decisions.flatMap(({ gate, decision, via, refusedBecause }) =>
      refusedBecause === null ? [`${gate} ${decision}`, `a decision by ${via}`] : [`refused ${refusedBecause}`],
    ),
    ...audit.messages.flatMap(({ via, name, malformed }) => (malformed === null ? [`${via} ${name}`] : [`malformed ${via}`])),
    ...has(
      'an opening that expired',
      audit.activities.some(({ name, input }) => name === 'remind' && JSON.stringify(input).includes('expired')),
    ),
    ...has(
      'a reminder',
      audit.activities.some(({ name, input }) => name === 'remind' && JSON.stringify(input).includes('waiting')),
    ),
    ...has(
      'a park',
      audit.activities.some(({ ended }) => ended?.how === 'failed'),
    ),
    ...has(
      'a reset',
      audit.runs.some(({ resetFrom }) => resetFrom !== ''),
    ),
    ...has(
      'a switch to the next run',
      audit.runs.some(({ ended }) => ended === 'went on in a new run'),
    ),
    ...has(
      'a run that takes over',
      audit.runs.some(({ continuedFrom }) => continuedFrom !== ''),
    ),
    ...has(
      'a cancel request',
      events.some((event) => event.workflowExecutionCancelRequestedEventAttributes !== undefined),
    ),
    ...[...decoded.matchAll(/^\{"id":"([\w-]+)","deprecated":false\}$/gm)].map(([, id]) => `patch ${id}`),
    ...has('real activities', workflowId.startsWith('peer-compromise:')),
  ];
}

/** Every `patched` in the workflow's source: what is new has to be replayed as well as what was there before it. */
const patches = readdirSync(workflowsDir).flatMap((file) =>
  [...readFileSync(join(workflowsDir, file), 'utf8').matchAll(/\bpatched\('([\w-]+)'\)/g)].map(([, id]) => `patch ${id}`),
);

/** What the contract lets happen, and each patch: the newest release has to have a history of each. */
export const wanted: readonly string[] = [
  ...patches,
  ...outcomes.map((outcome) => `outcome ${outcome}`),
  ...gates.flatMap((gate) => [`${gate} approve`, `${gate} reject`]),
  ...['decide', 'amend'].map((name) => `update ${name}`),
  ...['approve', 'reject', 'amend', 'alert', 'note', 'retry', 'done', 'skip', 'close', 'extend'].map((name) => `signal ${name}`),
  'a decision by signal',
  'a decision by update',
  'malformed signal',
  'refused stale_digest',
  'an opening that expired',
  'a reminder',
  'a park',
  'a reset',
  'a switch to the next run',
  'a run that takes over',
  'a cancel request',
  'real activities',
  'workflow PeerClaim',
  'workflow SealHistory',
];
