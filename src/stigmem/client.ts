import { z } from 'zod';
import { StigmemSession } from './session.ts';
import {
  ApprovedPeer,
  AuditExport,
  AuditPage,
  Fact,
  FactsPage,
  FederationAuditPage,
  Manifest,
  PatchPeerAnswer,
  PeersAnswer,
  Provenance,
  QuarantineAction,
  QuarantinePage,
  RegisteredPeer,
  type AuditEvent,
  type Peer,
  type Scope,
} from './wire.ts';
import {
  Card,
  ConflictsPage,
  DeletedPin,
  ExpiringKey,
  FactTotals,
  LintAnswer,
  OpenApiPaths,
  OriginPin,
  OriginPinsAnswer,
  RecallAnswer,
  RevokedToken,
  Synthesis,
} from './wire-read.ts';
import type {
  AssertFact,
  AuditQuery,
  FactsQuery,
  FederationAuditQuery,
  LintQuery,
  OriginPinBody,
  PeerDeclaration,
  PeerPolicy,
  QuarantineQuery,
  RecallQuery,
} from './requests.ts';

const METHODS = new Set(['get', 'post', 'put', 'patch', 'delete']);

/**
 * One Stigmem node over HTTP. Each method makes exactly one request and either returns the parsed answer or throws
 * an error of errors.ts (or the abort reason of its signal). It never retries, follows no redirect and keeps no state
 * but the bound node_id. Methods marked "as an agent" use `agentKey` where one is set.
 */
export class Stigmem extends StigmemSession {
  /** Our own node's manifest. 404 until one has been published. */
  async manifest(signal?: AbortSignal): Promise<Manifest> {
    return this.open('/.well-known/stigmem-manifest.json', Manifest, signal);
  }

  /** Every documented route as `METHOD /path`, for example `PATCH /v1/federation/peers/{peer_id}`. */
  async openApiRoutes(signal?: AbortSignal): Promise<{ routes: Set<string>; version: string | null }> {
    const document = await this.admin('GET', '/openapi.json', OpenApiPaths, { signal });
    const routes = new Set<string>();
    for (const [path, operations] of Object.entries(document.paths)) {
      for (const method of Object.keys(operations)) {
        if (METHODS.has(method)) routes.add(`${method.toUpperCase()} ${path}`);
      }
    }
    return { routes, version: document.info?.version ?? null };
  }

  /** All peers rows, whatever their status; the node does not page this list. */
  async peers(signal?: AbortSignal): Promise<Peer[]> {
    return (await this.admin('GET', '/v1/federation/peers', PeersAnswer, { signal })).peers;
  }

  /** A 200 names the columns written, no more: read `peers()` back. `tenant_map` replaces the whole map. */
  async patchPeer(peerId: string, policy: PeerPolicy, signal?: AbortSignal): Promise<PatchPeerAnswer> {
    return this.admin('PATCH', `/v1/federation/peers/${segment(peerId)}`, PatchPeerAnswer, { body: policy, signal });
  }

  /** 409 for a node_id that is known, whatever its status. The node asks the peer's well-known for the key first. */
  async registerPeer(declaration: PeerDeclaration, signal?: AbortSignal): Promise<RegisteredPeer> {
    return this.admin('POST', '/v1/federation/peers', RegisteredPeer, { body: declaration, signal });
  }

  /** 400 where the fingerprint is not the registered key's, 409 unless the row is pending_approval, 404. */
  async approvePeer(peerId: string, fingerprint: string, signal?: AbortSignal): Promise<ApprovedPeer> {
    const path = `/v1/federation/peers/${segment(peerId)}/approve`;
    return this.admin('POST', path, ApprovedPeer, { body: { pubkey_fingerprint: fingerprint }, signal });
  }

  /** Newest first. Its cursor loses rows (paging.ts): never walk it and believe the union. */
  async federationAuditPage(query: FederationAuditQuery = {}, signal?: AbortSignal): Promise<FederationAuditPage> {
    const { peerId, eventType, limit, cursor } = query;
    const names = { peer_id: peerId, event_type: eventType, limit, cursor };
    return this.admin('GET', '/v1/federation/audit', FederationAuditPage, { query: names, signal });
  }

  /** Newest first; this cursor is sound. */
  async auditPage(query: AuditQuery = {}, signal?: AbortSignal): Promise<AuditPage> {
    return this.admin('GET', '/v1/audit', AuditPage, { query: { ...query }, signal });
  }

  /**
   * The same log as CSV, oldest first, at most 50,000 events; it has no cursor. Answers even where `auditPage`
   * fails on an event without a fact id.
   */
  async auditExport(limit: number, signal?: AbortSignal): Promise<AuditEvent[]> {
    return this.admin('GET', '/v1/audit/export', AuditExport, { query: { limit }, signal, accept: 'text/csv' });
  }

  /** As the admin. Newest claimed timestamp first; the cursor loses rows. */
  async factsPage(query: FactsQuery = {}, signal?: AbortSignal): Promise<FactsPage> {
    return this.admin('GET', '/v1/facts', FactsPage, { query: { ...query }, signal });
  }

