import { Client, Connection } from '@temporalio/client';
import { MockActivityEnvironment } from '@temporalio/testing';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { closeActivities } from '../../activities/close.ts';
import type { Deps } from '../../activities/deps.ts';
import { renderReport } from '../../src/audit/report.ts';
import type { Status } from '../../src/contract/schemas.ts';
import type { IncidentRef, Sealed } from '../../src/contract/steps.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import { Stigmem } from '../../src/stigmem/client.ts';

const at = '2026-11-23T03:00:00.000Z';
const status: Status = {
  incident: 'peer-compromise:node-peer',
  run: 'run-1',
  mode: 'live',
  peer: { nodeId: 'node-peer', url: 'http://x`\n# Owned', entityUri: '', peerIds: ['row-1'] },
  phase: 'closed',
  round: 1,
  state: 'closed',
  outcome: 'expelled',
  waitingFor: [],
  steps: [
    { name: 'fenceInbound', phase: 'contain', round: 1, outcome: 'verified', way: 'http', at, detail: 'read back' },
    { name: 'revokeKeys', phase: 'contain', round: 1, outcome: 'unavailable', way: 'none', at, detail: 'host only' },
  ],
  residual: [{ what: 'revokeKeys', why: 'host only', count: 1 }],
  coverage: [{ what: 'facts', seen: 628, complete: false, why: 'cursor loses rows' }],
  refused: { count: 1, last: [{ at, by: 'mallory', because: 'stale_digest' }] },
  evidence: { head: '', entries: 1 },
  firstBadAt: null,
  alerts: { count: 1, corroborated: 1 },
  notes: [],
  warnings: [],
};
const alerts = [{ name: 'peer_replay_burst', at, corroborated: true, why: 'seen', eventIds: ['ev-1'] }];
const closing = { outcome: 'expelled', by: 'alice', reason: 'keys stolen', run: 'run-1', approvedInRun: 'run-1' } as const;

it('shows outcome, open steps, residual risk, coverage and refusals, and lets no string out of its span', () => {
  const text = renderReport({ status, alerts, outcome: 'expelled', closing, drill: false });
  expect(text).toContain('Outcome: **expelled**');
  expect(text).toContain('Residual risk: 1 items');
  expect(text).toContain('`revokeKeys` (round 1): **unavailable**');
  expect(text).toContain('`facts`: 628 seen. `cursor loses rows`');
  expect(text).toContain('`mallory`: stale_digest');
  expect(text.split('\n').filter((line) => line.startsWith('# '))).toEqual(['# Incident report: compromised federation peer']);
  expect(renderReport({ status, alerts, outcome: null, drill: true }).split('\n')[0]).toContain('DRILL');
});

it('seals report and status, checks the folder, and says when it does not verify', async () => {
  const evidenceDir = mkdtempSync(join(tmpdir(), 'close-'));
  const temporal = new Client({ connection: Connection.lazy({ address: '127.0.0.1:1' }) });
  const deps: Deps = {
    temporal,
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
  const ref: IncidentRef = { incident: status.incident, firstRun: 'run-1', mode: 'live', phase: 'closed', round: 1, at };
  const seal = (head = '') =>
    new MockActivityEnvironment().run((): Promise<Sealed> =>
      closeActivities(deps).seal({
        ref,
        outcome: 'expelled',
        closing,
        status: { ...status, evidence: { head, entries: 1 } },
        alerts,
        ours: null,
        peer: null,
      }),
    );
  const sealed = await seal();
  expect(sealed).toMatchObject({ outcome: 'verified', report: 'files/report.md' });
  const { dir } = await EvidenceStore.open(evidenceDir, status.incident, at);
  expect(readFileSync(join(dir, sealed.report), 'utf8')).toContain('Incident report');
  // A head that history knows and the chain lacks: lines were cut off its end.
  expect(await seal(`sha256:${'9'.repeat(64)}`)).toMatchObject({
    outcome: 'unverified',
    detail: expect.stringContaining('does NOT verify'),
  });
  await seal();
  writeFileSync(join(dir, sealed.report), 'changed');
  expect(
    await new MockActivityEnvironment().run(() =>
      closeActivities(deps).seal({ ref: { ...ref, round: 2 }, outcome: 'expelled', status, alerts, ours: null, peer: null }),
    ),
  ).toMatchObject({ outcome: 'verified' });
});
