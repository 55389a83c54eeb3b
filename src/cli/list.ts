import { workflowType } from '../contract/names.ts';
import { withDeadline } from '../temporal.ts';
import type { Answer, Cli } from './cli.ts';
import { describe, serverMs } from './incident.ts';
import { lastSeen } from './offline.ts';
import { shellWord, table, when } from './text.ts';

interface Row {
  incident: string;
  runId: string;
  state: string;
  startedAt: string;
  phase: string;
  waitingFor: string;
  outcome: string;
}

const described = 30;

/** `list`: open incidents first; visibility lags, so the open ones are looked at one by one. */
export async function list(cli: Cli, options: { all?: boolean; limit?: string }): Promise<Answer> {
  const session = await cli.temporal();
  const limit = Math.min(Math.max(Number.parseInt(options.limit ?? '50', 10) || 50, 1), 1_000);
  const running = await page("ExecutionStatus='Running'", limit);
  const closed = options.all === true ? await page("ExecutionStatus!='Running'", limit) : [];
  const open = await Promise.all(running.map(async (row, i) => (i < described ? refresh(row) : row)));
  const rows = [...open.filter((r) => r.state === 'running'), ...open.filter((r) => r.state !== 'running'), ...closed];
  const count = rows.filter((row) => row.state === 'running').length;
  const first = rows[0];
  const next =
    first === undefined || count === 0
      ? `no incident is open${options.all === true ? '' : ' (closed ones: cordon list --all)'}`
      : `${count} open; next: cordon show ${shellWord(first.incident)}`;
  const now = cli.io.now();
  const cells = rows.map((r) => [r.outcome === '-' ? r.state : r.outcome, r.phase, r.waitingFor, when(r.startedAt, now), r.incident]);
  const head = ['state', 'phase', 'waits for', 'started', 'incident'];
  const text = rows.length === 0 ? [] : ['', table(head, cells, cli.width, [11, 12, 14, 11])];
  return { next, text, json: { incidents: rows } };

  async function page(filter: string, max: number): Promise<Row[]> {
    const query = `WorkflowType='${workflowType}' AND ${filter}`;
    return await withDeadline(session.client, serverMs, async () => {
      const found: Row[] = [];
      for await (const info of session.client.workflow.list({ query, pageSize: max })) {
        found.push(toRow(info));
        if (found.length >= max) break;
      }
      return found;
    });
  }

  async function refresh(row: Row): Promise<Row> {
    const incident = await describe(session, row.incident).catch(() => undefined);
    return incident?.runId === row.runId ? toRow(incident.description) : row;
  }
}

function toRow(info: {
  workflowId: string;
  runId: string;
  status: { name: string };
  startTime: Date;
  memo?: Record<string, unknown>;
}): Row {
  const seen = lastSeen(info.memo);
  const gates = seen?.gates.map((gate) => gate.replace(/#.*$/, '')) ?? [];
  const waits = [...gates, ...(seen?.steps ?? []).map((step) => step.replace(/:.*$/, ''))];
  return {
    incident: info.workflowId,
    runId: info.runId,
    state: info.status.name.toLowerCase(),
    startedAt: info.startTime.toISOString(),
    phase: seen?.phase ?? '-',
    waitingFor: waits.join(', ') || '-',
    outcome: seen?.outcome ?? '-',
  };
}
