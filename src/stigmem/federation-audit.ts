import type { Stigmem } from './client.ts';
import { Meter, type Collected, type CollectOptions } from './paging.ts';
import type { FederationAuditQuery } from './requests.ts';
import { sweep } from './sweep.ts';
import type { FederationAuditEvent } from './wire.ts';

/**
 * All event types the audit table admits: the CHECK of migrations/058_federation_audit_first_trust_confirm_rejected.sql.
 * A list of queries by type is therefore a partition of the whole table, on this version.
 */
export const FEDERATION_EVENT_TYPES = [
  'rejected_fact',
  'rejected_token',
  'scope_violation',
  'replay_attempt',
  'tl_proof_missing',
  'tl_proof_verified',
  'manifest_stored',
  'manifest_refresh_failed',
  'san_mismatch',
  'peer_approved',
  'peer_approval_failed',
  'peer_policy_updated',
  'origin_pin_set',
  'origin_pin_deleted',
  'dnssec_first_trust_confirmed',
  'dnssec_first_trust_rejected',
  'dnssec_first_trust_confirm_rejected',
] as const;

export interface FederationAuditOptions extends CollectOptions {
  /**
   * Everything the peer may be called in the audit: peers row ids, node_ids, token issuers, entity URIs. With it only
   * events of that peer are returned: those stored under one of these names, and those whose detail holds one.
   */
  readonly peerIds?: readonly string[];
  /** More types to ask for, for a node newer than FEDERATION_EVENT_TYPES. */
  readonly eventTypes?: readonly string[];
}

const PAGE = 500;

/**
 * The federation audit, newest first. Its cursor loses rows, so it is narrowed by type, and by peer within a type,
 * until each page says that it is the last; where none does, rows are swept and the gap is said.
 */
export async function collectFederationAudit(
  client: Stigmem,
  options: FederationAuditOptions = {},
): Promise<Collected<FederationAuditEvent>> {
  const meter = new Meter(options);
  const found = new Map<string, FederationAuditEvent>();
  const names = [...new Set(options.peerIds ?? [])].filter((name) => name !== '');
  const page = async (query: FederationAuditQuery): Promise<{ rows: FederationAuditEvent[]; last: boolean }> => {
    const answer = await meter.ask((signal) => client.federationAuditPage({ ...query, limit: PAGE }, signal));
    for (const event of answer.entries) found.set(event.id, event);
    meter.seen = found.size;
    return { rows: answer.entries, last: answer.cursor === null };
  };
  const swept = (query: FederationAuditQuery): ReturnType<typeof sweep> =>
    sweep((cursor) => page(cursor === undefined ? query : { ...query, cursor }), found);
  const result = (complete: boolean, why: string): Collected<FederationAuditEvent> => {
    const items = [...found.values()].filter((event) => names.length === 0 || concerns(event, names)).sort(newestFirst);
    return { items, complete, why, asked: meter.asked };
  };

  if ((await page({})).last) return result(true, `the whole audit is ${found.size} events, one page`);

  const types = new Set<string>([...FEDERATION_EVENT_TYPES, ...(options.eventTypes ?? [])]);
  const gaps: string[] = [];
  let byPeer = false;
  // A Set also visits what is added while it is walked: types that only the rows themselves named.
  for (const eventType of types) {
    const all = await swept({ eventType });
    for (const event of found.values()) types.add(event.event_type);
    if (all.closed) continue;
    const open: string[] = [];
    for (const peerId of names) {
      const own = await swept({ eventType, peerId });
      if (!own.closed) open.push(`${peerId} (about ${own.estimate ?? 'an unknown number of'} events)`);
    }
    if (names.length > 0 && open.length === 0) {
      byPeer = true;
      continue;
    }
    const seen = [...found.values()].filter((event) => event.event_type === eventType).length;
    gaps.push(
      `${eventType}: ${seen} seen of about ${all.estimate ?? 'an unknown number'}${open.length > 0 ? `, too many under ${open.join(', ')}` : ''}`,
    );
  }
  if (gaps.length > 0) {
    return result(false, `more than ${PAGE} events of a kind, and the node's cursor loses rows: ${gaps.join('; ')}`);
  }
  if (byPeer) return result(true, `${types.size} event types, each closed by its last page for all events stored under the peer's names`);
  return result(true, `${types.size} event types, each closed by its last page`);
}

function concerns(event: FederationAuditEvent, names: readonly string[]): boolean {
  if (event.peer_id !== null && names.includes(event.peer_id)) return true;
  const detail = JSON.stringify(event.detail ?? null);
  return names.some((name) => detail.includes(JSON.stringify(name)));
}

function newestFirst(a: FederationAuditEvent, b: FederationAuditEvent): number {
  return a.ts < b.ts ? 1 : a.ts > b.ts ? -1 : 0;
}
