import { condition } from '@temporalio/workflow';
import { keysPlanHash } from '../src/contract/keys.ts';
import type { StepResult, VerifiedKeys } from '../src/contract/steps.ts';
import { askPeople } from './ask.ts';
import type { GatePlan } from './gates.ts';
import { lookForHost, viaHost } from './host.ts';
import type { Incident } from './incident.ts';
import { mutate } from './policies.ts';
import { newKeys } from './rotate.ts';
import { failureTypeOf } from './explain.ts';
import { holdFor, step, type Attempt, type manualStepDesk } from './steps.ts';

/**
 * Recover 4: "Re-register the peer only after you verify its new manifest/key material out of band." People bring the
 * fingerprint from outside; it has to equal that of the key the peer shows. The peer stays fenced.
 */
export async function registerAgain(incident: Incident): Promise<void> {
  const { state } = incident;
  incident.enter('reregister');
  await lookForHost(incident);
  while (!isBound(incident)) {
    if (!state.keys) await withoutKeys(incident);
    else if (!state.rebindApproved) await askForFingerprint(incident, state.keys);
    else await bind(incident);
  }
}

/** Is the approved key bound, or did people decide at gate `skip` to go on without? */
function isBound(incident: Incident): boolean {
  return incident.isDone('rebindPeer') && incident.state.pending.rebindPeer === undefined;
}

async function askForFingerprint(incident: Incident, keys: VerifiedKeys): Promise<void> {
  const { state } = incident;
  const answer = incident.gate('reregister')?.held
    ? 'rejected'
    : await askPeople(incident, 'reregister', keysPlan(incident, keys), { expectFingerprint: keys.fingerprint });
  if (answer === 'approved') state.rebindApproved = { inRun: state.recordedRun };
  if (answer === 'rejected') await holdRejected(incident);
}

/** What is asked. The fingerprint is not in it: whoever approves brings it from outside. */
function keysPlan({ state }: Incident, keys: VerifiedKeys): GatePlan {
  const isKnown = state.peer?.nodeIds.includes(keys.nodeId) ?? false;
  const action = isKnown ? 'rebind' : 'register';
  const reason = [...keys.remarks, 'the old key is refused from then on; the peer stays fenced until its test pull'].join('; ');
  return {
    planHash: keysPlanHash(keys, action),
    counts: { [action]: 1 },
    summary:
      `${action} ${keys.nodeId} with its new key, if the fingerprint that you bring from outside is that of the key: ${reason}`.slice(
        0,
        1_000,
      ),
    items: [
      {
        id: keys.nodeId.slice(0, 300),
        entity: keys.entityUri.slice(0, 300),
        relation: '',
        scope: '',
        action,
        way: isKnown ? (state.host ? 'host' : 'manual') : 'http',
        rule: 'new_keys',
        reason: reason.slice(0, 2_000),
        evidence: state.keysSealed === undefined ? [] : [state.keysSealed],
      },
    ],
  };
}

/** The step by name, for the desk of manual steps: what the operator of the node or of the peer has to do first may take days. */
export function reregisterActs(incident: Incident) {
  return { rebindPeer: (attempt) => rebindPeer(incident, attempt) } satisfies Parameters<typeof manualStepDesk>[1];
}

/** Binds the approved key, or waits for the people who have to do a part of it. Void by a reset: people are asked anew. */
async function bind(incident: Incident): Promise<void> {
  const { state } = incident;
  await step(incident, 'rebindPeer', (attempt) => rebindPeer(incident, attempt));
  await condition(() => isBound(incident) || !state.rebindApproved);
  if (state.rebindApproved) return;
  await incident.confirmRun();
  await askAnew(incident);
}

/** A known node_id is bound on the host; one that is new here registers over HTTP. */
async function rebindPeer(incident: Incident, { ref, readBack, again }: Attempt): Promise<StepResult> {
  const { state } = incident;
  const { keys, rebindApproved, peer } = state;
  const nothing = { outcome: 'unverified', way: 'none', evidence: state.evidence } as const;
  if (!keys || !rebindApproved || !peer) return { ...nothing, detail: 'no key of the peer is approved' };
  const approved = { ref, keys, approvedInRun: rebindApproved.inRun };
  const sealed = state.keysSealed ?? '';
  try {
    const isKnown = peer.nodeIds.includes(keys.nodeId);
    if (isKnown && (!state.host || again)) await lookForHost(incident);
    const host = isKnown ? await viaHost(incident, ({ quick }) => quick.rebindPeer({ ...approved, sealed, readBack })) : undefined;
    if (host) {
      if (host.done > 0) state.peer = { ...peer, entityUri: keys.entityUri };
      const outcome = host.done > 0 ? 'verified' : 'unverified';
      return byHand(incident, { ...host, outcome, way: 'host', changed: host.done });
    }
    const registered = await mutate.registerPeer({ ...approved, peer });
    state.peer = registered.peer;
    return byHand(incident, registered);
  } catch (error) {
    if (failureTypeOf(error) !== 'PreconditionChanged') throw error;
    // What the peer shows by now, or the run, is not what was approved.
    state.rebindApproved = null;
    return { ...nothing, detail: 'what was approved is not so any more: asked again' };
  }
}

/** Nothing is let in on a key that is not bound: what is not verified waits for people. */
function byHand({ mode }: Incident, result: StepResult): StepResult {
  if (result.outcome === 'verified' || mode === 'drill') return result;
  const manual = { why: result.detail, how: 'Once that is mended: cordon retry <incident> rebindPeer --by <you>.' };
  return { ...result, manual: result.manual ?? manual };
}

/** The peer's documents are verified again, and people are asked about what it shows then. */
async function askAnew(incident: Incident): Promise<void> {
  const { state } = incident;
  if (state.pending.rebindPeer) incident.resume('rebindPeer');
  incident.forget('rebindPeer');
  incident.forget('verifyKeys');
  state.rebindApproved = null;
  state.keys = null;
  await newKeys(incident);
}

/** Rejected: held fenced, until people ask again or close. */
async function holdRejected(incident: Incident): Promise<void> {
  const open = incident.gate('reregister');
  if (!open) return;
  const by = open.votes.find((vote) => vote.decision === 'reject')?.by ?? 'people';
  incident.setGate({ ...open, held: true });
  await hold(incident, `The peer's new key was rejected by ${by}: it stays fenced.`);
  incident.shut('reregister');
  if (!isBound(incident)) await askAnew(incident);
}

async function withoutKeys(incident: Incident): Promise<void> {
  const before = incident.state.steps.find(
    ({ name, outcome }) => name === 'rebindPeer' && (outcome === 'verified' || outcome === 'manual'),
  );
  if (before) {
    const detail = `new keys were not asked for again: the key that was bound in round ${before.round} stands`;
    incident.record('rebindPeer', { outcome: 'unverified', way: 'none', detail });
    return;
  }
  await hold(incident, 'No new keys of the peer are verified, since that was skipped: nothing can be bound.');
  if (!isBound(incident)) await askAnew(incident);
}

function hold(incident: Incident, why: string): Promise<void> {
  const how =
    "cordon retry <incident> rebindPeer --by <you> verifies the peer's keys and asks again; cordon close <incident> --outcome expelled … ends it for good.";
  return holdFor(incident, { step: 'rebindPeer', why, how });
}
