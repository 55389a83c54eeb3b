import { patched } from '@temporalio/workflow';
import { durationMs } from '../src/contract/duration.ts';
import { testPullDefault, watchedFor } from '../src/contract/policy.ts';
import type { BacklogJudged, IncidentRef, PeerRef, PlanRef, StepResult } from '../src/contract/steps.ts';
import { askPeople } from './ask.ts';
import { fenceAgain } from './contain.ts';
import { failureTypeOf } from './explain.ts';
import type { GatePlan } from './gates.ts';
import { fetchedBacklog, lookForHost, viaHost } from './host.ts';
import type { Incident } from './incident.ts';
import { collect, mutate } from './policies.ts';
import { holdFor, insist, settle, step } from './steps.ts';

/**
 * Recover 5: "Run a small test pull and watch quarantine/audit events before restoring full trust." What waits behind the
 * fence is judged before anything is opened. Then, behind its gate, the door is held open for a bounded time and number of
 * facts; what comes is held back until it is judged. Whatever fails, the peer stays fenced.
 */
export async function pullForTest(incident: Incident): Promise<void> {
  const { state } = incident;
  incident.enter('testPull');
  while (!isPassed(incident)) {
    await step(incident, 'judgeBacklog', () => judgeBacklog(incident));
    if (!patched('test-pull')) await hold(incident, notBuilt);
    else if (!state.backlog) await hold(incident, 'What waits behind the fence is not judged, so nothing is let in.');
    else if (incident.isDone('testPull')) await hold(incident, `The test pull is not passed: ${detailOf(incident, 'testPull')}.`);
    else if (state.pullApproved) await pull(incident, state.backlog, state.pullApproved.inRun);
    else await askToPull(incident, state.backlog);
  }
}

function isPassed({ state }: Incident): boolean {
  return state.steps.some(({ name, round, outcome }) => name === 'testPull' && round === state.round && outcome === 'verified');
}

const notBuilt = 'This version does not let a peer in again: the test pull and the watch are not built. The peer stays fenced.';

function detailOf({ state }: Incident, of: 'judgeBacklog' | 'testPull'): string {
  return state.steps.findLast(({ name, round }) => name === of && round === state.round)?.detail ?? '';
}

/** Held fenced until people have it judged anew, or close. */
async function hold(incident: Incident, why: string): Promise<void> {
  const { state } = incident;
  await holdFor(incident, {
    step: 'testPull',
    why: `${why} ${detailOf(incident, 'judgeBacklog')}`,
    how: 'cordon retry <incident> testPull --by <you> judges anew what waits; cordon close <incident> --outcome expelled (it never comes back) or --outcome dismissed (false alarm) --reason … --by <you> ends it.',
  });
  incident.forget('judgeBacklog');
  incident.forget('testPull');
  state.backlog = null;
  state.pullApproved = null;
  if (incident.gate('testPull')) incident.shut('testPull');
}

/** By the host worker alone: over HTTP what comes in is recalled before anybody can judge it, in quarantine and in a tenant of its own too. */
async function judgeBacklog(incident: Incident): Promise<StepResult> {
  const { state } = incident;
  await lookForHost(incident);
  const judged = await judgeWhatWaits(incident);
  if (judged) {
    state.backlog = judged.plan;
    return judged;
  }
  const why = state.host ? 'the host worker could not fetch it (see warnings)' : 'no host worker serves this incident';
  const detail = `what waits behind the fence is not judged: ${why}, and over HTTP nothing can be judged before it is recalled. Expel the peer, or have it come back under a new node_id and entity URI with nothing in store`;
  return { outcome: 'unverified', way: 'none', detail, evidence: state.evidence };
}

async function judgeWhatWaits(incident: Incident): Promise<BacklogJudged | undefined> {
  const fetched = await fetchedBacklog(incident);
  const of = judging(incident, incident.ref());
  return fetched && of ? collect.judgeBacklog({ ...of, backlog: fetched.evidenceId }) : undefined;
}

/** What a peer that returns is judged by. */
export function judging({ state }: Incident, ref: IncidentRef) {
  const { peer, policy, firstBad, steps } = state;
  // One that was skipped tells nothing of the key.
  const newKeySince = steps.findLast(({ name, outcome }) => name === 'verifyKeys' && outcome === 'verified')?.at ?? null;
  return peer ? { ref, peer, policy, firstBad, newKeySince } : undefined;
}

/** Whose key people approved: other rows of the peer stay shut for good. */
export function nodeThatReturns({ state }: Incident): string {
  return state.keys?.nodeId ?? state.peer?.nodeId ?? '';
}

async function askToPull(incident: Incident, plan: PlanRef): Promise<void> {
  const { state } = incident;
  const answer = incident.gate('testPull')?.held ? 'rejected' : await askPeople(incident, 'testPull', pullPlan(incident, plan));
  if (answer === 'approved') state.pullApproved = { inRun: state.recordedRun };
  if (answer !== 'rejected') return;
  const open = incident.gate('testPull');
  if (!open) return;
  incident.setGate({ ...open, held: true });
  await hold(incident, `The test pull was rejected by ${open.votes.find(({ decision }) => decision === 'reject')?.by ?? 'people'}.`);
}

