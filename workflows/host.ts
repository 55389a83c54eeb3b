import { ActivityFailure, ApplicationFailure, TimeoutFailure } from '@temporalio/common';
import { isCancellation, patched, proxyActivities } from '@temporalio/workflow';
import type { HostActivities } from '../activities/host/index.ts';
import type { BacklogFetched, EvidenceHead, HostDone, IncidentRef, PeerRef, StepResult } from '../src/contract/steps.ts';
import type { Incident } from './incident.ts';
import { hostLong, hostQuick, look, read } from './policies.ts';
import { failureTypeOf } from './explain.ts';
import type { Attempt } from './steps.ts';

/** The operations of a host worker, by how long they may take. */
export interface HostWays {
  readonly quick: HostActivities;
  readonly long: HostActivities;
}

function waysOf(queue: string): HostWays {
  return {
    quick: proxyActivities<HostActivities>({ ...hostQuick, taskQueue: queue }),
    long: proxyActivities<HostActivities>({ ...hostLong, taskQueue: queue }),
  };
}

/**
 * Is there a host worker, and does it serve this incident? Asked at the start of each phase, and when people say retry. A
 * queue that nobody polls costs one question; one whose worker died just now costs three seconds.
 */
export async function lookForHost(incident: Incident): Promise<void> {
  if (!patched('host-worker')) return;
  incident.busy += 1;
  const ref = incident.ref();
  try {
    const { queue, polled } = await look.findHostQueue({ ref });
    if (!polled) return without(incident, `none polls task queue ${queue}: keys, trust rules and what HTTP can't undo are steps by hand`);
    const { storage, migration, proof } = await proxyActivities<HostActivities>({
      ...hostQuick,
      taskQueue: queue,
      retry: { maximumAttempts: 2 },
    }).probeHost({ ref: incident.ref() });
    // A copy of the database has the same node_id: what was written there has to be seen where the node itself reads.
    if (proof !== undefined && !(await look.seeHostProof({ ref, proof })).seen)
      return without(incident, 'the database it has open is not the one that our node serves from');
    incident.state.host = { queue, storage };
    said(incident, true, `on task queue ${queue}: ${storage}, schema ${migration}`);
  } catch (error) {
    if (isCancellation(error) || !(error instanceof ActivityFailure)) throw error;
    without(incident, `it does not serve this incident: ${wordsOf(error)}`);
  } finally {
    incident.busy -= 1;
  }
}

function without(incident: Incident, why: string): void {
  incident.state.host = null;
  said(incident, false, why);
}

/** Which ways into the node there are, where status and report show what was found. */
function said(incident: Incident, isThere: boolean, why: string): void {
  const coverage = [{ what: 'host worker of the node', seen: isThere ? 1 : 0, complete: isThere, why: why.slice(0, 500) }];
  incident.absorb({ coverage, evidence: incident.state.evidence });
}

/**
 * Has the host worker do it. Undefined: none serves this incident, or it failed and that is a warning; then the next way
 * down is due.
 */
export async function viaHost<T extends { readonly evidence: EvidenceHead }>(
  incident: Incident,
  act: (ways: HostWays, peer: PeerRef) => Promise<T>,
): Promise<T | undefined> {
  incident.state.hostActed = incident.state.hostActed === true || (Boolean(incident.state.host) && incident.mode === 'live');
  return askHost(incident, act);
}

/** The same for what changes nothing. */
async function askHost<T extends { readonly evidence: EvidenceHead }>(
  incident: Incident,
  act: (ways: HostWays, peer: PeerRef) => Promise<T>,
): Promise<T | undefined> {
  const { host, peer } = incident.state;
  if (!host || !peer) return undefined;
  try {
    const done = await act(waysOf(host.queue), peer);
    incident.absorb(done);
    return done;
  } catch (error) {
    if (isCancellation(error) || !(error instanceof ActivityFailure)) throw error;
    const type = failureTypeOf(error);
    // A void approval is asked again.
    if (type === 'PreconditionChanged') throw error;
    incident.warn(`The host worker did not do ${error.activityType}: ${wordsOf(error)}`);
    // One operation that fails is no reason to give up the others; a worker that is gone, or serves another node, is.
    if (error.cause instanceof TimeoutFailure || type === 'HostUnsupported')
      without(incident, `it stopped serving this incident: ${wordsOf(error)}`);
    return undefined;
  }
}

/** What the host has of the peer before anything is changed. */
interface Meeting {
  /** It is known whether a host worker is there, and every peers row of the attacker with it. */
  readonly met: Promise<void>;
  /** What HTTP does not show is sealed, as far as it can be. */
  readonly captured: Promise<void>;
  readonly isOver: () => boolean;
}

/** Meets the host worker while the local evidence is captured. */
export function meetHost(incident: Incident): Meeting {
  let over = false;
  const met = lookForHost(incident).then(() => findPeerRows(incident));
  const captured = met.then(async () => {
    await askHost(incident, ({ long }, peer) => long.captureHost({ ref: incident.ref(), peer }));
    over = true;
  });
  return { met, captured, isOver: () => over };
}

