import { Client, Connection } from '@temporalio/client';
import { createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createHostActivities } from '../../activities/host/index.ts';
import { canonicalJson } from '../../src/contract/canonical.ts';
import { seal, type Deps } from '../../activities/deps.ts';
import { investigateActivities } from '../../activities/investigate.ts';
import { rotateActivities } from '../../activities/rotate.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import { fingerprintOf } from '../../src/stigmem/peer-reader.ts';
import type { IncidentRef, PeerRef, VerifiedKeys } from '../../src/contract/steps.ts';
import type { HostDatabase } from '../../src/host/database.ts';
import { ownKey, peerToken } from '../../src/host/peer-token.ts';
import { readPeers, reinstatePeers, revokePeers } from '../../src/host/peers.ts';
import { openPostgres } from '../../src/host/postgres.ts';
import { readBinding } from '../../src/host/rebind.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { assertFact, federate, storedFacts, waitForFact } from '../../src/lab/federation.ts';
import { startPostgres, type PostgresServer } from '../../src/lab/postgres.ts';
import { run } from '../../src/lab/python.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { freePort, repoRoot, stigmemBin } from '../../src/lab/tools.ts';
import { effectOf, undoing } from '../helpers/host-scene.ts';
import { onPostgres, runActivity, type Storage } from '../helpers/hostile-scene.ts';

// A peer that really rotates its key and comes back under its node_id, on the database of a node that runs.

vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });

