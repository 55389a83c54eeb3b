import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventJson } from '../../src/audit/event-json.ts';
import { test } from 'vitest';
import { startTemporal } from '../../src/lab/temporal-server.ts';
import { temporalBin } from '../../src/lab/tools.ts';
import { fakeActivities, fakeWorld } from '../helpers/fake-activities.ts';
import { approve, closeAs, converterPath, gateOpen, workflowBundle } from '../helpers/workflow-env.ts';
import type { PeerCompromise } from '../../workflows/index.ts';

test('probe', { timeout: 120_000 }, async () => {
  const bundle = await workflowBundle();
  const server = await startTemporal({ dir: mkdtempSync('/tmp/aud-') });
  const connection = await Connection.connect({ address: server.address });
  const client = new Client({ connection });
  const native = await NativeConnection.connect({ address: server.address });
  const worker = await Worker.create({ connection: native, taskQueue: 'q', workflowBundle: bundle, dataConverter: { payloadConverterPath: converterPath }, activities: fakeActivities(fakeWorld()) });
  const incident = await client.workflow.start<typeof PeerCompromise>('PeerCompromise', { taskQueue: 'q', workflowId: 'peer-compromise:node:peer', args: [{ peer: 'http://127.0.0.1:8802', alerts: [{ name: 'x' }] }] });
  await worker.runUntil(async () => {
    const { digest } = await gateOpen(incident, 'retract');
    await incident.signal('approve', { gate: 'retract', digest: `sha256:${'0'.repeat(64)}`, by: 'mallory' });
    await incident.signal('approve', 42);
    await incident.signal('nonsense', { a: 1 });
    await incident.signal('approve', { gate: 'retract', digest: digest.slice(0, 20), by: 'bob' });
    await new Promise((r) => setTimeout(r, 2000));
    await closeAs(incident, 'expelled');
  });
  const cli = (...more: string[]) => execFileSync(temporalBin(), ['workflow', 'show', '--address', server.address, '-w', incident.workflowId, '--output', 'json', ...more], { maxBuffer: 1e9 });
  writeFileSync('/tmp/aud-short.json', cli());
  writeFileSync('/tmp/aud-raw.json', cli('--no-json-shorthand-payloads'));
  writeFileSync('/tmp/aud-sdk.json', JSON.stringify({events:((await incident.fetchHistory()).events??[]).map(eventJson)}));
  await native.close(); await connection.close(); await server.stop();
  void approve; void join;
});
