import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { assertFact, federate, waitForFact, type FederationLink } from '../../src/lab/federation.ts';
import { burst, forgedReceivedFrom } from '../../src/lab/hostile-facts.ts';
import { turnHostile, type HostilePeer } from '../../src/lab/hostile-peer.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { findCapabilities } from '../../src/stigmem/capabilities.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import { collectFederationAudit } from '../../src/stigmem/federation-audit.ts';
import { collectAudit, collectQuarantine } from '../../src/stigmem/paging.ts';
import { collectPeerFacts } from '../../src/stigmem/peer-facts.ts';
import { fingerprintOf, readPeer } from '../../src/stigmem/peer-reader.ts';

/** More than a page (500) under one relation, and some under another. */
const FLOOD = 700;
const PEER_FACTS = 800;
const dir = mkdtempSync(join(tmpdir(), 'stigmem-client-'));
let ours: StigmemNode;
let peer: StigmemNode;
let hostile: HostilePeer;
let delivered: string[];
let link: FederationLink;
let client: Stigmem;

beforeAll(async () => {
  [ours, peer] = await Promise.all([
    startStigmemNode({ name: 'ours', dir: join(dir, 'ours'), quarantineGarden: true }),
    startStigmemNode({ name: 'peer', dir: join(dir, 'peer') }),
  ]);
  link = await federate(ours, peer);
  client = new Stigmem({
    url: ours.url,
    adminKey: ours.adminKey,
    agentKey: await ours.issueKey({ entityUri: 'stigmem://ours.test/agent', permissions: ['read'] }),
  });
  client.expectNodeId(ours.nodeId);
  await assertFact(ours, { entity: 'stigmem://ours.test/svc/pay', relation: 'svc:endpoint', value: 'https://pay.ours.test' });

  hostile = await turnHostile(peer, { target: ours });
  const source = 'stigmem://someone-else.test';
  delivered = await hostile.deliver([...burst(FLOOD, { source }), ...burst(PEER_FACTS - FLOOD, { source, relation: 'svc:note' })]);
  await hostile.settled(120_000);
}, 180_000);

afterAll(async () => {
  await client?.close();
  await Promise.all([ours?.stop(), hostile?.stop()]);
  rmSync(dir, { recursive: true, force: true });
}, 60_000);

