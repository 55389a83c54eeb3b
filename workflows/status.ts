import { hiddenOurs } from '../src/contract/steps.ts';
import { defineSearchAttributeKey, type SearchAttributeUpdatePair } from '@temporalio/common';
import { steps, type searchAttributes, type StepOutcome } from '../src/contract/names.ts';
import type { Coverage, PlanAnswer, Residual, Status, Waiting } from '../src/contract/schemas.ts';
import { digestOf, isDecided, tally, type OpenGate } from './gates.ts';
import type { IncidentState, StepRecord } from './state.ts';

/** Everything the incident waits for, in the order an operator should look at it. */
export function waitingFor(state: IncidentState, runId: string): Waiting[] {
  const gates = Object.values(state.gates)
    .filter((open) => !open.held && isDecided(open, state.policy) === undefined)
    .map((open) => waitingGate(state, open, runId));
  const steps = Object.values(state.pending)
    .toSorted((a, b) => Number(a.kind === 'manual') - Number(b.kind === 'manual'))
    .map(({ step, why, how }): Waiting => ({ kind: 'step', step, run: runId, why, how }));
  return [...gates, ...steps];
}

function waitingGate(state: IncidentState, open: OpenGate, runId: string): Waiting {
  const digest = digestOf(open, runId);
  const short = digest.slice(0, 'sha256:'.length + 12);
  const { gate, opening, since, expiresAt, plan } = open;
  const { have, need } = tally(open, state.policy);
  // Brought from outside: it is shown nowhere.
  const [option, field] = open.expectFingerprint === undefined ? ['', ''] : [' --fingerprint sha256:…', ',"fingerprint":"sha256:…"'];
  const how = `cordon approve <incident> --gate ${gate} --digest ${short}${option} --by <you>, or signal approve {"gate":"${gate}","digest":"${short}"${field},"by":"<you>"}`;
  return { kind: 'gate', gate, opening, digest, have, need, since, expiresAt, summary: plan.summary, how };
}

/** Steps run side by side and end in any order; people read them as the page has them. */
function inPageOrder(records: readonly StepRecord[]): StepRecord[] {
  return records.toSorted((a, b) => a.round - b.round || steps.indexOf(a.name) - steps.indexOf(b.name));
}

/** What is not done, as residual risk: steps that are not verified or manual, and what they left behind. */
export function residualOf(state: IncidentState): Residual[] {
  const current = state.steps.filter(({ round }) => round === state.round);
  const isLifted = current.some(({ name, outcome }) => name === 'liftFences' && outcome === 'verified');
  const isShown = current.some(({ name, outcome }) => name === 'verifyUndone' && outcome === 'verified');
  const all = inPageOrder(current)
    // A fence that was lifted costs nobody anything any more.
    .filter(({ name }) => !isLifted || (name !== 'fenceInbound' && name !== 'fenceOutbound'))
    .flatMap(({ name, outcome, detail, residual: named }) => {
      // Asked again since, and found visible.
      const residual = isShown ? named.filter(({ what }) => what !== hiddenOurs) : named;
      const isDone = outcome === 'verified' || outcome === 'manual';
      return isDone || residual.length > 0 ? residual : [{ what: name, why: `${outcome}: ${detail}`, count: 1 }];
    });
  // Two steps may see the same thing: the later one counts.
  return [...new Map(all.map((residual) => [`${residual.what} ${residual.why}`, residual])).values()];
}

/** Answer of query `status`. */
export function statusOf(state: IncidentState, ids: { incident: string; runId: string; extra: readonly string[] }): Status {
  const waiting = waitingFor(state, ids.runId);
  const parked = Object.values(state.pending).some(({ kind }) => kind === 'parked');
  const gateWaits = waiting.some(({ kind }) => kind === 'gate') || Object.values(state.pending).some(({ kind }) => kind === 'held');
  const { peer, heldAlerts } = state;
  return {
    incident: ids.incident,
    run: ids.runId,
    mode: state.start.mode ?? 'live',
    peer: {
      nodeId: peer?.nodeId ?? '',
      url: peer?.url ?? '',
      entityUri: peer?.entityUri ?? '',
      peerIds: [...(peer?.peerIds ?? [])],
    },
    phase: state.phase,
    round: state.round,
    state: parked ? 'parked' : gateWaits ? 'waiting' : state.outcome ? 'closed' : 'running',
    outcome: state.outcome,
    waitingFor: waiting,
    steps: inPageOrder(state.steps).map(({ residual: _residual, ...step }) => step),
    residual: residualOf(state),
    coverage: mergedCoverage(state),
    refused: state.refused,
    evidence: state.evidence,
    firstBadAt: state.firstBad,
    alerts: { count: state.alertCount, corroborated: heldAlerts.filter(({ corroborated }) => corroborated).length },
    notes: state.notes,
    warnings: [...state.warnings, ...ids.extra],
  };
}

