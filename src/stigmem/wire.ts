import { z } from 'zod';

/**
 * What a Stigmem node answers, seen on stigmem-node 0.9.0a12. Tolerant: unknown fields are kept, since answers are
 * sealed as evidence; an absent nullable field reads as null. Ids, times, scopes and sources of facts are the
 * sender's claims and may be any string.
 */
const text = z.string().nullable().default(null);
const number = z.number().nullable().default(null);
const strings = z
  .array(z.string())
  .nullable()
  .default(null)
  .transform((list) => list ?? []);

/** Scopes a fact can have: stigmem_node/models/constants.py, VALID_SCOPES. */
export const SCOPES = ['local', 'team', 'company', 'public'] as const;
export type Scope = (typeof SCOPES)[number];

/** GET /.well-known/stigmem: routes/wellknown.py, node_metadata. The docs name the key `public_key`. */
export const WellKnown = z.looseObject({
  node_id: z.string().min(1),
  node_url: text,
  entity_uri: text,
  federation_pubkey: text,
  public_key: text,
  federation: text,
});
export type WellKnown = z.infer<typeof WellKnown>;

/** identity/manifest.py, _rotation_event_to_dict. */
export const RotationEvent = z.looseObject({
  previous_key_id: z.string(),
  new_key_id: z.string(),
  new_public_key: z.string(),
  rotated_at: z.string(),
  signature: z.string(),
  previous_public_key: text,
});
export type RotationEvent = z.infer<typeof RotationEvent>;

/** GET /.well-known/stigmem-manifest.json: identity/manifest.py, manifest_to_dict. 404 until one is published. */
export const Manifest = z.looseObject({
  entity_uri: z.string(),
  key_id: z.string(),
  public_key: z.string(),
  issued_at: z.string(),
  expires_at: z.string(),
  entities: z.array(z.string()).default([]),
  rotation_events: z.array(RotationEvent).default([]),
  signature: z.string(),
});
export type Manifest = z.infer<typeof Manifest>;

/** One row of GET /v1/federation/peers: routes/federation/peers.py, list_peers. No pinned key, no tenant_map. */
export const Peer = z.looseObject({
  peer_id: z.string().min(1),
  node_id: z.string(),
  node_url: z.string(),
  status: z.string(),
  allowed_scopes: strings,
  established_at: text,
  pull_tenant: text,
  ingest_tenant: text,
  allowed_tenants: strings,
  trust_tier: text,
});
export type Peer = z.infer<typeof Peer>;
export const PeersAnswer = z.looseObject({ peers: z.array(Peer) });

/** PATCH /v1/federation/peers/{id}: patch_peer_policy. `updated` names columns; unknown fields are dropped in silence. */
export const PatchPeerAnswer = z.looseObject({ peer_id: z.string(), updated: z.array(z.string()) });
export type PatchPeerAnswer = z.infer<typeof PatchPeerAnswer>;

/** POST /v1/federation/peers: register_peer. `rejected` comes with 201 too. */
export const RegisteredPeer = z.looseObject({ peer_id: z.string().min(1), status: z.string() });
export type RegisteredPeer = z.infer<typeof RegisteredPeer>;

/** POST /v1/federation/peers/{id}/approve: approve_peer. */
export const ApprovedPeer = z.looseObject({ peer_id: z.string(), node_id: z.string(), status: z.string() });
export type ApprovedPeer = z.infer<typeof ApprovedPeer>;

/** routes/federation/audit_conflicts.py, get_audit_log. peer_id: a peers row id, a node_id, an issuer or an entity URI. */
export const FederationAuditEvent = z.looseObject({
  id: z.string().min(1),
  peer_id: text,
  event_type: z.string(),
  detail: z.unknown().optional(),
  ts: z.string(),
});
export type FederationAuditEvent = z.infer<typeof FederationAuditEvent>;
export const FederationAuditPage = z.looseObject({
  entries: z.array(FederationAuditEvent),
  cursor: text,
  has_more: z.boolean().optional(),
});
export type FederationAuditPage = z.infer<typeof FederationAuditPage>;

/** GET /v1/audit: routes/audit.py, query_audit; models/audit.py, AuditLogEntry. `fact_id` may be a token id. */
export const AuditEvent = z.looseObject({
  id: z.string().min(1),
  fact_id: text,
  event_type: z.string(),
  entity_uri: text,
  oidc_sub: text,
  source: text,
  attested_key_id: text,
  ts: z.string(),
  fact_entity: text,
  fact_relation: text,
  fact_value_type: text,
  fact_value_v: text,
  fact_scope: text,
});
export type AuditEvent = z.infer<typeof AuditEvent>;
export const AuditPage = z.looseObject({ entries: z.array(AuditEvent), cursor: text });
export type AuditPage = z.infer<typeof AuditPage>;

