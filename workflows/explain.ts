import { ActivityFailure, ApplicationFailure, TimeoutFailure } from '@temporalio/common';
import { isFailureType, type FailureType } from '../src/contract/failures.ts';

/** What became of an attempt: what it found, or why not, and what people can do about it. */
export type Tried<T> = { readonly result: T } | { readonly type: FailureType | 'Unknown'; readonly why: string; readonly how: string };

/** The `ApplicationFailure.type` behind an activity's failure, if it is one of ours. */
export function failureTypeOf(error: unknown): FailureType | undefined {
  const type = error instanceof ActivityFailure && error.cause instanceof ApplicationFailure ? error.cause.type : undefined;
  return isFailureType(type) ? type : undefined;
}

const howByType: Readonly<Record<FailureType, string>> = {
  StigmemUnavailable: 'Check that the Stigmem node runs and that the worker reaches STIGMEM_URL.',
  StigmemRejected: "Read the node's answer; mend what it names.",
  StigmemUnauthorized: 'Give the worker an admin key with admin and federation rights (STIGMEM_ADMIN_KEY) and restart it.',
  StigmemUnsupported: 'This node has no such route: do it by hand, then send done.',
  StigmemContract: 'Something other than a Stigmem node of a known version answers at STIGMEM_URL: look what it is.',
  StigmemIdentity: 'STIGMEM_URL answers as another node than the one this incident is about: point it back.',
  PreconditionChanged: 'The node changed since approval; the plan is made again.',
  InvalidInput: "Look at the worker's log.",
  PeerNotFound: 'Start again with the peer as `cordon doctor` or GET /v1/federation/peers names it.',
  PeerAmbiguous: 'Say which peer is meant: cordon retry <incident> resolvePeer --note <its node_id> --by <you>.',
  EvidenceUnavailable:
    'Nothing is changed without evidence. Make room in the evidence folder, make it writable for the worker, or restore the file named from a copy.',
  ConfigInvalid: 'Mend the file named: it is read anew at each attempt.',
  WebhookUnavailable:
    'Check CORDON_WEBHOOK_URL and what answers there. The notices lie in files/ beside the evidence: send them by hand, then skip.',
  HostUnavailable: "Check that `cordon host-worker` runs on the node's machine and reaches its database; its log says more.",
  HostUnsupported:
    "Read what the host worker says: its node, its schema or its evidence folder is not this incident's. Mend that, or do the step by hand.",
  HostRefused: 'Read why: it would do harm on a node that is set up like this one. Do what it names by hand, or skip.',
  RotationPending: 'Nothing while the operator of the peer rotates its key; else tell the operator what stands here.',
  WatchGoesOn: 'Nothing: the peer is watched.',
  RunStillOpen: 'Nothing to do: it is tried again until the run has ended.',
};

/** An activity's failure in words for people. Anything that is no activity failure is a bug and is thrown on. */
export function explain(error: unknown): Tried<never> {
  if (!(error instanceof ActivityFailure)) throw error;
  const { type, message } = error.cause instanceof ApplicationFailure ? error.cause : lastOf(error.cause);
  if (isFailureType(type)) return { type, why: (message ?? '').slice(0, 500), how: howByType[type] };
  const why = `${error.activityType} did not finish: ${(error.cause ?? error).message}`.slice(0, 500);
  return { type: 'Unknown', why, how: 'Check that a worker with the current code runs; its log says more.' };
}

/** Where the time for retries is over, what the last one failed of stands behind that; the SDK hands it on only as it came. */
function lastOf(cause: Error | undefined): { readonly type?: string | null | undefined; readonly message?: string | null | undefined } {
  const behind = cause instanceof TimeoutFailure ? cause.failure?.cause : undefined;
  return { type: behind?.applicationFailureInfo?.type, message: behind?.message };
}
