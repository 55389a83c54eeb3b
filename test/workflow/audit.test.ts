import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closeActivities } from '../../activities/close.ts';
import type { Deps } from '../../activities/deps.ts';
import { incidentFolderName } from '../../src/evidence/names.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import { parseHistory } from '../../src/audit/history.ts';
import { project, type Audit } from '../../src/audit/project.ts';
import { readHistory } from '../../src/audit/read.ts';
import { runAudit } from '../../src/audit/run-audit.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { temporalBin } from '../../src/lab/tools.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { fakeActivities, fakeWorld } from '../helpers/fake-activities.ts';
import { closeAs, converterPath, gateOpen, until, workflowBundle, type Incident } from '../helpers/workflow-env.ts';

const id = 'peer-compromise:node:peer';
const dir = mkdtempSync(join(tmpdir(), 'audit-'));
const file = join(dir, 'history.json');
let server: TemporalServer;
let connection: Connection;
let native: NativeConnection;
let client: Client;
let firstRun = '';

beforeAll(async () => {
  const bundle = await workflowBundle();
  server = await startTemporal({ dir });
  connection = await Connection.connect({ address: server.address });
  client = new Client({ connection });
  native = await NativeConnection.connect({ address: server.address });
  const worker = await Worker.create({
    connection: native,
    taskQueue: 'audit',
    workflowBundle: bundle,
    dataConverter: { payloadConverterPath: converterPath },
    activities: fakeActivities(fakeWorld()),
  });
  await worker.runUntil(async () => {
    const incident = await client.workflow.start<typeof PeerCompromise>('PeerCompromise', {
      taskQueue: 'audit',
      workflowId: id,
      args: [{ peer: 'http://127.0.0.1:8802', alerts: [{ name: 'peer_replay_burst' }], reportedBy: 'alice' }],
    });
    firstRun = (await incident.describe()).runId;
    const approvedAfter = await decideAndClose(incident);
    writeFileSync(file, show(firstRun));
    const runId = reset(approvedAfter);
    await decideAndClose(client.workflow.getHandle<typeof PeerCompromise>(id, runId));
  });
});
afterAll(async () => {
  await native?.close();
  await connection?.close();
  await server?.stop();
});

/** Junk, a wrong digest, the right one, a note, an end. Gives the last workflow task before the junk. */
async function decideAndClose(incident: Incident): Promise<number> {
  const { digest } = await gateOpen(incident, 'retract');
  const { events } = await incident.fetchHistory();
  const tasks = (events ?? []).flatMap(({ eventId, workflowTaskCompletedEventAttributes: task }) => (task ? [Number(eventId)] : []));
  await incident.signal('approve', { gate: 'retract', digest: `sha256:${'0'.repeat(64)}`, by: 'mallory' });
  await incident.signal('approve', 42);
  await incident.signal('sudo', {});
  await incident.signal('approve', { gate: 'retract', digest: digest.slice(0, 19), by: 'bob', note: 'looked at it' });
  await incident.signal('approve', { gate: 'retract', digest, by: 'bob' });
  await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
  await closeAs(incident, 'expelled');
  return tasks.at(-1) ?? 0;
}

function reset(eventId: number): string {
  const args = [
    'workflow',
    'reset',
    '--address',
    server.address,
    '-w',
    id,
    '-r',
    firstRun,
    '--event-id',
    String(eventId),
    '--reason',
    'test',
    '--output',
    'json',
  ];
  const answer: { runId: string } = JSON.parse(execFileSync(temporalBin(), args, { encoding: 'utf8' }));
  return answer.runId;
}