/** What cordon reads of an exported event. */
const auditColumns = ['id', 'fact_id', 'event_type', 'principal_entity_uri', 'principal_oidc_sub', 'source', 'attested_key_id', 'ts'];

/** GET /v1/audit/export: routes/audit.py, _CSV_HEADERS. Rows of text, the first names the columns; "" stands for null. */
export const AuditExport = z.array(z.array(z.string())).transform((rows, context): AuditEvent[] => {
  const [columns = [], ...events] = rows;
  const missing = auditColumns.filter((column) => !columns.includes(column));
  const odd = events.findIndex((row) => row.length !== columns.length);
  if (missing.length > 0 || odd !== -1) {
    const message = missing.length > 0 ? `expected a first row with ${missing.join(', ')}` : `expected ${columns.length} fields`;
    context.addIssue({ code: 'custom', message, path: missing.length > 0 ? [] : [odd + 1] });
    return z.NEVER;
  }
  const parsed = z.array(AuditEvent).safeParse(
    events.map((row) => {
      const named = Object.fromEntries(columns.map((column, at) => [column, row[at] === '' ? null : row[at]]));
      return { ...named, entity_uri: named['principal_entity_uri'], oidc_sub: named['principal_oidc_sub'] };
    }),
  );
  if (parsed.success) return parsed.data;
  context.addIssue({ code: 'custom', message: 'rows of audit events', path: parsed.error.issues[0]?.path ?? [] });
  return z.NEVER;
});

/** models/facts.py, FactValue. `v` is null where the sanitiser redacted it. */
export const FactValue = z.looseObject({
  type: z.string(),
  v: z.unknown().optional(),
  interpret_as: z.string().default('content'),
});
export type FactValue = z.infer<typeof FactValue>;

/** models/facts.py, FactRecord. `timestamp` is the sender's claim; `received_from` is stamped by the node itself. */
export const Fact = z.looseObject({
  id: z.string().min(1),
  entity: z.string(),
  relation: z.string(),
  value: FactValue,
  source: z.string(),
  timestamp: z.string(),
  scope: z.string(),
  confidence: z.number(),
  hlc: text,
  received_from: text,
  origin_node_id: text,
  valid_until: text,
  garden_id: text,
  contradicted: z.boolean().default(false),
  quarantine_status: text,
  quarantine_garden_id: text,
  effective_confidence: number,
  sanitizer_redacted: z.boolean().default(false),
  cid: text,
  warnings: strings,
});
export type Fact = z.infer<typeof Fact>;
export const FactsPage = z.looseObject({ facts: z.array(Fact), total: number, cursor: text });
export type FactsPage = z.infer<typeof FactsPage>;

/** GET /v1/facts/{id}/provenance: models/provenance.py. */
export const Provenance = z.looseObject({
  fact_id: z.string(),
  cid: text,
  derived_from: z.array(z.looseObject({ hash: z.string(), fact_id: text, entity: text, exists: z.boolean() })),
});
export type Provenance = z.infer<typeof Provenance>;

/** GET /v1/quarantine: models/gardens.py, QuarantineRecord. No value, scope or origin; read the fact for those. */
export const QuarantineEntry = z.looseObject({
  fact_id: z.string().min(1),
  entity: z.string(),
  relation: z.string(),
  source: z.string(),
  quarantine_status: z.string(),
  quarantine_garden_id: text,
  quarantine_reason: text,
  quarantine_acted_by: text,
  quarantine_acted_at: text,
  source_trust: number,
  received_from: text,
  timestamp: z.string(),
});
export type QuarantineEntry = z.infer<typeof QuarantineEntry>;
export const QuarantinePage = z.looseObject({ items: z.array(QuarantineEntry), total: z.number().int().min(0) });
export type QuarantinePage = z.infer<typeof QuarantinePage>;

/** POST /v1/quarantine/{id}/reject: routes/quarantine.py, reject_fact. */
export const QuarantineAction = z.looseObject({ fact_id: z.string(), action: z.string(), acted_at: text });
export type QuarantineAction = z.infer<typeof QuarantineAction>;
