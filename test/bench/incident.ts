import type { Client, WorkflowHandle } from '@temporalio/client';
import { setTimeout as sleep } from 'node:timers/promises';
import { alertSignal, statusQuery } from '../../src/contract/messages.ts';
import type { IncidentResult, Status } from '../../src/contract/schemas.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import type { BenchPeer } from './lab.ts';

export type Incident = WorkflowHandle<typeof PeerCompromise>;

/** Starts an incident as `cordon start` does, by signal-with-start. */
export async function startIncident(client: Client, peer: BenchPeer, taskQueue = 'stigmem-runbooks'): Promise<Incident> {
  const handle = await client.workflow.signalWithStart('PeerCompromise', {
    taskQueue,
    workflowId: `peer-compromise:${peer.nodeId}`,
    // An operator's word: all that the peers delivered came after it.
    args: [{ peer: peer.nodeId, reason: 'a benchmark', firstBadAt: '2026-01-01T00:00:00Z' }],
    signal: alertSignal,
    signalArgs: [{ name: 'peer_replay_burst' }],
  });
  return client.workflow.getHandle<typeof PeerCompromise>(handle.workflowId);
}

/** Asks for the status until it fits. Seldom, since each question is work for the worker. */
export async function until(incident: Incident, what: string, fits: (status: Status) => boolean, timeoutMs: number): Promise<Status> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const now = await incident.query(statusQuery);
    if (fits(now)) return now;
    if (Date.now() > deadline)
      throw new Error(`${incident.workflowId}: ${what} did not come about: ${JSON.stringify(now).slice(0, 3_000)}`);
    await sleep(300);
  }
}

export interface Gate {
  readonly digest: string;
  readonly run: string;
}

/** Waits until a gate is open, and gives its digest. */
export async function gate(incident: Incident, name: string, timeoutMs: number): Promise<Gate> {
  const open = ({ waitingFor }: Status) =>
    waitingFor.flatMap((waiting) => (waiting.kind === 'gate' && waiting.gate === name ? [waiting.digest] : []))[0];
  const status = await until(incident, `gate ${name}`, (now) => open(now) !== undefined, timeoutMs);
  return { digest: open(status) ?? '', run: status.run };
}

/** Closes the incident as expelled, through its gate, and waits for the end. */
export async function expel(incident: Incident, run: string): Promise<IncidentResult> {
  await incident.signal('close', { outcome: 'expelled', run, by: 'alice', reason: 'it turned' });
  const { digest } = await gate(incident, 'close', 60_000);
  await incident.signal('approve', { gate: 'close', digest, by: 'bob' });
  return incident.result();
}
