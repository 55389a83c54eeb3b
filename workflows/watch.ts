import { ActivityFailure } from '@temporalio/common';
import { CancellationScope, condition, isCancellation } from '@temporalio/workflow';
import { restoring } from '../src/contract/closing.ts';
import { durationMs } from '../src/contract/duration.ts';
import { watchedFor } from '../src/contract/policy.ts';
import type { IncidentRef, StepResult, Trip, Watched } from '../src/contract/steps.ts';
import { announce, askPeople } from './ask.ts';
import { closePlan, type Closing } from './close.ts';
import { fenceAgain } from './contain.ts';
import { failureTypeOf } from './explain.ts';
import { onHost } from './host.ts';
import type { Incident } from './incident.ts';
import { mutate, watching } from './policies.ts';
import { holdFor, insist, stillCounts } from './steps.ts';
import { toNextRound } from './state.ts';
import { bareOfFences, judging, nodeThatReturns } from './test-pull.ts';

/**
 * Recover 5, the end of it: the peer delivers again, and both audits, quarantine and what comes are looked at every interval.
 * A tripwire shuts the door without asking anybody, and the incident begins its next round. After the watch people are asked
 * for full trust, and it is watched until they answer.
 * @returns `again`: the page is to be gone through again, from the phase the incident is in
 */
export async function watchAndRestore(incident: Incident): Promise<Closing | 'again'> {
  const { state } = incident;
  incident.enter('watch');
  while (!state.watch && !incident.isDone('watch')) if (!(await letIn(incident))) return 'again';
  for (;;) {
    const trips = (await watchToItsEnd(incident)) ?? (await askToRestore(incident));
    if (trips === 'approved') return { closedAs: 'restored' };
    if (trips === 'rejected') watchOn(incident);
    else {
      await nextRound(incident, trips);
      return 'again';
    }
  }
}

/** False: what people approved counts no more, and they are asked again. */
async function letIn(incident: Incident): Promise<boolean> {
  const { state } = incident;
  const inAgain = await insist(incident, 'watch', async ({ ref }) => {
    try {
      return await lettingIn(incident, ref);
    } catch (error) {
      if (failureTypeOf(error) !== 'PreconditionChanged') throw error;
      return 'ask again' as const;
    }
  });
  if (inAgain === 'ask again') {
    await incident.confirmRun();
    incident.forget('testPull');
    state.pullApproved = null;
    incident.enter('testPull');
    return false;
  }
  if (!inAgain) return true;
  if (inAgain === 'in') return true;
  const how = 'Mend what it names, then cordon retry <incident> watch --by <you>; or cordon close <incident> ….';
  await holdFor(incident, { step: 'watch', why: `The peer is not let in, and is fenced: ${inAgain.detail}`, how });
  return true;
}

/**
 * By the host worker, on the approval of the test pull. What HTTP fences there are on its row go first, while it is shut by
 * the host; from the moment it delivers it is watched. Whatever fails in between, it is fenced again.
 */
async function lettingIn(incident: Incident, ref: IncidentRef): Promise<'in' | StepResult> {
  const { state } = incident;
  const nodeId = nodeThatReturns(incident);
  const approvedInRun = state.pullApproved?.inRun ?? '';
  const lifting = { ref, peer: state.peer, approvedInRun, only: nodeId };
  try {
    const bare = await bareOfFences(incident, lifting);
    if (bare.outcome !== 'verified') return bare;
    const host = await onHost(incident, 'a peer is let in by it alone', ({ long }, peer) =>
      long.letPeerIn({ ref, peer, nodeId, approvedInRun }),
    );
    const seen = await mutate.liftFences({ ...lifting, readBack: true, host });
    incident.absorb(seen);
    if (seen.outcome === 'verified' && host.done > 0) {
      const until = new Date(Date.now() + durationMs(state.start.watch ?? watchedFor)).toISOString();
      // What it was refused before that is no news.
      state.watch = { since: host.at, until, lastLookAt: host.at, looks: 0 };
      return 'in';
    }
    await fenceAgain(incident);
    return {
      ...seen,
      detail: `${host.detail}; ${seen.detail}; ${(host.residual ?? []).map(({ what, why }) => `${what} ${why}`).join('; ')}`,
    };
  } catch (error) {
    if (!isCancellation(error)) await fenceAgain(incident);
    throw error;
  }
}

/** How often a watch says in history that it goes on. */
const stretchMs = 24 * 3_600_000;

/** Undefined: it is over, and nothing was touched; or people ended it, behind gate `skip`. */
async function watchToItsEnd(incident: Incident): Promise<readonly Trip[] | undefined> {
  const { state } = incident;
  while (state.watch && !incident.isDone('watch')) {
    const { until, since, looks } = state.watch;
    if (Date.now() >= Date.parse(until)) {
      const detail = `watched from ${since} to ${incident.now()}: ${looks} looks, no tripwire was touched`;
      incident.record('watch', { outcome: 'verified', way: 'http', detail });
      incident.resume('watch');
      return undefined;
    }
    const trips = await look(incident, until);
    if (trips.length > 0) return trips;
  }
  return undefined;
}

