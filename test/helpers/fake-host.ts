import { activityInfo } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { Worker } from '@temporalio/worker';
import type { HostActivities } from '../../activities/host/index.ts';
import type { FailureType } from '../../src/contract/failures.ts';
import type { HostDone, PeerRef } from '../../src/contract/steps.ts';
import { converterPath } from './workflow-env.ts';

/** A host worker of a fake world, and what it was asked for. */
export interface FakeHost {
  readonly calls: Map<string, number>;
  /** Operations that fail, with which failure. */
  readonly failing: Map<string, FailureType>;
  /** What operations answer beside the usual. */
  readonly answers: Map<string, Partial<HostDone>>;
}

export function fakeHost(): FakeHost {
  return { calls: new Map(), failing: new Map(), answers: new Map() };
}

/** Runs `work` with a host worker on that queue; then it is gone. */
export async function withHostWorker<T>(env: TestWorkflowEnvironment, queue: string, host: FakeHost, work: () => Promise<T>): Promise<T> {
  const worker = await Worker.create({
    connection: env.nativeConnection,
    taskQueue: queue,
    dataConverter: { payloadConverterPath: converterPath },
    activities: fakeHostActivities(host),
  });
  return worker.runUntil(work);
}

function fakeHostActivities(host: FakeHost): HostActivities {
  const evidence = { head: `sha256:${'1'.repeat(64)}`, entries: 0 };
  const called = (): Partial<HostDone> => {
    const { activityType: name } = activityInfo();
    host.calls.set(name, (host.calls.get(name) ?? 0) + 1);
    const type = host.failing.get(name);
    if (type) throw ApplicationFailure.create({ type, message: `${name} fails`, nonRetryable: true });
    return host.answers.get(name) ?? {};
  };
  const done = async (): Promise<HostDone> => ({ done: 1, detail: 'done on the host', evidence, ...called() });
  return {
    probeHost: async () => {
      called();
      return { storage: 'sqlite', migration: '058', proof: 'cordon_proof' };
    },
    findPeerRows: async ({ peer }: { peer: PeerRef }) => {
      called();
      return { peer: { ...peer, peerIds: [...peer.peerIds, 'second-row'] }, coverage: [], warnings: [], evidence };
    },
    listFacts: async () => {
      called();
      return { evidenceId: `sha256:${'2'.repeat(64)}`, facts: 3, evidence };
    },
    captureHost: done,
    revokePeers: done,
    revokeAccess: done,
    lowerTrustRules: done,
    pausePromotionJob: done,
    suppressFacts: done,
    liftTombstones: done,
    coverCards: done,
    restoreOnHost: done,
    resumePromotionJob: done,
    reinstatePeers: done,
    rebindPeer: async () => ({ ...(await done()), chain: 'chain', graceUntil: null }),
    unbindPeer: done,
    fetchBacklog: async () => {
      called();
      return {
        evidenceId: `sha256:${'3'.repeat(64)}`,
        facts: 0,
        complete: true,
        coverage: [{ what: 'facts that wait behind the fence', seen: 0, complete: true, why: 'test' }],
        evidence,
      };
    },
    holdDoorOpen: async () => {
      const none = { door: 'door', arrived: 2, evidenceId: '', cursorBefore: {}, cursorAfter: {}, closedBy: 'time' } as const;
      return { ...(await done()), ...none };
    },
    showArrivals: done,
    letPeerIn: async () => ({ ...(await done()), at: new Date().toISOString() }),
    endHolds: done,
  };
}
