import { z } from 'zod';
import { Fact } from './wire.ts';

/** Answers of the routes agents read (cards, recall, synthesize) and of the small administrative ones. */
const text = z.string().nullable().default(null);

/** GET /v1/cards/{entity}: models/cards.py, MemoryCardResponse. 404 when the entity has no live fact in the scope. */
export const Card = z.looseObject({
  entity_uri: z.string(),
  scope: z.string(),
  summary: z.string(),
  fact_hashes: z.array(z.string()),
  avg_confidence: z.number(),
  refreshed_at: text,
  is_stale: z.boolean(),
  has_contradictions: z.boolean(),
});
export type Card = z.infer<typeof Card>;

/** models/recall.py, ScoredFact. A card comes as one made-up fact with `from_card`. */
export const RecalledFact = z.looseObject({
  fact: Fact,
  score: z.number(),
  from_card: z.boolean().default(false),
  token_estimate: z.number(),
});
export type RecalledFact = z.infer<typeof RecalledFact>;

/** POST /v1/recall: models/recall.py, RecallResponse. `content` and `instructions` together repeat `facts`. */
export const RecallAnswer = z.looseObject({
  recall_id: z.string(),
  facts: z.array(RecalledFact),
  content: z.array(RecalledFact).default([]),
  instructions: z.array(RecalledFact).default([]),
  total_scored: z.number().nullable().default(null),
  token_budget: z.number(),
  tokens_used: z.number(),
  truncated: z.boolean(),
});
export type RecallAnswer = z.infer<typeof RecallAnswer>;

/** GET /v1/scopes/{scope}/synthesize: routes/synthesize.py, synthesize_scope; highest confidence first, then newest. */
export const Synthesis = z.looseObject({
  scope: z.string(),
  fact_count: z.number().int(),
  facts: z.array(
    z.looseObject({
      id: z.string(),
      entity: z.string(),
      relation: z.string(),
      value: z.looseObject({ type: z.string(), v: z.unknown().optional() }),
      confidence: z.number(),
      timestamp: z.string(),
      valid_until: text,
      contradicted: z.boolean(),
      source: z.string(),
    }),
  ),
});
export type Synthesis = z.infer<typeof Synthesis>;

/** federation/origin_pins.py, list_origin_pins. */
export const OriginPin = z.looseObject({
  entity_uri: z.string(),
  node_id: z.string(),
  key_fingerprint: z.string(),
  pinned_by: text,
  pinned_at: text,
});
export type OriginPin = z.infer<typeof OriginPin>;
export const OriginPinsAnswer = z.looseObject({ pins: z.array(OriginPin) });

/** routes/federation/pins.py, delete_pin. */
export const DeletedPin = z.looseObject({ entity_uri: z.string(), node_id: z.string(), deleted: z.boolean() });

/** routes/identity.py, revoke_capability_token. */
export const RevokedToken = z.looseObject({ token_id: z.string(), revoked_at: z.string(), status: z.string() });
export type RevokedToken = z.infer<typeof RevokedToken>;

/** GET /v1/auth/keys/expiring-soon: models/auth.py, ExpiringKeyInfo. Keys without an expiry are never listed. */
export const ExpiringKey = z.looseObject({
  id: z.string(),
  entity_uri: z.string(),
  permissions: z.array(z.string()),
  description: text,
  created_at: text,
  expires_at: text,
  tenant_id: text,
});
export type ExpiringKey = z.infer<typeof ExpiringKey>;

/** GET /v1/conflicts: routes/federation/audit_conflicts.py, list_conflicts. Its cursor loses rows like the others. */
export const Conflict = z.looseObject({
  conflict_id: z.string(),
  fact_a: Fact.nullable(),
  fact_b: Fact.nullable(),
  status: z.string(),
  resolved_by: text,
  detected_at: z.string(),
});
export type Conflict = z.infer<typeof Conflict>;
export const ConflictsPage = z.looseObject({ conflicts: z.array(Conflict), cursor: text });
export type ConflictsPage = z.infer<typeof ConflictsPage>;

/** routes/lint.py, _run_lint_sweep. `fact_count` is an exact COUNT(*) under the same filters, in the key's tenant. */
export const LintResult = z.looseObject({
  findings: z.array(
    z.looseObject({
      check: z.string(),
      entity: text,
      relation: text,
      fact_ids: z.array(z.string()),
      detail: z.string(),
    }),
  ),
  checked_at: z.string(),
  scope: z.string(),
  fact_count: z.number().int().min(0),
});
export type LintResult = z.infer<typeof LintResult>;

/** 202 of POST /v1/lint for a scope above the node's async_job_threshold. */
export const LintAccepted = z.looseObject({ job_id: z.string().min(1), status: z.string() });
export type LintAccepted = z.infer<typeof LintAccepted>;
export const LintAnswer = z.union([LintResult, LintAccepted]);
export type LintAnswer = z.infer<typeof LintAnswer>;

/** GET /v1/admin/cid-backfill/status: routes/cid_admin.py. Counts every fact of every tenant. */
export const FactTotals = z.looseObject({ total_facts: z.number().int().min(0) });
export type FactTotals = z.infer<typeof FactTotals>;

/** GET /openapi.json: only what says which routes exist. */
export const OpenApiPaths = z.looseObject({
  info: z.looseObject({ title: text, version: text }).optional(),
  paths: z.record(z.string(), z.record(z.string(), z.unknown())),
});
export type OpenApiPaths = z.infer<typeof OpenApiPaths>;
