import type { Stigmem } from './client.ts';
import { StigmemHttpError, StigmemSchemaError, StigmemTooLargeError } from './errors.ts';

/** Which levers a node offers over HTTP. A route that exists may still do nothing: read back what it did. */
export interface Capabilities {
  readonly patchPeer: boolean;
  readonly getPeer: boolean;
  readonly deletePeer: boolean;
  readonly trustScores: boolean;
  readonly originPins: boolean;
  readonly revokeToken: boolean;
  readonly listTokens: boolean;
  readonly quarantine: boolean;
  readonly promoteQuarantine: boolean;
  readonly listKeys: boolean;
  readonly auditExport: boolean;
  /** The exact counts and the list of receipts that paging builds on. */
  readonly lint: boolean;
  readonly tombstones: boolean;
  readonly synthesize: boolean;
  /** `openapi`: read from the node's document; `assumed`: it publishes none, so the routes of 0.9.0a12 are taken for granted. */
  readonly from: 'openapi' | 'assumed';
  readonly why: string;
  readonly nodeVersion?: string;
}

type Lever = Exclude<keyof Capabilities, 'from' | 'why' | 'nodeVersion'>;

/** Names of path parameters differ between versions: `{}` stands for any. Those marked are documented, but absent in 0.9.0a12. */
const ROUTES: Record<Lever, { readonly route: string; readonly base: boolean }> = {
  patchPeer: { route: 'PATCH /v1/federation/peers/{}', base: true },
  getPeer: { route: 'GET /v1/federation/peers/{}', base: false },
  deletePeer: { route: 'DELETE /v1/federation/peers/{}', base: false },
  trustScores: { route: 'PUT /v1/federation/trust-scores/{}', base: false },
  originPins: { route: 'POST /v1/federation/origin-pins', base: true },
  revokeToken: { route: 'POST /v1/federation/capability-tokens/{}/revoke', base: true },
  listTokens: { route: 'GET /v1/federation/capability-tokens', base: false },
  quarantine: { route: 'POST /v1/quarantine/{}/reject', base: true },
  promoteQuarantine: { route: 'POST /v1/federation/quarantine/promote', base: false },
  listKeys: { route: 'GET /v1/auth/keys/expiring-soon', base: true },
  auditExport: { route: 'GET /v1/audit/export', base: true },
  lint: { route: 'POST /v1/lint', base: true },
  tombstones: { route: 'POST /v1/tombstones', base: true },
  synthesize: { route: 'GET /v1/scopes/{}/synthesize', base: true },
};

/**
 * Reads GET /openapi.json. A node that hides or breaks it is taken for a 0.9.0a12; every other failure (network,
 * timeout, 401, 5xx) is thrown, for it says nothing about routes.
 */
export async function findCapabilities(client: Stigmem, signal?: AbortSignal): Promise<Capabilities> {
  try {
    const { routes, version } = await client.openApiRoutes(signal);
    const known = new Set([...routes].map((route) => route.replace(/\{[^}]*\}/g, '{}')));
    const why = `${routes.size} routes in the node's OpenAPI document`;
    return {
      ...levers((lever) => known.has(ROUTES[lever].route)),
      from: 'openapi',
      why,
      ...(version === null ? {} : { nodeVersion: version }),
    };
  } catch (error) {
    const hidden = error instanceof StigmemHttpError && [403, 404, 405, 410].includes(error.status);
    if (!hidden && !(error instanceof StigmemSchemaError) && !(error instanceof StigmemTooLargeError)) throw error;
    return {
      ...levers((lever) => ROUTES[lever].base),
      from: 'assumed',
      why: `no OpenAPI document (${error.message}); the routes of 0.9.0a12 are assumed`,
    };
  }
}

function levers(has: (lever: Lever) => boolean): Record<Lever, boolean> {
  return {
    patchPeer: has('patchPeer'),
    getPeer: has('getPeer'),
    deletePeer: has('deletePeer'),
    trustScores: has('trustScores'),
    originPins: has('originPins'),
    revokeToken: has('revokeToken'),
    listTokens: has('listTokens'),
    quarantine: has('quarantine'),
    promoteQuarantine: has('promoteQuarantine'),
    listKeys: has('listKeys'),
    auditExport: has('auditExport'),
    lint: has('lint'),
    tombstones: has('tombstones'),
    synthesize: has('synthesize'),
  };
}

/** Which levers there are, in words for status and report. */
export function leverWords({ from, why, ...rest }: Capabilities): {
  readonly seen: number;
  readonly complete: boolean;
  readonly why: string;
} {
  const has = (lever: string): boolean => Object.entries(rest).some(([name, there]) => name === lever && there === true);
  const routesOf = (wanted: boolean): string[] =>
    Object.entries(ROUTES).flatMap(([lever, { route }]) => (has(lever) === wanted ? [route.replace('{}', '{id}')] : []));
  const absent = routesOf(false);
  const seen = routesOf(true).length;
  return { seen, complete: from === 'openapi', why: `${why}; absent: ${absent.join(', ') || 'none'}` };
}
