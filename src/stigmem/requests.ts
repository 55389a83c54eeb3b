import type { Scope } from './wire.ts';

/** What the client takes. Names in snake_case are the node's own parameters and are sent as they are. */
export interface StigmemOptions {
  readonly url: string;
  readonly adminKey: string;
  /**
   * Key of an ordinary agent, for the questions that must be asked as one.
   * @default adminKey
   */
  readonly agentKey?: string;
  /**
   * Whole call, connect to last byte, in milliseconds.
   * @default 15000
   */
  readonly timeoutMs?: number;
  /**
   * Longest answer that is read.
   * @default 67108864 (64 MB)
   */
  readonly maxBytes?: number;
}

/** routes/federation/peers.py, PeerPolicyPatch: "" is a value, an absent field is left alone. */
export interface PeerPolicy {
  readonly ingest_tenant?: string;
  readonly pull_tenant?: string;
  readonly tenant_map?: Readonly<Record<string, string>>;
}

/** models/federation.py, PeerRegisterRequest: signed by the peer, so nobody else can write one. */
export interface PeerDeclaration {
  readonly node_id: string;
  readonly node_url: string;
  readonly federation_pubkey: string;
  readonly allowed_scopes: readonly string[];
  readonly signed_at: string;
  readonly declaration_sig: string;
}

export interface FederationAuditQuery {
  /** Compared letter by letter with the stored peer_id. */
  readonly peerId?: string;
  readonly eventType?: string;
  /** 1 to 500. */
  readonly limit?: number;
  /** Not opaque: the node only returns rows whose id sorts after it. */
  readonly cursor?: string;
}

export interface AuditQuery {
  readonly entity_uri?: string;
  readonly oidc_sub?: string;
  readonly source?: string;
  readonly fact_id?: string;
  readonly attested?: boolean;
  readonly cursor?: string;
  /** 1 to 500. */
  readonly limit?: number;
}

/** routes/facts/query.py, query_facts. */
export interface FactsQuery {
  readonly entity?: string;
  readonly relation?: string;
  readonly source?: string;
  readonly scope?: Scope;
  readonly min_confidence?: number;
  readonly include_contradicted?: boolean;
  readonly include_expired?: boolean;
  readonly include_low_trust?: boolean;
  /** Claimed timestamp strictly after this, compared as text. */
  readonly after?: string;
  readonly garden_id?: string;
  readonly attested?: boolean;
  /** Not opaque: only ids that sort after it. */
  readonly cursor?: string;
  /** 1 to 500. */
  readonly limit?: number;
}

/** models/recall.py, RecallRequest. */
export interface RecallQuery {
  readonly query: string;
  readonly scope: Scope;
  /** 0 to 1, the node's default is 0.1. */
  readonly min_confidence?: number;
  /** 1 to 200000, the node's default is 4000: larger facts are then invisible. */
  readonly token_budget?: number;
  /** Candidates, 1 to 500. */
  readonly limit?: number;
  readonly depth?: number;
  readonly include_neighbors?: boolean;
}

export interface QuarantineQuery {
  readonly status?: 'pending' | 'promoted' | 'rejected';
  /** 1 to 1000. */
  readonly limit?: number;
  readonly offset?: number;
}

/** models/facts.py, AssertRequest. */
export interface AssertFact {
  readonly entity: string;
  readonly relation: string;
  readonly value: { readonly type: string; readonly v: string | number | boolean | null };
  readonly source: string;
  /** 0 to 1; 0 retracts. */
  readonly confidence: number;
  readonly scope: Scope;
  readonly valid_until?: string;
  readonly derived_from?: readonly { readonly fact_id: string }[];
}

export interface OriginPinBody {
  readonly entity_uri: string;
  readonly node_id: string;
  readonly key_fingerprint: string;
}

/** models/lint.py, LintRequest. */
export interface LintQuery {
  readonly scope: Scope;
  readonly checks: readonly ('contradiction' | 'stale' | 'orphan' | 'broken_ref' | 'namespacing')[];
  readonly entity?: string;
  readonly relation?: string;
}