describe.each<Storage>(['sqlite', 'postgres'])('on %s', (storage) => {
  const dir = join(repoRoot, '.test', `host-rebind-${storage}`);
  let postgres: PostgresServer | undefined;
  let ours: StigmemNode;
  let peer: StigmemNode;
  let peerRef: PeerRef;
  let database: HostDatabase;
  beforeAll(async () => {
    rmSync(dir, { recursive: true, force: true });
    postgres = storage === 'postgres' ? await startPostgres(join(dir, 'postgres')) : undefined;
    await postgres?.create('stigmem');
    const port = await freePort();
    [ours, peer] = await Promise.all([
      startStigmemNode({ name: 'ours', dir: join(dir, 'ours'), env: postgres === undefined ? {} : onPostgres(postgres.dsn('stigmem')) }),
      // `stigmem identity rotate-key` looks for the manifest under the node's URL.
      startStigmemNode({ name: 'peer', dir: join(dir, 'peer'), port, entityUri: `http://127.0.0.1:${port}` }),
    ]);
    const link = await federate(ours, peer);
    database = storage === 'sqlite' ? openSqlite(ours.dbPath) : openPostgres({ dsn: ours.env['STIGMEM_PG_DSN'] ?? '' });
    peerRef = {
      nodeId: peer.nodeId,
      url: peer.url,
      entityUri: peer.entityUri,
      peerIds: [link.peerIdOnA],
      nodeIds: [peer.nodeId],
      allowedScopes: [],
    };
    const before = await says('before all');
    await waitForFact(ours, ({ id }) => id === before);
  });
  afterAll(async () => {
    await database?.close();
    await Promise.allSettled([ours?.stop(), peer?.stop()]);
    await postgres?.stop();
  });

  const says = (value: string) =>
    assertFact(peer, { entity: 'stigmem://peer.test/menu', relation: `memory:${value.replaceAll(' ', '-')}`, value });
  const activitiesOf = (graceHours = 168) =>
    createHostActivities({
      database,
      evidenceDir: join(dir, 'evidence'),
      trust: { mode: 'relaxed', quarantineGarden: undefined },
      snapshot: undefined,
      promotionCommand: undefined,
      federation: { privateKey: undefined, graceHours, peerAllow: ['loopback'] },
      fateOf: async () => 'open',
    });
  const mainDeps = (): Deps => ({
    node: new Stigmem({ url: ours.url, adminKey: ours.adminKey }),
    nodeUrl: ours.url,
    evidenceDir: join(dir, 'evidence'),
    policyFile: undefined,
    contactsFile: undefined,
    webhookUrl: undefined,
    peerAllow: ['loopback'],
    concurrency: 4,
    writesPerHour: 1_000_000,
    writeHeadroom: 0.1,
    hostTaskQueue: 'stigmem-host',
    temporal: new Client({ connection: Connection.lazy() }),
  });
  const refOf = (name: string): IncidentRef => ({
    incident: name,
    firstRun: `first-${name}`,
    mode: 'live',
    phase: 'reregister',
    round: 1,
    at: '2026-11-23T01:00:00.000Z',
    nodeId: ours.nodeId,
  });
  const cursorNow = async () =>
    (await readPeers(database)).find(({ node_id: id }) => id === peer.nodeId)?.cursors.find(({ direction }) => direction === 'inbound')
      ?.cursor;
  const seedOf = async () => (await peer.sql("SELECT value FROM node_meta WHERE key = 'federation_privkey'"))[0]?.['value'];
  /** What our node answers to a call that is signed with this key. */
  const callWith = async (privateKey: string) => {
    const key = await ownKey(database, privateKey);
    const token = peerToken(key, { from: peer.nodeId, to: ours.nodeId, scopes: ['company', 'public'] });
    return ours.request('GET', '/v1/federation/facts?limit=1', undefined, token);
  };
  const manifestOf = async () => (await peer.request('GET', '/.well-known/stigmem-manifest.json', undefined, null)).body;

  /** A new key pair as the node takes it. */
  function newKey() {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    const { d = '' } = privateKey.export({ format: 'jwk' });
    const { x = '' } = publicKey.export({ format: 'jwk' });
    return { privateKey, seed: d, publicKey: x };
  }
  /** As verifyKeys seals what it read. */
  const verified = async (ref: IncidentRef, publicKey: string, manifest: unknown) => {
    const keyId = z.object({ key_id: z.string() }).safeParse(manifest).data?.key_id ?? '';
    const keys: VerifiedKeys = {
      nodeId: peer.nodeId,
      entityUri: peer.entityUri,
      publicKey,
      keyId,
      fingerprint: fingerprintOf(publicKey),
      expiresAt: '2027-01-01T00:00:00Z',
      chain: 'none',
      remarks: [],
    };
    return { keys, sealed: (await seal({ evidenceDir: join(dir, 'evidence') }, ref, 'verifyKeys', 'keys', { keys, manifest })).id };
  };
  const restartWith = async (seed: string, publicKey: string) => {
    await peer.stop();
    await peer.start({ STIGMEM_FEDERATION_PUBKEY: publicKey, STIGMEM_FEDERATION_PRIVKEY: seed, STIGMEM_NODE_PRIVATE_KEY: seed });
  };

  it('by its own rotation with a chain: what waited behind the fence arrives, and the old key is refused', async () => {
    const oldSeed = String(await seedOf());
    expect((await callWith(oldSeed)).status).toBe(200);
    const fence = effectOf('revokePeers', 'rotation');
    await revokePeers(database, fence, peerRef.peerIds);
    const cursor = await cursorNow();
    const main = mainDeps();
    await runActivity(investigateActivities(main).readPeer, { ref: { ...refOf('chain'), phase: 'investigate' }, peer: peerRef });
    const behind = await says('behind the fence');
    await peer.stop();
    const rotated = await run(stigmemBin(), ['identity', 'rotate-key', '--kind', 'node'], {
      env: { ...peer.env, STIGMEM_NODE_PRIVATE_KEY: oldSeed },
      cwd: peer.dir,
    });
    const seed = /STIGMEM_NODE_PRIVATE_KEY=([\w-]+)/.exec(rotated.stdout)?.[1] ?? '';
    const { x: publicKey = '' } = createPublicKey(await ownKey(database, seed)).export({ format: 'jwk' });
    await restartWith(seed, publicKey);
    const manifest = await manifestOf();
    // From what verifyKeys sealed, as the workflow hands it on.
    const asked = { ref: { ...refOf('chain'), phase: 'rotate' as const }, peer: peerRef, firstBad: null };
    const { keys, evidenceId } = await runActivity(rotateActivities(main).verifyKeys, asked);
    // No first bad time is known: whoever stole the old key could have made the chain.
    expect(keys).toMatchObject({ publicKey, chain: 'afterFirstBad' });
    const input = { ref: refOf('chain'), approvedInRun: 'run-1', keys, sealed: evidenceId };
    const activities = activitiesOf();
    await expect(runActivity(activities.rebindPeer, { ...input, approvedInRun: 'run-0' })).rejects.toMatchObject({
      type: 'PreconditionChanged',
    });
    const old = await readBinding(database, peer.nodeId);
    expect(await runActivity(activities.rebindPeer, { ...input, readBack: true })).toMatchObject({ done: 0 });
    const others = { ...input, keys: { ...input.keys, keyId: 'another' } };
    await expect(runActivity(activities.rebindPeer, others)).rejects.toMatchObject({ type: 'PreconditionChanged' });
    const done = await runActivity(activities.rebindPeer, input);
    expect(done).toMatchObject({ done: 1, chain: 'chain', residual: [{ what: 'facts signed with the old key' }, {}] });
    expect(Date.parse(done.graceUntil ?? '') - Date.now()).toBeGreaterThan(167 * 3_600_000);
    expect(await runActivity(activities.rebindPeer, { ...input, readBack: true })).toMatchObject({ done: 1 });
    // Once, however often it is asked for; the node itself reads what was written as it writes it.
    expect(await runActivity(activities.rebindPeer, input)).toMatchObject({ done: 1, chain: 'chain' });
    expect(await readBinding(database, peer.nodeId)).toMatchObject({ publicKey, status: 'revoked' });
    const own = await peer.sql('SELECT manifest_json FROM federation_manifests WHERE entity_uri = ?', [peer.entityUri]);
    expect(await ours.sql('SELECT manifest_json FROM federation_manifests WHERE entity_uri = ?', [peer.entityUri])).toEqual(own);
    const later = await says('after the rotation');
    expect((await callWith(seed)).status).toBe(401);
    expect(await cursorNow()).toBe(cursor);
    await reinstatePeers(database, undoing(fence, 'reinstatePeers'));
    for (const id of [behind, later]) await waitForFact(ours, (fact) => fact.id === id);
    expect((await callWith(seed)).status).toBe(200);
    expect((await callWith(oldSeed)).status).toBe(401);
    // Given back: the old key stands again, until it is bound once more under another incident.
    await revokePeers(database, effectOf('revokePeers', 'again'), peerRef.peerIds);
    expect(await runActivity(activities.unbindPeer, { ref: input.ref, approvedInRun: 'run-1' })).toMatchObject({ done: 1, residual: [] });
    expect(await readBinding(database, peer.nodeId)).toEqual({ ...old, status: 'revoked' });
    expect(
      await runActivity(activities.rebindPeer, {
        ...input,
        ref: refOf('chain again'),
        ...(await verified(refOf('chain again'), publicKey, manifest)),
      }),
    ).toMatchObject({ chain: 'chain' });
  });

  it('without a chain, as people approved it: no grace for the old key', async () => {
    const key = newKey();
    const now = Date.now();
    const body = {
      entities: [peer.entityUri, peer.nodeId],
      entity_uri: peer.entityUri,
      expires_at: new Date(now + 86_400_000).toISOString(),
      issued_at: new Date(now).toISOString(),
      key_id: 'key-ä',
      public_key: key.publicKey,
      rotation_events: [],
    };
    const signed = (over: object = {}, by = key.privateKey) => {
      const all = { ...body, ...over };
      return { ...all, signature: sign(null, Buffer.from(canonicalJson(all), 'utf8'), by).toString('base64url') };
    };
    const activities = activitiesOf();
    const bind = async (manifest: object, name: string) => {
      const ref = refOf(name);
      return runActivity(activities.rebindPeer, { ref, approvedInRun: 'run-1', ...(await verified(ref, key.publicKey, manifest)) });
    };
    const fence = effectOf('revokePeers', 'no chain');
    const before = await readBinding(database, peer.nodeId);
    const chainFrom = before.manifest?.key_id ?? '';
    const stolen = {
      new_key_id: 'key-ä',
      new_public_key: key.publicKey,
      previous_key_id: chainFrom,
      rotated_at: body.issued_at,
      signature: 'AAAA',
    };
    const wrong: readonly (readonly [string, object])[] = [
      ['manifest.signature', signed({}, newKey().privateKey)],
      ['manifest.entity_uri', signed({ entity_uri: 'stigmem://else.test' })],
      ['manifest.public_key', signed({ public_key: newKey().publicKey })],
      ['manifest.entities', signed({ entities: [peer.entityUri] })],
      ['manifest.expires_at', signed({ expires_at: new Date(now + 800 * 86_400_000).toISOString() })],
      ['manifest.expires_at', signed({ issued_at: '2020-01-01T00:00:00Z', expires_at: '2021-01-01T00:00:00Z' })],
      ['manifest.rotation_events', signed({ rotation_events: [stolen] })],
      ['manifest.key_id', { ...signed(), key_id: 5 }],
    ];
    for (const [index, [message, manifest]] of wrong.entries())
      await expect(bind(manifest, `wrong ${index}`), message).rejects.toMatchObject({
        type: 'HostRefused',
        message: expect.stringContaining(message),
      });
    expect(await readBinding(database, peer.nodeId)).toEqual(before);
    expect(await bind(signed(), 'no chain')).toMatchObject({ chain: 'none', graceUntil: null, residual: [] });
    const behind = await says('signed with a key out of nowhere');
    await restartWith(key.seed, key.publicKey);
    await ours.exec("UPDATE peers SET status = 'active' WHERE status = 'revoked'");
    await waitForFact(ours, ({ id }) => id === behind);
    // A row that is open takes no new key: half of it would lose facts.
    await expect(bind(signed(), 'open')).rejects.toMatchObject({
      type: 'HostRefused',
      message: expect.stringContaining('expected revoked'),
    });
    expect((await storedFacts(ours)).filter(({ receivedFrom }) => receivedFrom === peer.nodeId).length).toBeGreaterThanOrEqual(4);
    await revokePeers(database, fence, peerRef.peerIds);
  });
});
