import type { Incident } from './incident.ts';
import { collect, mutate } from './policies.ts';
import { residualOf } from './status.ts';
import { insist, step, type manualStepDesk } from './steps.ts';

/** Communicate runs beside the phases that wait: who has to know is told while people decide. */
export async function notices(incident: Incident): Promise<void> {
  // Skipped at the start: there is nobody to write about.
  if (!incident.state.peer) return;
  await holdNewAlerts(incident);
  const acts = noticeActs(incident);
  await Promise.all([
    // "Notify the peer operator with: …" the five items of the page.
    step(incident, 'notifyPeer', acts.notifyPeer),
    // "If compromised data may have reached downstream peers, notify those operators too."
    step(incident, 'notifyDownstream', acts.notifyDownstream),
    // Agents are downstream too: the owners of those that recalled in the poisoned scopes.
    step(incident, 'notifyLocal', acts.notifyLocal),
  ]);
}

/** The steps of Communicate by name; the same acts read back what a person sent by hand. */
export function noticeActs(incident: Incident) {
  return {
    notifyPeer: (attempt) => mutate.notifyPeer({ ...attempt, facts: noticeFacts(incident) }),
    notifyDownstream: (attempt) => mutate.notifyDownstream({ ...attempt, facts: noticeFacts(incident) }),
    notifyLocal: (attempt) => mutate.notifyLocal({ ...attempt, facts: noticeFacts(incident) }),
    requestRotation: (attempt) => mutate.requestRotation({ ...attempt, facts: noticeFacts(incident) }),
  } satisfies Parameters<typeof manualStepDesk>[1];
}

/** What notices are built from: findings and evidence ids only. */
function noticeFacts(incident: Incident) {
  const { peer, heldAlerts, steps, firstBad, plan, coverage } = incident.state;
  return {
    peer,
    alerts: heldAlerts.slice(0, 50),
    steps: steps.map(({ name, outcome, way, at, detail }) => ({ name, outcome, way, at, detail })),
    firstBad,
    plan: plan ? { counts: plan.counts, evidenceId: plan.evidenceId, total: plan.total } : null,
    coverage,
    residual: residualOf(incident.state),
  };
}

/** Alerts that came since the last look are held against the audit too. */
export async function holdNewAlerts(incident: Incident): Promise<void> {
  const { state } = incident;
  const from = state.alertsHeldUpTo;
  const fresh = state.alerts.slice(from);
  if (fresh.length === 0 || !state.peer) return;
  const upTo = state.alerts.length;
  const held = await insist(incident, 'captureLocal', ({ ref }) => collect.holdAlerts({ ref, peer: state.peer, alerts: fresh }));
  if (!held) return;
  incident.absorb(held);
  // The notices and the plan look at the same time.
  if (state.alertsHeldUpTo !== from) return;
  state.heldAlerts = [...state.heldAlerts, ...held.alerts];
  state.alertsHeldUpTo = upTo;
}