describe('identity and peers', () => {
  test('well-known, manifest and the bound node', async () => {
    expect(await client.assertSameNode()).toMatchObject({ node_id: ours.nodeId, node_url: ours.url, entity_uri: ours.entityUri });
    expect(await client.manifest()).toMatchObject({ entity_uri: ours.entityUri, rotation_events: [] });
    const stranger = new Stigmem({ url: peer.url, adminKey: peer.adminKey });
    stranger.expectNodeId(ours.nodeId);
    await expect(stranger.assertSameNode()).rejects.toMatchObject({ code: 'STIGMEM_IDENTITY', nodeId: peer.nodeId });
    await stranger.close();
  });

  test('capabilities of this version: the documented routes are absent', async () => {
    expect(await findCapabilities(client)).toMatchObject({
      patchPeer: true,
      getPeer: false,
      deletePeer: false,
      trustScores: false,
      originPins: true,
      revokeToken: true,
      listTokens: false,
      quarantine: true,
      promoteQuarantine: false,
      auditExport: true,
      lint: true,
      from: 'openapi',
      nodeVersion: '0.9.0a12',
    });
  });

  test('a patch of the policy is read back from the peers, and undone', async () => {
    const before = (await client.peers()).find(({ peer_id }) => peer_id === link.peerIdOnA);
    expect(before).toMatchObject({ node_id: peer.nodeId, node_url: peer.url, status: 'active' });
    expect(await client.patchPeer(link.peerIdOnA, { pull_tenant: 'cordon-none', tenant_map: {} })).toMatchObject({
      updated: ['pull_tenant', 'tenant_map'],
    });
    expect((await client.peers()).map(({ pull_tenant }) => pull_tenant)).toEqual(['cordon-none']);
    await client.patchPeer(link.peerIdOnA, { pull_tenant: before?.pull_tenant ?? 'default' });
    expect((await client.peers()).map(({ pull_tenant }) => pull_tenant)).toEqual([before?.pull_tenant ?? 'default']);
  });

  test('an unknown peer is 404, an empty patch 400, a wrong key 401', async () => {
    await expect(client.patchPeer('nobody', { pull_tenant: 'x' })).rejects.toMatchObject({
      code: 'STIGMEM_HTTP',
      status: 404,
      detail: 'peer not found',
    });
    await expect(client.patchPeer(link.peerIdOnA, {})).rejects.toMatchObject({ status: 400, detail: 'no policy fields provided' });
    const stranger = new Stigmem({ url: ours.url, adminKey: 'x'.repeat(40) });
    await expect(stranger.peers()).rejects.toMatchObject({ status: 401 });
    await stranger.close();
  });

  test('an agent key without the permission is 403', async () => {
    const agent = new Stigmem({
      url: ours.url,
      adminKey: await ours.issueKey({ entityUri: 'stigmem://ours.test/reader', permissions: ['read'] }),
    });
    await expect(agent.peers()).rejects.toMatchObject({ status: 403, detail: 'federate permission required' });
    await agent.close();
  });

  test('origin pins are put, listed and deleted', async () => {
    const pin = { entity_uri: peer.entityUri, node_id: peer.nodeId, key_fingerprint: `sha256:${'0'.repeat(64)}` };
    expect(await client.putOriginPin(pin)).toMatchObject(pin);
    expect(await client.originPins()).toEqual([expect.objectContaining(pin)]);
    await client.deleteOriginPin(pin);
    expect(await client.originPins()).toEqual([]);
    await expect(client.deleteOriginPin(pin)).rejects.toMatchObject({ status: 404 });
  });

  test('keys that expire within a year are listed, with their entity', async () => {
    const keys = await client.keysExpiringSoon(365);
    expect(keys.map(({ entity_uri }) => entity_uri)).toContain('stigmem://ours.test/agent');
  });

  test('an unknown capability token is 404', async () => {
    await expect(client.revokeCapabilityToken('none', 'test')).rejects.toMatchObject({ status: 404, detail: 'capability token not found' });
  });

  test('the peer reader gives the fingerprint that the node itself holds for the peer', async () => {
    const [row] = await ours.sql('SELECT federation_pubkey FROM peers WHERE id = ?', [link.peerIdOnA]);
    const reading = await readPeer(peer.url, { allowPrivate: ['loopback'] });
    expect(reading).toMatchObject({ errors: [], wellKnown: { node_id: peer.nodeId }, manifest: { entity_uri: peer.entityUri } });
    expect(reading.fingerprint).toBe(fingerprintOf(String(row?.['federation_pubkey'])));
    expect(reading.manifestFingerprint).toBe(reading.fingerprint);
    expect((await readPeer(peer.url)).errors).toEqual(['refused: 127.0.0.1 is at 127.0.0.1, which is not a public address']);
  });
});

describe('facts', () => {
  const entity = 'stigmem://ours.test/svc/mail';

  test('assert, read, provenance, card, recall, synthesize, conflict', async () => {
    const body = { entity, relation: 'svc:endpoint', source: ours.entityUri, scope: 'company', confidence: 0.9 } as const;
    const first = await client.assertFact({ ...body, value: { type: 'text', v: 'zebra gateway one' } });
    expect(await client.fact(first.id)).toMatchObject({ id: first.id, entity, received_from: null, contradicted: false });
    expect(await client.card(entity, 'company')).toMatchObject({ entity_uri: entity, has_contradictions: false });
    const second = await client.assertFact({ ...body, value: { type: 'text', v: 'zebra gateway two' } });
    expect((await client.agentFactsPage({ entity })).facts).toEqual([]);
    const everything = await client.factsPage({ entity, include_contradicted: true });
    expect(new Set(everything.facts.map(({ id }) => id))).toEqual(new Set([first.id, second.id]));
    expect(await client.provenance(second.id)).toMatchObject({ fact_id: second.id, derived_from: [] });
    const recalled = await client.recall({ query: 'zebra gateway', scope: 'company', min_confidence: 0, token_budget: 200_000 });
    expect(recalled.facts.map(({ fact }) => fact.entity)).toContain(entity);
    const synthesis = await client.synthesize('company', { limit: 1000 });
    expect(synthesis.facts.filter((fact) => fact.entity === entity).map(({ contradicted }) => contradicted)).toEqual([true, true]);
    const { conflicts } = await client.conflictsPage({ status: 'unresolved' });
    expect(conflicts.map(({ fact_a, fact_b }) => new Set([fact_a?.id, fact_b?.id]))).toContainEqual(new Set([first.id, second.id]));
  });

  test('what the node does not know is 404', async () => {
    await expect(client.fact('none')).rejects.toMatchObject({ status: 404, detail: 'fact not found' });
    await expect(client.card('stigmem://ours.test/none', 'local')).rejects.toMatchObject({ status: 404 });
    await expect(client.rejectQuarantined('none', 'test')).rejects.toMatchObject({ status: 404 });
  });
});

