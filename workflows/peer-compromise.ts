import { CancellationScope, condition, patched } from '@temporalio/workflow';
import { stepsByPhase } from '../src/contract/names.ts';
import type { PeerRef } from '../src/contract/steps.ts';
import type { IncidentResult } from '../src/contract/schemas.ts';
import { claimPeer } from './claim.ts';
import { close, closeDesk, type Closing } from './close.ts';
import { containment, strengthen } from './contain.ts';
import { listed, meetHost } from './host.ts';
import type { Incident } from './incident.ts';
import { openIncident, openRun, switchRun, timeToSwitch } from './open.ts';
import { noticeActs, notices } from './notices.ts';
import { collect, read } from './policies.ts';
import { registerAgain, reregisterActs } from './reregister.ts';
import { retractWhatIsApproved } from './retract.ts';
import { rotateKeys } from './rotate.ts';
import { pullForTest } from './test-pull.ts';
import { manualStepDesk, skipDesk, step, stepAgain } from './steps.ts';
import { watchAndRestore } from './watch.ts';

/** How long the fence waits for the whole of the local evidence. */
const captureFirstMs = 15_000;

/**
 * Stigmem's runbook R-PEER-COMPROMISE as one durable workflow. It reads from top to bottom like the page;
 * each step's activity has the same name. See docs/reference/workflow.md for the messages.
 * Cancelling is recorded and refused: `close` ends an incident, behind its gate.
 */
export async function PeerCompromise(...start: unknown[]): Promise<IncidentResult> {
  const incident = openIncident(start);
  return CancellationScope.nonCancellable(async () => {
    await openRun(incident);
    const desk = new CancellationScope();
    const ending = await desk.run(() =>
      Promise.race<Closing>([
        runbook(incident),
        closeDesk(incident, 'expelled'),
        closeDesk(incident, 'dismissed'),
        manualStepDesk(incident, { ...containment(incident), ...noticeActs(incident), ...reregisterActs(incident) }),
        skipDesk(incident),
        timeToSwitch(incident),
      ]),
    );
    desk.cancel();
    await condition(() => incident.busy === 0);
    return ending === 'switch' ? switchRun(incident) : close(incident, ending);
  });
}

async function runbook(incident: Incident): Promise<Closing> {
  for (;;) {
    const ending = await round(incident);
    if (ending !== 'again') return ending;
  }
}