  /** The same query as an agent. */
  async agentFactsPage(query: FactsQuery = {}, signal?: AbortSignal): Promise<FactsPage> {
    return this.agent('GET', '/v1/facts', FactsPage, { query: { ...query }, signal });
  }

  /** As the admin. 404 for unknown, tombstoned and quarantine-pending facts alike. */
  async fact(id: string, signal?: AbortSignal): Promise<Fact> {
    return this.admin('GET', `/v1/facts/${segment(id)}`, Fact, { signal });
  }

  /** What the fact says it was derived from. */
  async provenance(id: string, signal?: AbortSignal): Promise<Provenance> {
    return this.admin('GET', `/v1/facts/${segment(id)}/provenance`, Provenance, { signal });
  }

  /** As an agent. 404 when the entity has no live fact in the scope. */
  async card(entity: string, scope: Scope, signal?: AbortSignal): Promise<Card> {
    return this.agent('GET', `/v1/cards/${segment(entity)}`, Card, { query: { scope }, signal });
  }

  /** As an agent, in one scope: what agents really read. */
  async recall(query: RecallQuery, signal?: AbortSignal): Promise<RecallAnswer> {
    return this.agent('POST', '/v1/recall', RecallAnswer, { body: query, signal });
  }

  /** As an agent. At most 1,000 facts, highest confidence first. */
  async synthesize(scope: Scope, query: { include_expired?: boolean; limit?: number } = {}, signal?: AbortSignal): Promise<Synthesis> {
    return this.agent('GET', `/v1/scopes/${scope}/synthesize`, Synthesis, { query, signal });
  }

  /** Quarantined facts with their total; offset paging is sound while the list holds still. */
  async quarantinePage(query: QuarantineQuery = {}, signal?: AbortSignal): Promise<QuarantinePage> {
    const { status, limit, offset } = query;
    return this.admin('GET', '/v1/quarantine', QuarantinePage, { query: { quarantine_status: status, limit, offset }, signal });
  }

  /** 409 unless the fact is pending. */
  async rejectQuarantined(id: string, reason: string, signal?: AbortSignal): Promise<QuarantineAction> {
    return this.admin('POST', `/v1/quarantine/${segment(id)}/reject`, QuarantineAction, { query: { reason }, signal });
  }

  /** The node normalises entity and source: compare the answer's entity with the one asked for. */
  async assertFact(body: AssertFact, signal?: AbortSignal): Promise<Fact> {
    return this.admin('POST', '/v1/facts', Fact, { body, signal });
  }

  async originPins(signal?: AbortSignal): Promise<OriginPin[]> {
    return (await this.admin('GET', '/v1/federation/origin-pins', OriginPinsAnswer, { signal })).pins;
  }

  /** Creates or replaces the pin of (entity_uri, node_id). */
  async putOriginPin(pin: OriginPinBody, signal?: AbortSignal): Promise<OriginPin> {
    return this.admin('POST', '/v1/federation/origin-pins', OriginPin, { body: pin, signal });
  }

  /** 404 when there is no such pin. */
  async deleteOriginPin(pin: { entity_uri: string; node_id: string }, signal?: AbortSignal): Promise<void> {
    const { entity_uri, node_id } = pin;
    await this.admin('DELETE', '/v1/federation/origin-pins', DeletedPin, { query: { entity_uri, node_id }, signal });
  }

  /** 403 unless our key's entity is the token's issuer or subject, 404 unknown, 409 already revoked. */
  async revokeCapabilityToken(id: string, reason: string, signal?: AbortSignal): Promise<RevokedToken> {
    const path = `/v1/federation/capability-tokens/${segment(id)}/revoke`;
    return this.admin('POST', path, RevokedToken, { body: { reason }, signal });
  }

  /** Keys of every entity that expire within 1 to 365 days; keys without an expiry are not among them. */
  async keysExpiringSoon(withinDays: number, signal?: AbortSignal): Promise<ExpiringKey[]> {
    return this.admin('GET', '/v1/auth/keys/expiring-soon', z.array(ExpiringKey), { query: { within_days: withinDays }, signal });
  }

  async conflictsPage(query: { status?: string; limit?: number; cursor?: string } = {}, signal?: AbortSignal): Promise<ConflictsPage> {
    return this.admin('GET', '/v1/conflicts', ConflictsPage, { query, signal });
  }

  /** Read-only sweep of one scope; a large scope answers with a job to poll by `lintJob`. */
  async lint(query: LintQuery, signal?: AbortSignal, timeoutMs?: number): Promise<LintAnswer> {
    return this.admin('POST', '/v1/lint', LintAnswer, { body: query, signal, timeoutMs });
  }

  async lintJob(jobId: string, signal?: AbortSignal): Promise<LintAnswer> {
    return this.admin('GET', `/v1/lint/jobs/${segment(jobId)}`, LintAnswer, { signal });
  }

  /** Facts in the node's store, all tenants together. */
  async factTotals(signal?: AbortSignal): Promise<FactTotals> {
    return this.admin('GET', '/v1/admin/cid-backfill/status', FactTotals, { signal });
  }
}

/** Ids are chosen by others: no slash, query or lone surrogate of theirs may change which route is called. */
function segment(id: string): string {
  return encodeURIComponent(id.replace(/\p{Surrogate}/gu, '\ufffd'));
}