describe('completeness', () => {
  test('every fact of the peer is found, with its arrival, although source and pages hide most', async () => {
    const beats: number[] = [];
    const found = await collectPeerFacts(client, { nodeIds: [peer.nodeId], onPage: ({ asked }) => void beats.push(asked) });
    const stored = await ours.sql(
      `SELECT f.id, m.timestamp AS arrived FROM facts f JOIN facts m ON m.entity = f.id
        WHERE f.received_from = ? AND m.relation = 'stigmem:received_from' AND m.received_from IS NULL`,
      [peer.nodeId],
    );
    expect(new Set(stored.map((row) => row['id']))).toEqual(new Set(delivered));
    expect(found).toMatchObject({ complete: true, unread: [], forgedReceipts: [] });
    expect(new Map(found.items.map(({ id, arrivedAt }) => [id, arrivedAt]))).toEqual(
      new Map(stored.map((row) => [row['id'], row['arrived']])),
    );
    expect(found.items.every(({ receivedFrom, originNodeId }) => receivedFrom === peer.nodeId && originNodeId === peer.nodeId)).toBe(true);
    expect(beats.length).toBeGreaterThan(0);

    const cursorWalk = new Set<string>();
    for (let cursor: string | null | undefined; cursor !== null;) {
      const page = await client.factsPage({ relation: 'memory:runbook', limit: 100, ...(cursor === undefined ? {} : { cursor }) });
      for (const fact of page.facts) cursorWalk.add(fact.id);
      cursor = page.cursor;
    }
    expect(cursorWalk.size).toBeLessThan(FLOOD);
  }, 180_000);

  test('without single reads, what the pages hid is listed as unread, and missing times of arrival are said', async () => {
    const found = await collectPeerFacts(client, { nodeIds: [peer.nodeId], maxReads: 0 });
    expect(found.complete).toBe(false);
    expect(found.unread.length).toBeGreaterThan(0);
    expect(new Set([...found.items.map(({ id }) => id), ...found.unread.map(({ id }) => id)])).toEqual(new Set(delivered));
    expect(found.why).toContain(`${found.unread.length} facts that were received, perhaps from the peer, can't be read`);
    const undated = found.items.filter(({ arrivedAt }) => arrivedAt === null).length;
    expect(undated).toBeGreaterThan(0);
    expect(found.why).toContain(`${undated} without a readable time of arrival`);
  }, 120_000);

  test('a forged receipt is itself a fact of the peer, and moves no time of arrival', async () => {
    const [victim = ''] = delivered;
    const [forged = ''] = await hostile.deliver([forgedReceivedFrom(victim, ours.nodeId)]);
    await hostile.settled();
    const found = await collectPeerFacts(client, { nodeIds: [peer.nodeId], arrivalsOf: ({ id }) => id === victim });
    expect(found.complete).toBe(true);
    expect(found.forgedReceipts.map(({ id }) => id)).toEqual([forged]);
    expect(found.items).toHaveLength(PEER_FACTS + 1);
    const [genuine] = await ours.sql(
      "SELECT timestamp FROM facts WHERE entity = ? AND relation = 'stigmem:received_from' AND received_from IS NULL",
      [victim],
    );
    expect(found.items.find(({ id }) => id === victim)?.arrivedAt).toBe(genuine?.['timestamp']);
  }, 120_000);

  test('a fact under an id with a slash is found by page, though the route for one fact never shows it', async () => {
    const [id = ''] = await hostile.deliver([{ id: 'x/yyyy', entity: 'stigmem://ours.test/odd', relation: 'svc:note', value: 'odd' }]);
    await waitForFact(ours, (fact) => fact.id === id);
    expect((await collectPeerFacts(client, { nodeIds: [peer.nodeId], maxReads: 0 })).items.map((item) => item.id)).toContain(id);
    await expect(client.fact(id)).rejects.toMatchObject({ status: 404 });
  }, 60_000);

  test('a fact that breaks every page is named with its arrival, and the facts beside it are still found', async () => {
    const entity = 'stigmem://ours.test/public';
    const [beside = '', broken = ''] = await hostile.deliver([
      { entity, relation: 'svc:note', value: 'fine', scope: 'public' },
      { entity, relation: 'svc:count', value: 'abc', valueType: 'number', scope: 'public' },
    ]);
    await hostile.settled();
    await expect(client.factsPage({ scope: 'public' })).rejects.toMatchObject({ status: 500 });
    const found = await collectPeerFacts(client, { nodeIds: [peer.nodeId], arrivalsOf: () => false });
    expect(found.complete).toBe(false);
    expect(found.items.map(({ id }) => id)).toContain(beside);
    const [note] = await ours.sql("SELECT timestamp FROM facts WHERE entity = ? AND relation = 'stigmem:received_from'", [broken]);
    const why = `GET /v1/facts/${broken}: expected success, came 500 Internal Server Error: Internal Server Error`;
    expect(found.unread).toContainEqual({ id: broken, receivedFrom: peer.nodeId, arrivedAt: note?.['timestamp'], why });
  }, 120_000);

  test('a peer that names a fact after its own node_id blinds the list of receipts, and that is noticed', async () => {
    await hostile.deliver([{ entity: peer.nodeId, relation: 'svc:note', value: 'I am here' }]);
    await hostile.settled();
    const found = await collectPeerFacts(client, { nodeIds: [peer.nodeId], maxReads: 0 });
    expect(found.complete).toBe(false);
    expect(found.why).toMatch(/\d+ of \d+ notes of receipt could be listed/);
    // Most of the facts still come from the pages.
    expect(found.items.length).toBeGreaterThan(500);
  }, 120_000);

  test('the audit is read whole although one event without a fact id breaks its JSON pages', async () => {
    await expect(client.auditPage({ limit: 500 })).rejects.toMatchObject({ code: 'STIGMEM_HTTP', status: 500 });
    const [count] = await ours.sql('SELECT count(*) AS n FROM fact_audit_log');
    const found = await collectAudit(client);
    expect(found).toMatchObject({ complete: true });
    expect(found.items).toHaveLength(Number(count?.['n']));
    expect(found.items).toContainEqual(expect.objectContaining({ event_type: 'admin_action', fact_id: null }));
    const writes = await client.auditPage({ source: 'stigmem://nobody.test' });
    expect(writes).toMatchObject({ entries: [], cursor: null });
  });

  test('the federation audit holds what was done to the peer', async () => {
    const found = await collectFederationAudit(client, { peerIds: [link.peerIdOnA, peer.nodeId, peer.entityUri] });
    expect(found.complete).toBe(true);
    const types = new Set(found.items.map(({ event_type }) => event_type));
    // A peer that asks before both sides are approved is turned away once; whether it does is a matter of milliseconds.
    types.delete('rejected_token');
    expect(types).toEqual(new Set(['tl_proof_missing', 'peer_approved', 'peer_policy_updated', 'origin_pin_set', 'origin_pin_deleted']));
  });

  test('an instruction of the peer waits in quarantine, is found there, and is rejected once', async () => {
    await hostile.deliver([{ entity: 'stigmem://ours.test/agent', relation: 'agent:rule', value: 'obey', interpretAs: 'instruction' }]);
    const stored = await waitForFact(ours, (fact) => fact.relation === 'agent:rule');
    const waiting = await collectQuarantine(client);
    expect(waiting).toMatchObject({
      complete: true,
      items: [{ fact_id: stored.id, quarantine_status: 'pending', received_from: peer.nodeId }],
    });
    const found = await collectPeerFacts(client, { nodeIds: [peer.nodeId], maxReads: 0 });
    expect(found.items.find(({ id }) => id === stored.id)).toMatchObject({ fact: null, quarantine: { quarantine_status: 'pending' } });
    expect(await client.rejectQuarantined(stored.id, 'test')).toMatchObject({ fact_id: stored.id, action: 'rejected' });
    await expect(client.rejectQuarantined(stored.id, 'test')).rejects.toMatchObject({ status: 409 });
  }, 60_000);
});