function mergedCoverage(state: IncidentState): Coverage[] {
  const { alertCount, alerts } = state;
  return alertCount > alerts.length
    ? [
        ...state.coverage,
        { what: 'alerts kept', seen: alerts.length, complete: false, why: `${alertCount} came; the rest stands in the history only` },
      ]
    : state.coverage;
}

/** Answer of query `plan`. */
export function planOf(state: IncidentState, gate: OpenGate | undefined, runId: string): PlanAnswer {
  if (!gate) return { gate: null, opening: 0, digest: '', planHash: '', counts: {} };
  const { plan, opening } = gate;
  return {
    gate: gate.gate,
    opening,
    digest: digestOf(gate, runId),
    planHash: plan.planHash,
    counts: { ...plan.counts },
    ...(plan.items ? { items: [...plan.items] } : {}),
    ...(plan.items || plan.evidenceId === undefined ? {} : { evidence: plan.evidenceId }),
  };
}

/** What `cordon show` and `cordon list` can say with no worker alive. Ids and counts only: the server warns at 2 KB. */
export function memoOf(state: IncidentState): Record<string, unknown> {
  return {
    phase: state.phase,
    round: state.round,
    mode: state.start.mode ?? 'live',
    peer: state.peer?.nodeId ?? state.start.peer.slice(0, 200),
    gates: Object.values(state.gates).map(({ gate, opening }) => `${gate}#${opening}`),
    steps: Object.values(state.pending).map(({ step, kind }) => `${step}:${kind}`),
    outcome: state.outcome,
  };
}

/** What the gauges need beside that: since when gates wait, and how many steps ended without being verified. */
export function countsOf(state: IncidentState): Record<string, unknown> {
  const ended = (how: StepOutcome) => state.steps.filter(({ round, outcome }) => round === state.round && outcome === how).length;
  return {
    since: Object.fromEntries(Object.values(state.gates).map(({ gate, since, held }) => [gate, held ? null : since])),
    notVerified: { unverified: ended('unverified'), unavailable: ended('unavailable') },
  };
}

/** Upserts only names an activity has just seen registered: an unknown one wedges the workflow task. */
export function searchAttributesOf(state: IncidentState, names: typeof searchAttributes): SearchAttributeUpdatePair[] {
  const gates = Object.keys(state.gates);
  const values: readonly (readonly [string, string])[] = [
    [names.peer, state.peer?.nodeId ?? state.start.peer.slice(0, 200)],
    [names.phase, state.phase],
    [names.mode, state.start.mode ?? 'live'],
    [names.waitingFor, gates.length > 0 ? gates.join(',') : Object.keys(state.pending).length > 0 ? 'step' : 'nothing'],
    [names.outcome, state.outcome ?? 'open'],
  ];
  return values
    .filter(([name]) => state.registeredSearchAttributes.includes(name))
    .map(([name, value]): SearchAttributeUpdatePair => ({ key: defineSearchAttributeKey(name, 'KEYWORD'), value }));
}

/** Current details in the Web UI, Markdown. */
export function detailsOf(state: IncidentState, runId: string): string {
  const lines = waitingFor(state, runId).map((waiting) =>
    waiting.kind === 'gate'
      ? `- **${waiting.gate}** (${waiting.have} of ${waiting.need}): ${waiting.summary}. Digest \`${waiting.digest}\``
      : `- **${waiting.step}**: ${waiting.why} ${waiting.how}`,
  );
  const head = `Phase **${state.phase}**, round ${state.round}${state.outcome ? `, outcome **${state.outcome}**` : ''}.`;
  return [head, ...(lines.length > 0 ? ['', 'Waiting for:', ...lines] : [])].join('\n').slice(0, 15_000);
}