function show(runId: string): string {
  const args = ['workflow', 'show', '--address', server.address, '-w', id, '-r', runId, '--output', 'json'];
  return execFileSync(temporalBin(), args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
}

/** The audit of the first run's history after somebody changed it. */
function tampered(change: (text: string) => string): Audit {
  const events = parseHistory(change(readFileSync(file, 'utf8')), 'tampered');
  return project({ runs: [{ workflowId: id, runId: firstRun, events }], gaps: [] });
}

const encoded = (payload: object) => Buffer.from(JSON.stringify(payload)).toString('base64');

describe('audit of one run, from the file that the temporal command writes', () => {
  it('finds every change approved, and says who decided what under which digest', async () => {
    const audit = project(await readHistory({ kind: 'file', path: file }));
    expect(audit.problems).toEqual([]);
    expect(audit.gaps).toEqual([]);
    expect(audit.incident).toBe(id);
    expect(audit.decisions.map(({ by, gate, refusedBecause }) => [by, gate, refusedBecause])).toEqual([
      ['mallory', 'retract', 'stale_digest'],
      ['bob', 'retract', null],
      ['bob', 'retract', 'not_open'],
      ['bob', 'close', null],
    ]);
    expect(audit.decisions[1]?.named).toMatchObject({ opening: 1, runId: firstRun, about: expect.stringContaining('retract 2, keep 1') });
    expect(audit.mutations.find(({ record }) => record.name === 'undoFacts')?.approval?.by).toEqual(['bob']);
    expect(audit.result?.outcome).toBe('expelled');
  });

  it('names malformed and unknown messages with their events', async () => {
    const audit = project(await readHistory({ kind: 'file', path: file }));
    const malformed = audit.messages.filter(({ malformed: why }) => why !== null);
    expect(malformed.map(({ name, malformed: why }) => [name, why])).toEqual([
      ['approve', expect.stringContaining('expected object, got 42')],
      ['sudo', 'no such message'],
    ]);
    for (const { eventId } of malformed) expect(eventId).toBeGreaterThan(0);
  });

  it('fails when the vote that approved names another digest', () => {
    const vote = tampered((text) => text).decisions.find(({ refusedBecause, gate }) => refusedBecause === null && gate === 'retract');
    const digest = vote?.digest ?? '';
    // The second, whole digest of the same opening would count then; it goes too.
    const whole = tampered((text) => text).decisions[2]?.digest ?? '';
    const audit = tampered((text) =>
      text
        .replace(
          encoded({ gate: 'retract', digest, by: 'bob', note: 'looked at it' }),
          encoded({ gate: 'retract', digest: `sha256:${'1'.repeat(12)}`, by: 'bob' }),
        )
        .replace(encoded({ gate: 'retract', digest: whole, by: 'bob' }), encoded({})),
    );
    expect(audit.problems).toEqual([expect.stringMatching(/undoFacts has no valid approval of gate retract before it/)]);
  });

  it('says which events are missing', async () => {
    const cut = join(dir, 'cut.json');
    const raw: { events: { eventId: string }[] } = JSON.parse(readFileSync(file, 'utf8'));
    writeFileSync(cut, JSON.stringify({ events: raw.events.filter(({ eventId }) => eventId !== '20') }));
    expect((await readHistory({ kind: 'file', path: cut })).gaps).toEqual([expect.stringMatching(/expected event 20, found 21/)]);
  });

  it('reads our own export, one event a line', async () => {
    const lines = join(dir, 'export.ndjson');
    const raw: { events: unknown[] } = JSON.parse(readFileSync(file, 'utf8'));
    writeFileSync(lines, raw.events.map((event) => JSON.stringify(event)).join('\n'));
    expect(project(await readHistory({ kind: 'file', path: lines })).problems).toEqual([]);
  });
});

describe('audit of an incident that was reset', () => {
  it('finds both runs, counts nothing of the old run in the new one, and sees the new approval', async () => {
    const audit = project(await readHistory({ kind: 'workflow', id, client }));
    expect(audit.runs).toHaveLength(2);
    expect(audit.runs[1]).toMatchObject({ resetFrom: firstRun });
    expect(audit.gaps.join()).toContain('is a reset copy');
    expect(audit.problems).toEqual([]);
    const reapplied = audit.decisions.filter(({ runId, named }) => runId !== firstRun && named?.runId === firstRun);
    expect(reapplied.length).toBeGreaterThan(0);
    for (const { refusedBecause } of reapplied) expect(refusedBecause).not.toBeNull();
    const undone = audit.mutations.filter(({ record }) => record.name === 'undoFacts');
    expect(undone.map(({ record, approval }) => approval?.inRun === record.runId)).toEqual([true, true]);
  });

  it('names the run it came from when only the copy is at hand', async () => {
    const latest = join(dir, 'latest.json');
    writeFileSync(latest, show((await client.workflow.getHandle(id).describe()).runId));
    const { gaps } = await readHistory({ kind: 'file', path: latest });
    expect(gaps).toEqual([expect.stringContaining(`run ${firstRun}: neither the source nor the evidence holds its history`)]);
  });

  it('reads a run that the source lacks from the evidence, sealed there by exportHistory', async () => {
    const evidenceDir = join(dir, 'evidence');
    const deps: Deps = {
      temporal: client,
      node: new Stigmem({ url: 'http://127.0.0.1:1', adminKey: 'k' }),
      nodeUrl: '',
      evidenceDir,
      policyFile: undefined,
      contactsFile: undefined,
      webhookUrl: undefined,
      peerAllow: [],
      concurrency: 1,
      writesPerHour: 1,
      writeHeadroom: 0,
      hostTaskQueue: 'stigmem-host',
    };
    const sealed = await closeActivities(deps).exportHistory({ incident: id, runId: firstRun });
    expect(await closeActivities(deps).exportHistory({ incident: id, runId: firstRun })).toEqual(sealed);
    const latest = join(dir, 'latest.json');
    const history = await readHistory({ kind: 'file', path: latest }, (incident) => join(evidenceDir, incidentFolderName(incident)));
    expect(history).toMatchObject({ gaps: [], notes: [expect.stringContaining('read from the evidence')] });
    const audit = project(history);
    expect(audit.runs.map(({ runId }) => runId)[0]).toBe(firstRun);
    expect(audit.problems).toEqual([]);
  });
});

it('writes Markdown and JSON, and fails without the evidence', async () => {
  const made = await runAudit({ source: { kind: 'workflow', id, client }, evidenceDir: join(dir, 'none'), outDir: join(dir, 'out') });
  expect(made.ok).toBe(false);
  expect(made.summary.join('\n')).toContain('evidence does NOT verify');
  const text = readFileSync(made.markdownPath, 'utf8');
  for (const title of [
    'Who decided what',
    'What changed on the node',
    'Refused messages',
    'Residual risk',
    'Coverage',
    'Evidence',
    'Timeline',
  ])
    expect(text).toContain(`## ${title}`);
  expect(JSON.parse(readFileSync(made.jsonPath, 'utf8'))).toMatchObject({ format: 1, ok: false });
});