/** Looks until a wire is touched, so long at most, or until people want something else. */
async function look(incident: Incident, until: string): Promise<readonly Trip[]> {
  const { state } = incident;
  const { watch } = state;
  const of = judging(incident, incident.ref('watch'));
  if (!watch || !of) return [];
  sayWatched(incident, watch.since, until);
  const end = Math.min(Date.parse(until), Date.now() + stretchMs);
  const scope = new CancellationScope();
  const looking = scope.run(() =>
    watching.watchPeer({
      ...of,
      fingerprint: state.keys?.fingerprint ?? null,
      since: watch.since,
      until: new Date(end).toISOString(),
      lastLookAt: watch.lastLookAt,
      ...(state.backlog ? { plan: state.backlog.evidenceId } : {}),
    }),
  );
  const isOver = incident.isDone('watch');
  const isOther = () => state.watch?.until !== watch.until || incident.commands.some(isAboutWatch) || incident.isDone('watch') !== isOver;
  const answered = await isAnswered(incident, looking, isOther);
  if (!answered) scope.cancel();
  const trips = taken(incident, await looking.catch(blind));
  if (!answered) await serveCommand(incident);
  // Answered before its time without a trip: the watch itself is by the clock of the server.
  else if (trips.length === 0) await condition(isOther, Math.max(1, end - Date.now()));
  return trips;
}

/** Said once for each end: each time it is said stands in history. */
function sayWatched(incident: Incident, since: string, until: string): void {
  const why = `The peer is in, and watched since ${since}, until ${until}.`;
  if (incident.state.pending.watch?.why === why) return;
  incident.wait({
    step: 'watch',
    kind: 'paced',
    why,
    how: 'Nothing to do: a tripwire shuts the door by itself. cordon extend <incident> --for 24h --by <you> watches longer; cordon skip <incident> watch --note … --by <you> ends it sooner, behind gate skip.',
  });
}

async function isAnswered(incident: Incident, asked: Promise<unknown>, isOther: () => boolean): Promise<boolean> {
  let answered = false;
  const settled = (): void => {
    answered = true;
  };
  asked.then(settled, settled);
  await condition(() => answered || isOther());
  return answered;
}

/** A watch that can't look fails closed. Undefined: it was cancelled, for people want something. */
function blind(error: unknown): Trip | undefined {
  if (CancellationScope.current().consideredCancelled) throw error;
  // Of one that is cancelled the attempt under way may say that it would go on.
  if (isCancellation(error) || failureTypeOf(error) === 'WatchGoesOn') return undefined;
  if (!(error instanceof ActivityFailure)) throw error;
  return { wire: 'blind', why: `nothing could be looked at: ${(error.cause ?? error).message.slice(0, 300)}`, ids: [] };
}

function taken(incident: Incident, found: Watched | Trip | undefined): readonly Trip[] {
  const { state } = incident;
  if (!found) return [];
  if ('wire' in found) return [found];
  incident.absorb(found);
  if (state.watch) state.watch = { ...state.watch, lastLookAt: found.lastLookAt, looks: state.watch.looks + found.looks };
  return found.trips;
}

const isAboutWatch = (command: { readonly step: string; readonly do: string }): boolean =>
  command.step === 'watch' && command.do !== 'skip';

async function serveCommand(incident: Incident): Promise<void> {
  const command = incident.takeCommand(isAboutWatch);
  if (!command || !(await stillCounts(incident, command)) || command.do === 'retry') return;
  incident.note('cordon', `watch: ${command.by} says it is done; ending it sooner needs skip, behind its gate`);
}

/** Full trust, behind gate `restore`. Until people answer it is watched all the same. */
async function askToRestore(incident: Incident): Promise<'approved' | 'rejected' | readonly Trip[]> {
  const { state } = incident;
  const closure = restoring(state.round);
  const plan = closePlan(incident, closure);
  const scope = new CancellationScope();
  let trips: readonly Trip[] = [];
  const watched = scope.run(async () => {
    while (state.watch && trips.length === 0) trips = await look(incident, new Date(Date.now() + stretchMs).toISOString());
  });
  watched.catch(() => undefined);
  // A dismissal may be asked about at the same gate.
  const isFree = () => (incident.gate('restore')?.plan.planHash ?? plan.planHash) === plan.planHash;
  await condition(() => isFree() || trips.length > 0);
  if (isFree() && !incident.gate('restore'))
    await announce(incident, 'watch-over', 'The watch is over, and no tripwire was touched: gate restore waits.');
  const answer = isFree() ? await askPeople(incident, 'restore', plan, { isMoot: () => trips.length > 0 }) : 'moot';
  scope.cancel();
  await watched.catch((error: unknown) => {
    if (!isCancellation(error)) throw error;
  });
  incident.resume('watch');
  if (trips.length > 0) return trips;
  if (answer !== 'approved') {
    incident.shut('restore');
    return 'rejected';
  }
  state.closing = { ...closure, approvedInRun: state.recordedRun };
  return 'approved';
}

/** Rejected: the watch goes on, for as long as it was meant to be. */
function watchOn(incident: Incident): void {
  const { state } = incident;
  incident.forget('watch');
  const until = new Date(Date.now() + durationMs(state.start.watch ?? watchedFor)).toISOString();
  const since = incident.now();
  state.watch = { ...(state.watch ?? { since, lastLookAt: since, looks: 0 }), until };
}

/** A wire was touched: shut first, then told, then all of the page again, in its next round. */
async function nextRound(incident: Incident, trips: readonly Trip[]): Promise<void> {
  const { state } = incident;
  incident.busy += 1;
  const said = trips.map(({ wire, why }) => `${wire}: ${why}`).join('; ');
  incident.record('watch', { outcome: 'unverified', way: 'http', detail: `tripwire touched: ${said}`.slice(0, 1_000) });
  toNextRound(state);
  incident.enter('contain');
  await fenceAgain(incident);
  incident.warn(
    `The watch of round ${state.round - 1} was tripped at ${incident.now()} and the peer was fenced at once: ${said}`.slice(0, 1_000),
  );
  await announce(incident, 'trip', `A tripwire was touched, and the peer is fenced again (round ${state.round}): ${said}.`.slice(0, 1_500));
  incident.enter('identify');
  incident.busy -= 1;
}