function pullPlan(incident: Incident, { planHash, counts, evidenceId, items }: PlanRef): GatePlan {
  const { state } = incident;
  const { maxFacts, atMost } = boundsOf(incident);
  const watch = state.start.watch ?? watchedFor;
  const does = `opens the door for at most ${maxFacts} facts and ${atMost}, each held back until it is judged; if nothing bad comes, the peer delivers again under a watch of ${watch}`;
  const summary = `${detailOf(incident, 'judgeBacklog')}. Approving ${does}`.slice(0, 1_000);
  return { planHash, counts: { ...counts }, summary, evidenceId, ...(items ? { items } : {}) };
}

function boundsOf({ state }: Incident) {
  return state.policy.testPull ?? testPullDefault;
}

async function pull(incident: Incident, plan: PlanRef, approvedInRun: string): Promise<void> {
  const { state } = incident;
  const pulled = await insist(incident, 'testPull', async ({ ref }) => {
    try {
      return await throughTheDoor(incident, ref, plan, approvedInRun);
    } catch (error) {
      if (failureTypeOf(error) !== 'PreconditionChanged') throw error;
      // Approved before a reset, or somebody else changes the row: shut, and asked again.
      await fenceAgain(incident);
      return 'ask again' as const;
    }
  });
  state.pullApproved = pulled === 'ask again' ? null : (state.pullApproved ?? null);
  if (pulled === 'ask again') await incident.confirmRun();
  else if (pulled) settle(incident, 'testPull', pulled);
}

async function notOpened(incident: Incident, why: string): Promise<StepResult> {
  await fenceAgain(incident);
  return { outcome: 'unverified', way: 'host', detail: `${why}; it is fenced again`, evidence: incident.state.evidence };
}

/** What {@link bareOfFences} lifts. */
interface Bare {
  readonly ref: IncidentRef;
  readonly peer: PeerRef | null;
  readonly approvedInRun: string;
  readonly only: string;
}

/**
 * The row that is to be opened is shut by the host worker, and by nothing else: what HTTP fences there are on it stall all
 * of the node's pulls, so they go, and nothing may come in while they do. Not verified: it is fenced again.
 */
export async function bareOfFences(incident: Incident, lifting: Bare): Promise<StepResult> {
  await fenceAgain(incident);
  const shut = incident.recordOf('fenceInbound');
  if (shut?.way !== 'host' || shut.outcome !== 'verified') return notOpened(incident, 'the host worker did not shut the door first');
  const bare = await mutate.liftFences({ ...lifting, readBack: false });
  incident.absorb(bare);
  return bare.outcome === 'verified' ? bare : notOpened(incident, `what HTTP fences there are on its row were not lifted: ${bare.detail}`);
}

/** Opens, shuts, judges what came and what waits still, and shows what is good. */
async function throughTheDoor(incident: Incident, ref: IncidentRef, plan: PlanRef, approvedInRun: string): Promise<StepResult> {
  const { state } = incident;
  const { maxFacts, atMost } = boundsOf(incident);
  const bounds = { maxFacts, ms: durationMs(atMost), ...(plan.total > 0 ? { expect: plan.total } : {}) };
  const nodeId = nodeThatReturns(incident);
  const bare = await bareOfFences(incident, { ref, peer: state.peer, approvedInRun, only: nodeId });
  if (bare.outcome !== 'verified') return bare;
  state.doorOpened = true;
  const door = await viaHost(incident, ({ long }, peer) => long.holdDoorOpen({ ref, peer, nodeId, approvedInRun, ...bounds }));
  const of = judging(incident, ref);
  if (!door || !of) return notOpened(incident, 'the host worker did not hold the door to its end (see warnings); what came is held back');
  const judged = await collect.judgeArrivals({ ...of, plan: plan.evidenceId, door });
  incident.absorb(judged);
  const toShow = { ref, approvedInRun, judged: judged.evidenceId };
  const shown = judged.shows > 0 ? await viaHost(incident, ({ long }) => long.showArrivals(toShow)) : undefined;
  const residual = [...(judged.residual ?? []), ...(shown?.residual ?? [])];
  const detail = `the door was shut by ${door.closedBy}: ${judged.detail}${shown ? `; ${shown.detail}` : ''}`;
  if (judged.outcome !== 'verified') return { ...judged, detail, residual };
  // Once it is in, nothing is held back any more: so nothing bad may wait still.
  const rest = await judgeWhatWaits(incident);
  const waiting = rest?.plan.counts.suppress ?? 0;
  const isClear = rest?.outcome === 'verified' && waiting === 0;
  const left = isClear
    ? ''
    : rest
      ? `; NOT passed: ${waiting} bad ones wait still: ${rest.detail}`
      : '; NOT passed: what waits still could not be judged';
  return { ...judged, outcome: isClear ? 'verified' : 'unverified', detail: `${detail}${left}`, residual };
}
