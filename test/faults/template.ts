import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nodeTool } from '../../src/lab/python.ts';
import { field, type Row } from '../../src/lab/shapes.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { hostileScene, type Scene } from '../helpers/hostile-scene.ts';

/** A node that a hostile peer wrote to, at rest, to be copied as often as wanted; the peer lives on. */
export interface Template {
  readonly scene: Scene;
  readonly agentKey: string;
  /** Takes `GET /v1/facts/abc` to `GET /v1/facts/{fact_id}`, by the node's own OpenAPI document. */
  readonly routeOf: (method: string, path: string) => string;
  /** Another real node that takes the same keys. */
  readonly stranger: StigmemNode;
  copy(name: string): Promise<StigmemNode>;
  stop(): Promise<void>;
}

export const peerEntity = 'stigmem://peer.test';
/** Nothing moves by itself while faults are tried. */
const still = { STIGMEM_FEDERATION_PULL_INTERVAL_S: '86400' };

export async function template(name: string, burstFacts: number): Promise<Template> {
  const scene = await hostileScene(name, burstFacts);
  const { ours, dir } = scene;
  const agentKey = await ours.issueKey({ entityUri: 'stigmem://ours.test/agent/reader', permissions: ['read'] });
  // With a key of its own the peer's entity had a capability token made: something for revokeTokens to find.
  const peerKey = await ours.issueKey({ entityUri: peerEntity, permissions: ['read', 'write', 'federate'] });
  const body = { issuer: peerEntity, subject: peerEntity, verb: 'read', object: 'stigmem://ours.test/svc/auth', ttl_seconds: 86_400 };
  const issued = await ours.request('POST', '/v1/federation/capability-tokens', body, peerKey);
  if (issued.status >= 300) throw new Error(`no token was issued: ${JSON.stringify(issued.body)}`);
  const openApi = await ours.request('GET', '/openapi.json');
  const routeOf = router(Object.keys(field(openApi.body, 'paths') as object));
  await ours.stop();
  const strangerDir = join(dir, 'stranger');
  mkdirSync(strangerDir, { recursive: true });
  writeFileSync(join(strangerDir, 'admin-key'), ours.adminKey);
  const stranger = await startStigmemNode({ name: 'stranger', dir: strangerDir, quarantineGarden: true });
  return {
    scene,
    agentKey,
    routeOf,
    stranger,
    async copy(of) {
      const to = join(dir, of);
      rmSync(to, { recursive: true, force: true });
      cpSync(ours.dir, to, { recursive: true });
      // An incident claims the peer of one node: each copy is a node of its own.
      const script = `UPDATE node_meta SET value = 'stigmem:node:${of}' WHERE key = 'node_id'`;
      await nodeTool('exec', { db: join(to, 'stigmem.db'), script }, { env: ours.env, cwd: to });
      return startStigmemNode({ name: 'ours', dir: to, quarantineGarden: true, env: still });
    },
    async stop() {
      await Promise.allSettled([scene.stop(), stranger.stop()]);
    },
  };
}

/** The most exact template wins: `/v1/audit/export` before `/v1/audit/{id}`. */
function router(paths: readonly string[]): Template['routeOf'] {
  const known = paths
    .toSorted((a, b) => a.split('{').length - b.split('{').length)
    .map((path) => [path, new RegExp(`^${path.replace(/[.]/g, '\\.').replace(/\{[^}]*\}/g, '[^/]+')}$`)] as const);
  return (method, path) => {
    const bare = path.replace(/\?.*$/s, '');
    return `${method} ${known.find(([, pattern]) => pattern.test(bare))?.[0] ?? bare}`;
  };
}

const state = `SELECT
  (SELECT json_group_array(json_array(id, status, ingest_tenant)) FROM (SELECT * FROM peers ORDER BY id)) AS inbound,
  (SELECT json_group_array(json_array(origin_tenant, local_tenant)) FROM (SELECT * FROM peer_tenant_map ORDER BY origin_tenant)) AS tenant_map,
  (SELECT json_group_array(json_array(id, pull_tenant)) FROM (SELECT * FROM peers ORDER BY id)) AS outbound,
  (SELECT json_group_array(json_array(entity_uri, node_id, key_fingerprint)) FROM (SELECT * FROM origin_pins ORDER BY entity_uri, node_id)) AS pins,
  (SELECT json_group_array(json_array(subject, revoked_at IS NULL)) FROM (SELECT * FROM capability_tokens ORDER BY id)) AS tokens,
  (SELECT json_group_array(json_array(entity, relation, scope, source, confidence, n)) FROM (SELECT entity, relation, scope, source, confidence, count(*) AS n
     FROM facts GROUP BY entity, relation, scope, source, confidence
     ORDER BY CASE WHEN entity LIKE 'stigmem:conflict%' THEN 1 ELSE 0 END, entity, relation, scope, source, confidence)
     WHERE entity NOT LIKE 'stigmem:conflict%') AS facts,
  (SELECT count(*) FROM facts) AS fact_rows,
  (SELECT json_group_array(json_array(id, quarantine_status)) FROM (SELECT * FROM facts WHERE quarantine_status IS NOT NULL ORDER BY id)) AS quarantine`;

/** All that cordon may change on a node, by what it changes. */
export async function nodeState(node: StigmemNode): Promise<Row> {
  const [row] = await node.sql(state);
  if (row === undefined) throw new Error('the node has no state');
  return row;
}

/** How often the peer's policy was written: an effect that is repeated shows here. */
export async function policyWrites(node: StigmemNode): Promise<number> {
  const rows = await node.sql("SELECT id FROM federation_audit WHERE event_type = 'peer_policy_updated'");
  return rows.length;
}
