import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { containActivities } from '../../activities/contain.ts';
import { identifyActivities } from '../../activities/identify.ts';
import { restoreActivities } from '../../activities/restore.ts';
import type { PeerRef } from '../../src/contract/steps.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import { verifyFolder } from '../../src/evidence/verify.ts';
import { assertFact, storedFacts } from '../../src/lab/federation.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import { hostileScene, incidentRef, runActivity, type Scene } from '../helpers/hostile-scene.ts';

let scene: Scene;
let identify: ReturnType<typeof identifyActivities>;
let contain: ReturnType<typeof containActivities>;
let restore: ReturnType<typeof restoreActivities>;

beforeAll(async () => {
  scene = await hostileScene('contain', 5);
  await scene.hostile.replayToken(7);
  await scene.hostile.pullScope('team');
  identify = identifyActivities(scene.deps);
  contain = containActivities(scene.deps);
  restore = restoreActivities(scene.deps);
});
afterAll(async () => {
  await scene?.stop();
});

const row = async () =>
  (await scene.ours.sql('SELECT ingest_tenant, pull_tenant, status FROM peers WHERE node_id = ?', [scene.peer.nodeId]))[0];
const tenantMap = () => scene.ours.sql('SELECT origin_tenant, local_tenant FROM peer_tenant_map');

describe('identify', () => {
  test.each([
    ['node_id', () => scene.peer.nodeId],
    ['peer_id', () => scene.peer.peerIds[0] ?? ''],
    ['URL', () => `${scene.peer.url}/`],
    ['entity URI, by the facts that came under it', () => 'stigmem://peer.test'],
  ])('finds the peer by %s', async (_name, asked) => {
    const found = await runActivity(identify.resolvePeer, {
      ref: incidentRef(scene, `resolve ${asked()}`, { phase: 'identify' }),
      peer: asked(),
    });
    expect(found.peer).toMatchObject({ nodeId: scene.peer.nodeId, peerIds: scene.peer.peerIds, allowedScopes: ['company', 'public'] });
    expect(found.ourNode.nodeId).toBe(scene.ours.nodeId);
  });

  test('says that there is no such peer, and which are there when it can not tell', async () => {
    const ref = incidentRef(scene, 'none', { phase: 'identify' });
    await expect(runActivity(identify.resolvePeer, { ref, peer: 'stigmem:node:nobody' })).rejects.toMatchObject({ type: 'PeerNotFound' });
    await expect(runActivity(identify.resolvePeer, { ref, peer: 'http://127.0.0.1:1' })).rejects.toMatchObject({ type: 'PeerNotFound' });
    await expect(runActivity(identify.resolvePeer, { ref, peer: 'stigmem://nobody.test' })).rejects.toMatchObject({
      type: 'PeerAmbiguous',
      message: expect.stringContaining(scene.peer.nodeId),
    });
  });

  test('seals what the node says, holds alerts against its audit, and changes nothing', async () => {
    const before = await row();
    const ref = incidentRef(scene, 'capture', { phase: 'identify' });
    const alerts = [
      { name: 'peer_replay_burst' },
      { name: 'peer_capability_violation' },
      { name: 'federation_handshake_failed' },
      { name: 'constructor' },
    ];
    const captured = await runActivity(identify.captureLocal, { ref, peer: scene.peer, alerts });
    expect(captured.alerts.map(({ name, corroborated }) => [name, corroborated])).toEqual([
      ['peer_replay_burst', true],
      ['peer_capability_violation', true],
      ['federation_handshake_failed', false],
      ['constructor', false],
    ]);
    expect(captured.alerts[0]?.eventIds.length).toBeGreaterThan(5);
    const federation = captured.coverage?.find(({ what }) => what === 'federation audit events');
    expect(federation).toMatchObject({ complete: true });
    const stored = await scene.ours.sql(
      "SELECT count(*) AS n FROM federation_audit WHERE event_type IN ('replay_attempt','scope_violation')",
    );
    expect(federation?.seen).toBeGreaterThanOrEqual(Number(stored[0]?.['n']));
    expect(captured.firstSuspicious?.from).toBe('audit');
    expect(await row()).toEqual(before);
    const store = await EvidenceStore.open(scene.deps.evidenceDir, 'capture', ref.at);
    expect((await store.entries()).map(({ kind }) => kind)).toEqual(
      expect.arrayContaining(['federationAudit', 'audit', 'peers', 'quarantine', 'keys', 'pins', 'alerts']),
    );
    expect(await verifyFolder(store.dir)).toMatchObject({ ok: true });
  });
});