/** The page once, from the phase the incident is in. `again`: a tripwire was touched, or what was approved counts no more. */
async function round(incident: Incident): Promise<Closing | 'again'> {
  const { state } = incident;

  // ── Identify: "Capture the current evidence before changing state" ────────────────────────────
  // From our own node only: it never waits for the attacker's machine.
  if (state.phase === 'identify' || state.phase === 'contain') {
    await step(incident, 'resolvePeer', async ({ ref, hint }) => {
      const found = await read.resolvePeer({ ref, peer: hint ?? state.start.peer });
      state.ourNode = found.ourNode;
      state.peer = known(found.peer, state.peer);
      return found;
    });
    const holder = await claimPeer(incident);
    if (holder !== undefined) return { duplicateOf: holder };
    const onHost = meetHost(incident);
    const captured = step(incident, 'captureLocal', async ({ ref }) => {
      const alerts = [...state.alerts];
      const local = await collect.captureLocal({ ref, peer: state.peer, alerts });
      state.heldAlerts = [...local.alerts];
      state.alertsHeldUpTo = alerts.length;
      incident.firstBad(local.firstSuspicious);
      state.firstSaid ??= local.firstSuspicious;
      return local;
    });
    // A large audit, or one that can't be read, must not keep the door open: each step of Contain seals
    // what it disturbs by itself, so after this the fence goes up while the rest is still being read.
    await Promise.race([
      Promise.all([captured, onHost.captured]),
      condition(() => onHost.isOver() && incident.isDone('captureLocal'), captureFirstMs),
    ]);

    // ── Contain: "Stop new data from the peer first. Do not delete audit events" ────────────────
    // It waits for nobody. A step that fails parks alone; the others go on.
    incident.enter('contain');
    const acts = containment(incident);
    await Promise.all([
      captured,
      onHost.captured,
      // 1. Disable or remove the peer registration.
      step(incident, 'fenceInbound', acts.fenceInbound),
      step(incident, 'fenceOutbound', acts.fenceOutbound),
      step(incident, 'blockRelays', acts.blockRelays),
      // 2. Revoke capability tokens issued to that peer.
      step(incident, 'revokeTokens', acts.revokeTokens),
      step(incident, 'revokeKeys', acts.revokeKeys),
      // 3. If your deployment supports source-trust rules, lower the peer's trust score.
      step(incident, 'lowerTrust', acts.lowerTrust),
      // 4. Pause any automated promotion from quarantine.
      step(incident, 'pausePromotion', acts.pausePromotion),
    ]);
  }

  // ── Investigate: "Review what the peer wrote and what escaped quarantine" ─────────────────────
  if (state.phase === 'contain' || state.phase === 'investigate') {
    incident.enter('investigate');
    await strengthen(incident);
    const known = state.peer?.entityUri;
    await step(incident, 'readPeer', async ({ ref }) => {
      const asked = await read.readPeer({ ref, peer: state.peer });
      if (state.peer && asked.entityUri !== '') state.peer = { ...state.peer, entityUri: asked.entityUri };
      return asked;
    });
    // Only now the entity URI may be known: pinning the origin needs it, and what people are told to do names it.
    if (state.peer?.entityUri) {
      const acts = containment(incident);
      // On the host what was done was done for the names that were known.
      const again = state.host && state.peer.entityUri !== known ? stepsByPhase.contain.slice(2, 6) : [];
      const named = (['blockRelays', 'revokeTokens', 'revokeKeys', 'lowerTrust'] as const).filter(
        (name) => again.includes(name) || (name !== 'revokeTokens' && state.pending[name]),
      );
      await Promise.all(named.map((name) => stepAgain(incident, name, acts[name])));
    }
    await step(incident, 'collectFacts', async ({ ref }) => collect.collectFacts({ ref, peer: state.peer, ...(await listed(incident)) }));
    await step(incident, 'assess', async ({ ref }) => {
      const host = state.host ? { host: true } : {};
      const judging = { ref, peer: state.peer, policy: state.policy, firstBad: state.firstSaid, ...host };
      const assessed = await collect.assess({ ...judging, recollect: false });
      state.plan = assessed.plan;
      incident.firstBad(assessed.firstSuspicious);
      return assessed;
    });
  }

  // ── Recover 1, 2: "Retract facts that are false, unsafe …", "Keep benign facts if you can justify them" ──
  // ── Communicate: "Notify the peer operator", "notify those operators too" ─────────────────────
  if (state.phase === 'investigate' || state.phase === 'retract') {
    incident.enter('retract');
    await Promise.all([notices(incident), retractWhatIsApproved(incident)]);
  }

  // ── Recover 3: "Ask the peer operator to rotate compromised node or issuer keys" ──────────────
  const isAsked = patched('way-back');
  if (isAsked && (state.phase === 'retract' || state.phase === 'rotate')) await rotateKeys(incident);

  // ── Recover 4: "Re-register the peer only after you verify its new manifest/key material out of band" ──
  if (isAsked && (state.phase === 'rotate' || state.phase === 'reregister')) await registerAgain(incident);

  // ── Recover 5: "Run a small test pull and watch quarantine/audit events before restoring full trust" ──
  if (isAsked && patched('judge-backlog')) {
    if (state.phase === 'reregister' || state.phase === 'testPull') await pullForTest(incident);
    return watchAndRestore(incident);
  }
  // As earlier versions did: held here, fenced.
  incident.enter(isAsked ? 'testPull' : 'rotate');
  incident.wait({
    step: isAsked ? 'judgeBacklog' : 'requestRotation',
    kind: 'held',
    why: 'This version does not let a peer in again: judging what waits behind the fence, the test pull and the watch are not built. The peer stays fenced.',
    how: 'cordon close <incident> --outcome expelled (it never comes back) or --outcome dismissed (false alarm) --reason … --by <you>.',
  });
  await condition(() => false);
  return 'switch';
}

/** In a later round, what was learnt of the peer before stays: other rows, another node_id, its entity. */
function known(found: PeerRef, before: PeerRef | null): PeerRef {
  if (!before) return found;
  const both = (a: readonly string[], b: readonly string[]) => [...new Set([...a, ...b])];
  const { nodeId, entityUri, peerIds, nodeIds } = before;
  return {
    ...found,
    nodeId,
    entityUri: entityUri || found.entityUri,
    peerIds: both(found.peerIds, peerIds),
    nodeIds: both(found.nodeIds, nodeIds),
  };
}
