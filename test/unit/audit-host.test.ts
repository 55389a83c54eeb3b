import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { eventJson } from '../../src/audit/event-json.ts';
import { parseHistory } from '../../src/audit/history.ts';
import { project } from '../../src/audit/project.ts';
import { repoRoot } from '../../src/lab/tools.ts';

/** A history as the replay tests keep it, in the form that the temporal command writes. */
function recorded(name: string): ReturnType<typeof parseHistory> {
  const { events }: { events: object[] } = JSON.parse(readFileSync(join(repoRoot, 'test/replay/histories', name), 'utf8'));
  return parseHistory(JSON.stringify({ events: events.map(eventJson) }), name);
}

function auditOf(events: ReturnType<typeof recorded>): ReturnType<typeof project> {
  const runId = events[0]?.workflowExecutionStartedEventAttributes?.originalExecutionRunId ?? '';
  return project({ runs: [{ workflowId: 'incident', runId, events }], gaps: [] });
}

describe('what the host worker changed', () => {
  it('is held against the approvals like any other change', () => {
    const { mutations, problems } = auditOf(recorded('0.1.1-host.json'));
    expect(problems).toEqual([]);
    const gates = new Map(mutations.map(({ record, gate, approval }) => [record.name, [gate, approval?.by]]));
    expect(gates.get('revokePeers')).toEqual([null, undefined]);
    expect(gates.get('suppressFacts')).toEqual(['retract', ['bob']]);
    expect(gates.get('coverCards')).toEqual(['retract', ['bob']]);
  });

  it('needs gate restore where it lets the peer in again', () => {
    const { mutations, problems } = auditOf(recorded('0.1.1-host-dismissed.json'));
    expect(problems).toEqual([]);
    const opened = mutations.filter(({ record }) => record.name === 'reinstatePeers' || record.name === 'restoreOnHost');
    expect(opened.map(({ gate, wrong }) => [gate, wrong])).toEqual([
      ['restore', null],
      ['restore', null],
    ]);
  });

  it('is a problem without one', () => {
    const isUpdate = (event: ReturnType<typeof recorded>[number]) => event.workflowExecutionUpdateAcceptedEventAttributes !== undefined;
    const { problems } = auditOf(recorded('0.1.1-host.json').filter((event) => !isUpdate(event)));
    expect(problems.join('\n')).toMatch(/suppressFacts has no valid approval of gate retract/);
  });
});