/** By its pinned key and entity URI the host finds rows that HTTP can't tell are the attacker's. */
export async function findPeerRows(incident: Incident): Promise<void> {
  const found = await askHost(incident, ({ quick }, peer) =>
    quick.findPeerRows({ ref: incident.ref(), peer, ours: incident.state.ourNode?.entityUri ?? '' }),
  );
  if (found) incident.state.peer = found.peer;
}

/** What the host worker listed of the peer's facts: all, by query. Nothing where there is none. */
export async function listed(incident: Incident): Promise<{ readonly listing?: string }> {
  const listing = await askHost(incident, ({ long }, peer) =>
    long.listFacts({ ref: incident.ref('investigate'), peer, ours: incident.state.ourNode?.entityUri ?? '' }),
  );
  return listing ? { listing: listing.evidenceId } : {};
}

/** What the peer would deliver at the next pull, sealed by the host worker. Undefined where there is none. */
export function fetchedBacklog(incident: Incident): Promise<BacklogFetched | undefined> {
  return askHost(incident, ({ long }, peer) => long.fetchBacklog({ ref: incident.ref('testPull'), peer }));
}

interface OfPeer {
  readonly ref: IncidentRef;
  readonly readBack: boolean;
  readonly peer: PeerRef;
}
/** `ours`: the entity URI of our own node, which the host worker must never take for the peer's. */
type ByHost = (ways: HostWays, of: OfPeer & { readonly ours: string }) => Promise<HostDone>;
type OverHttp = (of: Omit<OfPeer, 'peer'> & { readonly peer: PeerRef | null; readonly host?: HostDone }) => Promise<StepResult>;

/** By the host worker, read back over HTTP; without one over HTTP alone. */
export async function readBackOverHttp(incident: Incident, attempt: Attempt, act: ByHost, overHttp: OverHttp): Promise<StepResult> {
  const { ref, readBack } = attempt;
  const of = () => ({ ref, readBack, peer: incident.state.peer });
  // At once: what several steps begin in one go is in the order of the page, as it always was.
  if (!mayHave(incident, attempt)) return overHttp(of());
  const host = await ask(incident, attempt, act);
  return overHttp({ ...of(), ...(host ? { host } : {}) });
}

/** By the host worker alone, where no route shows what it did; without one, or where it has nothing to do it with, over HTTP. */
export async function strongest(incident: Incident, attempt: Attempt, act: ByHost, overHttp: OverHttp): Promise<StepResult> {
  const byHost: OverHttp = (of) =>
    of.host && of.host.works !== false ? Promise.resolve(doneOnHost(of.host, of.ref.mode === 'drill')) : overHttp(of);
  return readBackOverHttp(incident, attempt, act, byHost);
}

function mayHave(incident: Incident, { again }: Attempt): boolean {
  return Boolean(incident.state.host) || again === true;
}

async function ask(incident: Incident, { ref, readBack }: Attempt, act: ByHost): Promise<HostDone | undefined> {
  // It may have been started since.
  if (!incident.state.host) await lookForHost(incident);
  return viaHost(incident, (ways, peer) => act(ways, { ref, readBack, peer, ours: incident.state.ourNode?.entityUri ?? '' }));
}

/** The same for what nothing else can do: without a host worker the step parks, and tries again by itself. */
export async function onHost<T extends { readonly evidence: EvidenceHead }>(
  incident: Incident,
  why: string,
  act: (ways: HostWays, peer: PeerRef) => Promise<T>,
): Promise<T> {
  if (!incident.state.host) await lookForHost(incident);
  const done = await viaHost(incident, act);
  return done ?? read.missHost({ ref: incident.ref(), why });
}

/** A step that the host worker did and read back by itself, where no route of the node shows it. */
function doneOnHost({ detail, done, residual = [], coverage, warnings, evidence }: HostDone, isDrill: boolean): StepResult {
  return {
    outcome: residual.length === 0 && !isDrill ? 'verified' : 'unverified',
    way: 'host',
    changed: done,
    detail: isDrill ? `DRILL: ${detail}` : detail,
    residual,
    ...(coverage === undefined ? {} : { coverage }),
    ...(warnings === undefined ? {} : { warnings }),
    evidence,
  };
}

/** Was a host worker told to change anything in this incident? Its answer may have been lost. */
export function didOnHost({ state }: Incident): boolean {
  return state.hostActed === true;
}

function wordsOf(error: ActivityFailure): string {
  const { cause } = error;
  if (cause instanceof ApplicationFailure) return (cause.message ?? '').slice(0, 300);
  if (cause instanceof TimeoutFailure && cause.timeoutType === 'SCHEDULE_TO_START') return 'nobody took the task';
  return (cause ?? error).message.slice(0, 300);
}