describe('contain, and dismissed again', () => {
  const ref = () => incidentRef(scene, 'fence', { phase: 'contain' });
  const peer = (): PeerRef => ({ ...scene.peer, entityUri: 'stigmem://peer.test' });

  test('both fences go up on the node, with the tenant map shut, are read back, and hold', async () => {
    const inbound = await runActivity(contain.fenceInbound, { ref: ref(), peer: peer(), readBack: false });
    expect(inbound).toMatchObject({ outcome: 'verified', way: 'http', detail: expect.stringContaining('enforcement not observed') });
    expect(inbound.warnings).toBeUndefined();
    expect(await runActivity(contain.fenceOutbound, { ref: ref(), peer: peer(), readBack: false })).toMatchObject({ outcome: 'verified' });
    expect(await row()).toMatchObject({
      ingest_tenant: expect.stringMatching(/^cordon-[0-9a-f]{12}$/),
      pull_tenant: 'cordon-none',
      status: 'active',
    });
    expect(await tenantMap()).toEqual([{ origin_tenant: 'cordon-fence', local_tenant: 'default' }]);
    const count = (await storedFacts(scene.ours)).length;
    await scene.hostile.deliver([{ entity: 'stigmem://ours.test/svc/late', relation: 'memory:x', value: 'after the fence' }]);
    const pulls = (await scene.hostile.pullsSeen()).count;
    await expect.poll(async () => (await scene.hostile.pullsSeen()).count, { timeout: 15_000 }).toBeGreaterThan(pulls + 2);
    expect((await storedFacts(scene.ours)).length).toBe(count);
    expect(await scene.hostile.pullFromUs()).toEqual([]);
  });

  test('a second attempt writes nothing more: one policy event for each side', async () => {
    const events = async () =>
      Number((await scene.ours.sql("SELECT count(*) AS n FROM federation_audit WHERE event_type = 'peer_policy_updated'"))[0]?.['n']);
    const before = await events();
    await runActivity(contain.fenceInbound, { ref: ref(), peer: peer(), readBack: false });
    await runActivity(contain.fenceOutbound, { ref: ref(), peer: peer(), readBack: false });
    expect(await events()).toBe(before);
  });

  test('relays are pinned to a key that does not exist; tokens are counted; keys, trust and promotion say what people have to do', async () => {
    expect(await runActivity(contain.blockRelays, { ref: ref(), peer: scene.peer, readBack: false })).toMatchObject({
      outcome: 'unverified',
      way: 'manual',
      manual: { how: expect.stringContaining('origin-pins') },
    });
    expect(await runActivity(contain.blockRelays, { ref: ref(), peer: peer(), readBack: false })).toMatchObject({ outcome: 'verified' });
    expect(await scene.ours.sql('SELECT entity_uri, key_fingerprint FROM origin_pins')).toEqual([
      { entity_uri: 'stigmem://peer.test', key_fingerprint: `sha256:${'0'.repeat(64)}` },
    ]);
    expect(await runActivity(contain.revokeTokens, { ref: ref(), peer: peer(), readBack: false })).toMatchObject({
      outcome: 'unverified',
      detail: expect.stringContaining('zero tokens found'),
      coverage: [expect.objectContaining({ what: 'capability tokens', seen: 0, complete: false })],
      manual: { how: expect.stringContaining('capability_tokens') },
    });
    expect(await runActivity(contain.revokeKeys, { ref: ref(), peer: peer(), readBack: false })).toMatchObject({
      outcome: 'unverified',
      manual: { how: expect.stringContaining("DELETE FROM api_keys WHERE entity_uri='stigmem://peer.test'") },
    });
    expect(await runActivity(contain.lowerTrust, { ref: ref(), peer: peer(), readBack: false })).toMatchObject({
      outcome: 'unverified',
      manual: { how: expect.stringContaining('never_trust') },
    });
    expect(await runActivity(contain.pausePromotion, { ref: ref(), peer: peer(), readBack: false })).toMatchObject({
      outcome: 'unverified',
      manual: { how: expect.stringContaining('cordon done') },
    });
  });

  test('each statement for the host is one that this node takes', async () => {
    const steps = [contain.fenceInbound, contain.revokeTokens, contain.revokeKeys];
    const results = await Promise.all(steps.map((step) => runActivity(step, { ref: ref(), peer: peer(), readBack: true })));
    const relays = await runActivity(contain.blockRelays, { ref: ref(), peer: scene.peer, readBack: false });
    const told = [...results, relays]
      .flatMap(({ detail, warnings, manual }) => [detail, ...(warnings ?? []), manual?.how ?? ''])
      .join('\n');
    const statements = told.match(/(?:SELECT|DELETE FROM|UPDATE) \w[^;)\n]*?(?=[;)]|\.(?:\s|$))/gm) ?? [];
    expect(statements.map((one) => /(?:FROM|UPDATE) (\w+)/.exec(one)?.[1])).toEqual(
      expect.arrayContaining(['capability_tokens', 'api_keys', 'agent_keys']),
    );
    for (const statement of statements) expect(await scene.ours.sql(`EXPLAIN ${statement}`), statement).not.toEqual([]);
  });

  test('promotion counts as paused once nothing was promoted while something waits', async () => {
    const later = () => ({ ...ref(), at: new Date().toISOString() });
    expect(await runActivity(contain.pausePromotion, { ref: later(), peer: peer(), readBack: true })).toMatchObject({
      outcome: 'verified',
    });
    const [pending] = await scene.ours.sql("SELECT id FROM facts WHERE quarantine_status = 'pending'");
    const id = String(pending?.['id']);
    expect((await scene.ours.request('POST', `/v1/quarantine/${id}/admit`)).status).toBe(200);
    expect(await runActivity(contain.pausePromotion, { ref: later(), peer: peer(), readBack: true })).toMatchObject({
      outcome: 'unverified',
      detail: expect.stringContaining('1 promotions since'),
    });
  });

  test('a later incident knows a fence that was left for what it is, and dismissal restores the true original', async () => {
    const next = incidentRef(scene, 'second', { phase: 'contain', firstRun: 'another-first-run' });
    const captured = await runActivity(identify.captureLocal, { ref: { ...next, phase: 'identify' }, peer: peer(), alerts: [] });
    expect(captured.warnings?.join()).toContain('already carried a fence');
    await runActivity(contain.fenceInbound, { ref: next, peer: peer(), readBack: false });
    await runActivity(contain.fenceOutbound, { ref: next, peer: peer(), readBack: false });
    const at = { ...next, phase: 'restore' as const };
    await expect(
      runActivity(restore.liftFences, { ref: at, peer: peer(), readBack: false, approvedInRun: 'another run' }),
    ).rejects.toMatchObject({ type: 'PreconditionChanged' });
    expect(await row()).toMatchObject({ pull_tenant: 'cordon-none' });
    expect(await runActivity(restore.restoreTrust, { ref: at, peer: peer(), readBack: false, approvedInRun: 'run-1' })).toMatchObject({
      outcome: 'verified',
    });
    expect(await scene.ours.sql('SELECT * FROM origin_pins')).toEqual([]);
    // A second attempt finds no pin any more, and tells the same: the first one, that died, took it off.
    expect(await runActivity(restore.restoreTrust, { ref: at, peer: peer(), readBack: false, approvedInRun: 'run-1' })).toMatchObject({
      detail: expect.stringContaining('1 origin pin(s) of this containment, 0 left'),
    });
    expect(await runActivity(restore.liftFences, { ref: at, peer: peer(), readBack: false, approvedInRun: 'run-1' })).toMatchObject({
      outcome: 'verified',
    });
    expect(await row()).toMatchObject({ ingest_tenant: '', pull_tenant: '' });
    expect(await tenantMap()).toEqual([]);
    await expect
      .poll(async () => (await storedFacts(scene.ours)).some(({ value }) => value === 'after the fence'), { timeout: 15_000 })
      .toBe(true);
  });

  test('what people set between two incidents comes back, not what the first of them saw', async () => {
    const changed = { ingest_tenant: 'partners', pull_tenant: 'partners' };
    const patched = await scene.ours.request('PATCH', `/v1/federation/peers/${scene.peer.peerIds[0] ?? ''}`, changed);
    expect(patched.status).toBe(200);
    const pin = { entity_uri: 'stigmem://peer.test', node_id: scene.peer.nodeId, key_fingerprint: `sha256:${'a'.repeat(64)}` };
    expect((await scene.ours.request('POST', '/v1/federation/origin-pins', pin)).status).toBeLessThan(300);
    // Under the same workflow id, so in the same evidence folder.
    const third = incidentRef(scene, 'second', { phase: 'contain', firstRun: 'a-third-first-run' });
    for (const step of [contain.fenceInbound, contain.fenceOutbound, contain.blockRelays])
      expect(await runActivity(step, { ref: third, peer: peer(), readBack: false })).toMatchObject({ outcome: 'verified' });
    const lift = { ref: { ...third, phase: 'restore' as const }, peer: peer(), readBack: false, approvedInRun: 'run-1' };
    expect(await runActivity(restore.restoreTrust, lift)).toMatchObject({ outcome: 'verified' });
    expect(await runActivity(restore.liftFences, lift)).toMatchObject({ outcome: 'verified' });
    expect(await row()).toMatchObject(changed);
    expect(await scene.ours.sql('SELECT entity_uri, node_id, key_fingerprint FROM origin_pins')).toEqual([pin]);
    await scene.ours.request('PATCH', `/v1/federation/peers/${scene.peer.peerIds[0] ?? ''}`, { ingest_tenant: '', pull_tenant: '' });
  });

  test('nothing is changed on another node than the one the incident is bound to', async () => {
    const foreign = incidentRef(scene, 'foreign', { phase: 'contain', nodeId: 'stigmem:node:other' });
    await expect(runActivity(contain.fenceInbound, { ref: foreign, peer: peer(), readBack: false })).rejects.toMatchObject({
      code: 'STIGMEM_IDENTITY',
    });
    expect(await row()).toMatchObject({ ingest_tenant: '' });
  });

  test('a drill reads and changes nothing', async () => {
    const drill = incidentRef(scene, 'drill', { phase: 'contain', mode: 'drill' });
    expect(await runActivity(contain.fenceInbound, { ref: drill, peer: peer(), readBack: false })).toMatchObject({
      outcome: 'unverified',
      detail: expect.stringContaining('DRILL'),
    });
    expect(await row()).toMatchObject({ ingest_tenant: '', pull_tenant: '' });
  });
});

test('an admin key that is wrong is named as such, and stands nowhere in the evidence', async () => {
  const node = new Stigmem({ url: scene.ours.url, adminKey: 'canary-key-that-is-wrong' });
  const wrong = containActivities({ ...scene.deps, node });
  const input = { ref: incidentRef(scene, 'wrong', { phase: 'contain' }), peer: scene.peer, readBack: false };
  await expect(runActivity(wrong.fenceInbound, input)).rejects.toMatchObject({ status: 401 });
  await node.close();
  const { dir } = await EvidenceStore.open(scene.deps.evidenceDir, 'capture', new Date().toISOString());
  const index = await readFile(join(dir, 'index.jsonl'), 'utf8');
  for (const entry of index.trim().split('\n')) {
    const { sha256 } = JSON.parse(entry) as { sha256: string };
    const text = (await readFile(join(dir, 'objects', sha256.slice(0, 2), sha256))).toString('utf8');
    expect(text).not.toContain(scene.ours.adminKey);
  }
  expect(await assertFact(scene.ours, { entity: 'stigmem://ours.test/svc/ok', relation: 'memory:ok', value: 'still writes' })).not.toBe('');
});
