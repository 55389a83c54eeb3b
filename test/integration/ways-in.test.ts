import type { WorkflowHandle } from '@temporalio/client';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import type { Status } from '../../src/contract/schemas.ts';
import { assertFact, federate, introduce, waitForFact } from '../../src/lab/federation.ts';
import type { HostileFact } from '../../src/lab/hostile-facts.ts';
import { startStigmemNode, type NodeAnswer, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { hostIncident, type HostIncident } from '../helpers/host-incident.ts';

// Each way in that the attacker has is used before, when it has to work, and tried again once the peer is contained.

vi.setConfig({ testTimeout: 240_000, hookTimeout: 300_000 });

const push = 'STIGMEM_FEDERATION_PUSH_ENABLED';
const relays = 'STIGMEM_FEDERATION_RELAY_ENABLED';
let host: HostIncident;
let innocent: StigmemNode;
let relay: StigmemNode;
let incident: WorkflowHandle<typeof PeerCompromise>;
let atGate: Status;
let key = '';

beforeAll(async () => {
  host = await hostIncident('ways-in', { only: ['neverGranted'], settings: { [push]: 'true', [relays]: 'true' } });
  const { ours, dir, hostile, peer } = host.scene;
  const at = (name: string) => ({ name, dir: join(dir, name), env: { [relays]: 'true' } });
  [innocent, relay] = await Promise.all([startStigmemNode(at('innocent')), startStigmemNode(at('relay'))]);
  // Both after the peer that turned: what stalls the pull loop at that one stalls them.
  await federate(ours, innocent);
  await federate(ours, relay);
  await introduce(hostile.node, relay, ['company', 'public']);
  await ours.exec(`UPDATE peers SET relay_trusted = 1 WHERE node_id = '${relay.nodeId}'`);
  key = await ours.issueKey({ entityUri: await entityOfPeer(), permissions: ['read', 'write', 'federate'] });
  await ours.exec(
    `INSERT INTO peers (id, node_id, node_url, federation_pubkey, allowed_scopes, status, established_at, declaration_sig, signed_at, created_at, trust_tier)
     SELECT 'second-row', 'stigmem:node:second', node_url, federation_pubkey, allowed_scopes, 'pending_approval', NULL, declaration_sig, signed_at, created_at, trust_tier
     FROM peers WHERE node_id = '${peer.nodeId}'`,
  );
});
afterAll(async () => {
  await Promise.all([innocent?.stop(), relay?.stop()]);
  await host?.stop();
});

const entityOfPeer = async (): Promise<string> => {
  const [row] = await host.scene.ours.sql('SELECT entity_uri FROM peers WHERE node_id = ?', [host.scene.peer.nodeId]);
  return String(row?.['entity_uri']);
};
// A node relays what is public: a fact of scope company it keeps to itself, whatever it is told.
const fact = (name: string): HostileFact => ({
  entity: `stigmem://peer.test/${name}`,
  relation: 'memory:says',
  value: `it says ${name}`,
  scope: 'public',
});
const byKey = async (method: string, path: string, body?: unknown): Promise<number> => {
  const answer: NodeAnswer = await host.scene.ours.request(method, path, body, key);
  return answer.status;
};
const keyed = async (name: string): Promise<readonly number[]> => [
  await byKey('GET', '/v1/facts?limit=1'),
  await byKey('POST', '/v1/recall', { query: 'pay', scope: 'company' }),
  await byKey('POST', '/v1/facts', {
    ...fact(name),
    value: { type: 'text', v: name },
    source: await entityOfPeer(),
    scope: 'company',
    confidence: 0.9,
  }),
];
const statuses = () => host.scene.ours.sql('SELECT node_id, status FROM peers ORDER BY node_id');
const inOurs = async (id: string): Promise<boolean> => (await host.scene.ours.sql('SELECT id FROM facts WHERE id = ?', [id])).length > 0;

it('all of them are open before', async () => {
  const { ours, hostile } = host.scene;
  const [pulled = ''] = await hostile.deliver([fact('pulled')]);
  await waitForFact(ours, ({ id }) => id === pulled);
  await waitForFact(relay, ({ id }) => id === pulled);
  const pushed = await hostile.push([fact('pushed')]);
  expect([pushed.status, pushed.body]).toMatchObject([202, { accepted: 1 }]);
  expect(await inOurs(pushed.ids[0] ?? '')).toBe(true);
  expect((await hostile.pullFromUs()).length).toBeGreaterThan(0);
  expect(await keyed('before')).toEqual([200, 200, 201]);
});

it('and shut once the peer is contained, its second row too', async () => {
  const { hostile, peer } = host.scene;
  incident = await host.start('peer-compromise:ways-in');
  atGate = await host.until(incident, 'gate retract', ({ waitingFor }) => waitingFor.some((one) => one.kind === 'gate'));
  for (const name of ['fenceInbound', 'fenceOutbound', 'blockRelays', 'revokeTokens', 'revokeKeys'])
    expect(
      atGate.steps.find((step) => step.name === name),
      name,
    ).toMatchObject({ outcome: 'verified' });
  const now = new Map((await statuses()).map((row) => [row['node_id'], row['status']]));
  expect([peer.nodeId, 'stigmem:node:second'].map((id) => now.get(id))).toEqual(['revoked', 'revoked']);
  expect([innocent.nodeId, relay.nodeId].map((id) => now.get(id))).toEqual(['active', 'active']);
  expect((await hostile.push([fact('pushed late')])).status).toBe(401);
  expect((await hostile.pullScope('company')).status).toBe(401);
  expect(await keyed('after')).toEqual([401, 401, 401]);
});

it('a backlog of more than a page comes in neither from the peer nor through a relay, and stalls nobody', async () => {
  const { ours, hostile } = host.scene;
  const ids = await hostile.deliver(Array.from({ length: 150 }, (_unused, index) => fact(`late-${index}`)));
  // The relay has all of it and serves it on; what it writes itself still comes.
  await waitForFact(relay, ({ id }) => id === ids.at(-1));
  for (const node of [relay, innocent]) {
    const id = await assertFact(node, {
      entity: `stigmem://${node.name}.test/svc`,
      relation: 'memory:says',
      value: `${node.name} is well`,
    });
    await waitForFact(ours, (one) => one.id === id);
  }
  const [count] = await ours.sql("SELECT COUNT(*) AS n FROM facts WHERE substr(entity, 1, 24) = 'stigmem://peer.test/late'");
  expect(Number(count?.['n'])).toBe(0);
});

it('kept out of the relay by the pin alone: without one it comes', async () => {
  const { ours, hostile, peer } = host.scene;
  await ours.exec(`DELETE FROM origin_pins WHERE node_id = '${peer.nodeId}'`);
  const [id = ''] = await hostile.deliver([fact('unpinned')]);
  const { receivedFrom, originNodeId } = await waitForFact(ours, (one) => one.id === id);
  expect({ receivedFrom, originNodeId }).toEqual({ receivedFrom: relay.nodeId, originNodeId: peer.nodeId });
});
