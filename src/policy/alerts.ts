import type { Alert } from '../contract/schemas.ts';

/** One event of the node's audit, as far as an alert is held against it. */
export interface AuditedEvent {
  readonly id: string;
  readonly type: string;
  readonly at: string;
  readonly detail: string;
}

/**
 * What each alert of the runbook should have left in the federation audit. The alert names are names of
 * alerts, not of events: thresholds as the node's own alert rules have them (docs/explanation/stigmem-gaps.md).
 */
const expectedByAlert: Readonly<
  Record<
    string,
    {
      readonly expected: string;
      readonly types: readonly string[];
      readonly atLeast: number;
      readonly withinMs: number;
      readonly detail?: RegExp;
    }
  >
> = {
  peer_capability_violation: { expected: 'a scope_violation', types: ['scope_violation'], atLeast: 1, withinMs: Infinity },
  peer_replay_burst: { expected: 'more than 5 replay_attempt within an hour', types: ['replay_attempt'], atLeast: 6, withinMs: 3_600_000 },
  federation_handshake_failed: {
    expected: 'more than 3 failed handshakes within a minute',
    types: ['rejected_token', 'peer_approval_failed', 'san_mismatch', 'tl_proof_missing'],
    atLeast: 4,
    withinMs: 60_000,
  },
  manifest_rotation_observed: {
    expected: 'a manifest_stored or a rejected signature',
    types: ['manifest_stored', 'manifest_refresh_failed', 'rejected_token'],
    atLeast: 1,
    withinMs: Infinity,
    detail: /manifest|signature|rotation/i,
  },
};

/** Events that are suspicious whenever this peer causes them. */
export const suspiciousEvents: ReadonlySet<string> = new Set([
  'scope_violation',
  'replay_attempt',
  'rejected_token',
  'rejected_fact',
  'san_mismatch',
  'peer_approval_failed',
  'federation_integrity_rejected',
  'peer_hlc_anomaly',
  'manifest_refresh_failed',
]);

/** An alert held against the audit: corroborated by which events, or why not. */
export function holdAlert(
  alert: Alert,
  events: readonly AuditedEvent[],
  auditComplete: boolean,
): { corroborated: boolean; why: string; eventIds: string[] } {
  const rule = Object.hasOwn(expectedByAlert, alert.name) ? expectedByAlert[alert.name] : undefined;
  if (!rule) {
    return {
      corroborated: false,
      why: `the audit has no event for an alert named so; look at the evidence of facts and quarantine`,
      eventIds: [],
    };
  }
  const matching = events
    .filter(({ type, detail }) => rule.types.includes(type) && (!rule.detail || type !== 'rejected_token' || rule.detail.test(detail)))
    .toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at));
  const burst = densest(matching, rule.withinMs);
  if (burst.length >= rule.atLeast) {
    return { corroborated: true, why: `${burst.length} matching events (${rule.expected})`, eventIds: burst.map(({ id }) => id) };
  }
  const gap = auditComplete ? '' : '; the audit could not be read completely, so this proves nothing';
  return { corroborated: false, why: `expected ${rule.expected}, found ${burst.length}${gap}`, eventIds: burst.map(({ id }) => id) };
}

/** The longest run of events, sorted by time, that lies within the span. */
export function densest(sorted: readonly AuditedEvent[], withinMs: number): readonly AuditedEvent[] {
  let best: readonly AuditedEvent[] = [];
  let start = 0;
  for (let end = 0; end < sorted.length; end += 1) {
    while (time(sorted[end]) - time(sorted[start]) > withinMs) start += 1;
    if (end - start + 1 > best.length) best = sorted.slice(start, end + 1);
  }
  return best;
}

function time(event: AuditedEvent | undefined): number {
  return event ? Date.parse(event.at) : Number.NaN;
}
