import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { readAccess, restoreAccess, revokeAccess, type Access, type Holder } from '../../src/host/access.ts';
import { HostRefusedError } from '../../src/host/database.ts';
import { auditSource } from '../../src/host/effect.ts';
import { readPeers, reinstatePeers, revokePeers } from '../../src/host/peers.ts';
import { hideAgain, liftTombstones, readTombstones } from '../../src/host/tombstones.ts';
import { lowersAnything, lowerTrust, raiseTrust } from '../../src/host/trust.ts';
import { effectOf, hostScene, undoing, type HostScene } from '../helpers/host-scene.ts';
import type { Storage } from '../helpers/hostile-scene.ts';

// Closing the ways in, on the database of a node that runs; what became of it is asked over HTTP.

vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });

describe.each<Storage>(['sqlite', 'postgres'])('on %s', (storage) => {
  let host: HostScene;
  beforeAll(async () => {
    host = await hostScene('host-contain', storage);
  });
  afterAll(async () => host?.stop());

  const peerStatus = async () => (await host.scene.node.peers()).find(({ peer_id: id }) => host.scene.peer.peerIds.includes(id))?.status;
  const auditRows = () => host.scene.ours.sql('SELECT entity_uri FROM fact_audit_log WHERE source = ?', [auditSource]);

  describe('peers', () => {
    it('have what HTTP does not show: the pinned key, the entity, where pulling stands', async () => {
      const [peer] = (await readPeers(host.database)).filter(({ node_id: id }) => id === host.scene.peer.nodeId);
      expect(peer).toMatchObject({ status: 'active', node_url: host.scene.peer.url, relay_trusted: 0, tenantMap: {} });
      expect(peer?.federation_pubkey).toMatch(/^[\w-]{43}$/);
      expect(peer?.cursors.map(({ direction }) => direction)).toContain('inbound');
    });

    it('are revoked once and come back as they were; the node shows both in its audit', async () => {
      const { scene, database } = host;
      const before = (await auditRows()).length;
      const revoke = effectOf('revokePeers', 'peers');
      const first = await revokePeers(database, revoke, scene.peer.peerIds);
      const peers = scene.peer.peerIds.map((id) => ({ id, nodeId: scene.peer.nodeId, was: 'active' }));
      expect(first).toEqual({ made: true, record: { peers } });
      expect(await peerStatus()).toBe('revoked');
      expect(await revokePeers(database, revoke, scene.peer.peerIds)).toEqual({ ...first, made: false });
      const back = undoing(revoke, 'reinstatePeers');
      expect((await reinstatePeers(database, back)).record.peers).toEqual(peers.map(({ id }) => ({ id, status: 'active', held: false })));
      expect(await peerStatus()).toBe('active');
      expect((await reinstatePeers(database, back)).made).toBe(false);
      expect(await auditRows()).toHaveLength(before + 2);
      expect(JSON.stringify(await scene.node.auditPage({ source: auditSource }))).toContain('peer-compromise:one');
    });

    it('that two incidents shut stay shut until both let go, and are then what they were before the first', async () => {
      const { scene, database } = host;
      const [one, two] = [effectOf('revokePeers', 'both', 'first'), effectOf('revokePeers', 'both', 'second')];
      await revokePeers(database, one, scene.peer.peerIds);
      expect((await revokePeers(database, two, scene.peer.peerIds)).record.peers.map(({ was }) => was)).toEqual(['active']);
      expect((await reinstatePeers(database, undoing(one, 'reinstatePeers'))).record.peers.map(({ held }) => held)).toEqual([true]);
      expect(await peerStatus()).toBe('revoked');
      await reinstatePeers(database, undoing(two, 'reinstatePeers'));
      expect(await peerStatus()).toBe('active');
    });

    it('of attempts at the same moment one makes it', async () => {
      const { scene, database } = host;
      const race = effectOf('revokePeers', 'race');
      const all = await Promise.all([1, 2, 3].map(() => revokePeers(database, race, scene.peer.peerIds)));
      expect(all.filter(({ made }) => made)).toHaveLength(1);
      expect(new Set(all.map(({ record }) => JSON.stringify(record))).size).toBe(1);
      await reinstatePeers(database, undoing(race, 'reinstatePeers'));
    });

    it('a change that fails in the middle leaves nothing, its record neither', async () => {
      const { scene, database } = host;
      const before = (await auditRows()).length;
      const broken = effectOf('revokePeers', 'broken');
      const when = 'BEFORE UPDATE ON peers';
      await scene.ours.exec(
        storage === 'sqlite'
          ? `CREATE TRIGGER stop_it ${when} BEGIN SELECT RAISE(ABORT, 'not now'); END`
          : `CREATE FUNCTION stop_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
             CREATE TRIGGER stop_it ${when} FOR EACH ROW EXECUTE FUNCTION stop_it()`,
      );
      await expect(revokePeers(database, broken, scene.peer.peerIds)).rejects.toThrow('not now');
      await scene.ours.exec(storage === 'sqlite' ? 'DROP TRIGGER stop_it' : 'DROP TRIGGER stop_it ON peers');
      expect([await peerStatus(), (await auditRows()).length]).toEqual(['active', before]);
      expect((await revokePeers(database, broken, scene.peer.peerIds)).made).toBe(true);
      await reinstatePeers(database, undoing(broken, 'reinstatePeers'));
    });
  });

  describe('access', () => {
    const entity = 'stigmem://peer.test/agent/hand';
    const holder: Holder = {
      holds: (who) => who.startsWith('stigmem://peer.test/'),
      deliversTo: (where) => where.startsWith('http://127.0.0.1:9/'),
    };
    const counted = (access: Access) => Object.values(access).map((rows) => rows.length);

    it('by key, agent key, subscription, membership and token ends, and comes back; of two incidents with the second', async () => {
      const { scene, database } = host;
      const key = await scene.ours.issueKey({ entityUri: entity, permissions: ['read', 'write'] });
      const reads = async () => (await scene.ours.request('GET', '/v1/facts?limit=1', undefined, key)).status;
      expect(await reads()).toBe(200);
      const time = '2026-01-01T00:00:00+00:00';
      await scene.ours.exec(`
        INSERT INTO api_keys (id, key_hash, entity_uri, created_at, expires_at) VALUES ('for-ever', 'hash-4711', '${entity}', '${time}', '');
        INSERT INTO agent_keys (id, entity_uri, public_key, registered_at) VALUES ('ak-1', '${entity}', 'x', '${time}');
        INSERT INTO subscriptions (id, subscriber_identity, target, on_change, delivery_address, created_at)
          VALUES ('sub-1', 'stigmem://ours.test/agent/x', 'company', 'webhook', 'http://127.0.0.1:9/hook/secret-path', '${time}');
        INSERT INTO garden_members (garden_id, entity_uri, role, added_by, added_at)
          SELECT id, '${entity}', 'reader', 'stigmem://ours.test', '${time}' FROM gardens LIMIT 1;
        INSERT INTO capability_tokens (id, token_json, issuer, subject, verb, object, issued_at, expiry, nonce, created_at)
          VALUES ('tok-1', '{"secret":1}', 'stigmem://ours.test', '${entity}', 'read', '*', '${time}', '2099-01-01T00:00:00+00:00', '${'0'.repeat(64)}', '${time}')`);
      const before = await readAccess(database, holder);
      expect(counted(before)).toEqual([1, 2, 1, 1, 1]);
      expect(JSON.stringify(before)).not.toMatch(/argon2|4711|secret|0{64}/);
      const [one, two] = [effectOf('revokeAccess', 'access', 'first'), effectOf('revokeAccess', 'access', 'second')];
      const { record } = await revokeAccess(database, one, holder);
      expect(Object.values(record).map((rows) => rows.length)).toEqual([1, 2, 1, 1, 1]);
      expect(JSON.stringify(record)).not.toMatch(/argon2|4711|secret|127\.0\.0\.1/);
      expect(await reads()).toBe(401);
      expect(await readAccess(database, holder)).toMatchObject({
        tokens: [{ revoked_at: expect.any(String) }],
        agentKeys: [{ status: 'revoked' }],
        subscriptions: [{ circuit_open: 1, delivery_origin: 'http://127.0.0.1:9' }],
        members: [],
      });
      expect((await revokeAccess(database, one, holder)).made).toBe(false);
      // Nobody else's was touched: ours still works.
      expect((await scene.ours.request('GET', '/v1/facts?limit=1')).status).toBe(200);
      expect(Object.values((await revokeAccess(database, two, holder)).record).map((rows) => rows.length)).toEqual([1, 2, 1, 1, 1]);
      expect((await restoreAccess(database, undoing(one, 'restoreAccess'))).record).toMatchObject({ back: [], held: { length: 6 } });
      expect(await reads()).toBe(401);
      expect((await restoreAccess(database, undoing(two, 'restoreAccess'))).record).toMatchObject({
        back: { length: 6 },
        held: [],
        lost: [],
      });
      expect(await readAccess(database, holder)).toEqual(before);
      expect(await reads()).toBe(200);
    });

    it('whose garden is gone since is lost, and the rest comes back', async () => {
      const { scene, database } = host;
      await scene.ours.exec(`
        INSERT INTO gardens (id, slug, name, scope, created_by, created_at) VALUES ('g-1', 'gone', 'Gone', 'company', 'x', '2026-01-01T00:00:00+00:00');
        INSERT INTO garden_members (garden_id, entity_uri, role, added_by, added_at) VALUES ('g-1', '${entity}', 'reader', 'x', '2026-01-01T00:00:00+00:00')`);
      const revoke = effectOf('revokeAccess', 'garden');
      await revokeAccess(database, revoke, holder);
      await scene.ours.exec("DELETE FROM gardens WHERE id = 'g-1'");
      const { record } = await restoreAccess(database, undoing(revoke, 'restoreAccess'));
      expect(record).toMatchObject({ back: { length: 6 }, lost: [JSON.stringify(['g-1', entity])] });
    });
  });

  describe('trust', () => {
    const source = 'stigmem://peer.test/agent/liar';
    const strict = { mode: 'strict', quarantineGarden: 'quarantine' };
    const rules = () => host.scene.ours.sql("SELECT rule_type, org_uri FROM quarantine_rules WHERE created_by <> 'x' ORDER BY org_uri, id");
    const of = () => ({ nodeIds: host.scene.peer.nodeIds, holds: (entity: string) => entity.startsWith('stigmem://peer.test/') });
    const put = (id: string, said: string, from: string | null) =>
      host.scene.ours
        .exec(`INSERT INTO facts (id, entity, relation, value_type, value_v, source, timestamp, confidence, scope, received_from)
        VALUES ('${id}', 'stigmem://x.test/y', 'memory:z', 'string', 'v', '${said}', '2026-01-01T00:00:00+00:00', 0.9, 'company', ${from === null ? 'NULL' : `'${from}'`})`);

    it('is lowered for each source that the peer alone speaks for, and raised again', async () => {
      const { scene, database } = host;
      const innocent = 'stigmem://innocent.test/agent/a';
      const byItsKey = 'stigmem://peer.test/agent/itself';
      await put('t-1', innocent, 'stigmem:node:innocent');
      // Written here with a key of the peer's own: that makes it nobody else's.
      await put('t-2', byItsKey, null);
      await scene.ours.exec(
        "INSERT INTO fact_audit_log (id, fact_id, event_type, entity_uri, source, ts, tenant_id) VALUES ('a-2', 't-2', 'fact_write', 'stigmem://peer.test/agent/hand', 'x', '2026-01-01', 'default')",
      );
      const sources = [source, innocent, byItsKey, scene.ours.entityUri, source, "o'brien; DROP TABLE facts"];
      const lower = effectOf('lowerTrust', 'trust');
      const done = await lowerTrust(database, strict, lower, { sources, of: of() });
      expect(done.record.sources).toEqual([source, byItsKey, "o'brien; DROP TABLE facts"]);
      expect(done.record.shared.toSorted()).toEqual([innocent, scene.ours.entityUri].toSorted());
      expect(await rules()).toHaveLength(3);
      expect(await lowerTrust(database, strict, lower, { sources, of: of() })).toEqual({ ...done, made: false });
      const again = effectOf('lowerTrust', 'trust', 'other');
      await lowerTrust(database, strict, again, { sources: [source], of: of() });
      await raiseTrust(database, undoing(lower, 'raiseTrust'));
      expect(await rules()).toEqual([{ rule_type: 'never_trust', org_uri: source }]);
      await raiseTrust(database, undoing(again, 'raiseTrust'));
      expect(await rules()).toEqual([]);
    });

    it('is not lowered where that would stop every peer, nor for more sources than one change takes', async () => {
      const { database } = host;
      const lower = (settings: typeof strict | { mode: string; quarantineGarden: undefined }, sources: string[]) =>
        lowerTrust(database, settings, effectOf('lowerTrust', 'refused'), { sources, of: of() });
      await expect(lower({ mode: 'strict', quarantineGarden: undefined }, [source])).rejects.toThrow(HostRefusedError);
      const many = Array.from({ length: 501 }, (_unused, index) => `stigmem://peer.test/${index}`);
      await expect(lower(strict, many)).rejects.toThrow(/at most 500/);
      expect(await rules()).toEqual([]);
      expect([lowersAnything(strict), lowersAnything({ ...strict, mode: 'relaxed' })]).toEqual([true, false]);
    });
  });

  it('tombstones the peer signed or brought are lifted and hide again; ours and those of others stay', async () => {
    const { scene, database } = host;
    const row = (id: string, by: string, from: string) =>
      `('${id}', 'stigmem://ours.test/svc/pay', '*', '${by}', 'x', '2026-01-01T00:00:00Z', ${from})`;
    await scene.ours.exec(`
      INSERT INTO tombstones (id, entity_uri, scope, signed_by, signature, created_at, received_from) VALUES
        ${row('direct', 'stigmem://peer.test', 'NULL')}, ${row('relayed', 'stigmem://else.test', `'${scene.peer.nodeId}'`)},
        ${row('innocent', 'stigmem://else.test', "'stigmem:node:innocent'")}, ${row('ours', 'stigmem://ours.test', 'NULL')};
      INSERT INTO fact_audit_log (id, fact_id, event_type, entity_uri, source, ts, tenant_id)
        VALUES ('a-direct', 'direct', 'tombstone_federation_ingested', 'x', 'x', '2026-01-01', 'default')`);
    const signer = { nodeIds: scene.peer.nodeIds, signs: (who: string) => who.startsWith('stigmem://peer.test') };
    const wanted = new Set(['direct', 'relayed', 'innocent', 'ours']);
    const everybody = { nodeIds: [], signs: () => true };
    const hides = async () => (await readTombstones(database, everybody)).map(({ id }) => id);
    expect(await hides()).toEqual(['direct', 'innocent', 'relayed']);
    const [one, two] = [effectOf('liftTombstones', 'tombs', 'first'), effectOf('liftTombstones', 'tombs', 'second')];
    expect(await liftTombstones(database, effectOf('liftTombstones', 'none'), signer, new Set(['innocent', 'ours']))).toEqual({
      made: true,
      record: { ids: [] },
    });
    expect(await liftTombstones(database, one, signer, wanted)).toEqual({ made: true, record: { ids: ['direct', 'relayed'] } });
    expect((await liftTombstones(database, one, signer, wanted)).made).toBe(false);
    expect((await liftTombstones(database, two, signer, wanted)).record.ids).toEqual(['direct', 'relayed']);
    expect(await hides()).toEqual(['innocent']);
    // None of them looks like one of ours: those would be sent on.
    const sentOn = await scene.ours.sql('SELECT id FROM tombstone_revocations WHERE received_from IS NULL');
    expect(sentOn).toEqual([]);
    expect((await hideAgain(database, undoing(one, 'hideAgain'))).record).toEqual({ ids: [], held: ['direct', 'relayed'] });
    expect((await hideAgain(database, undoing(two, 'hideAgain'))).record).toEqual({ ids: ['direct', 'relayed'], held: [] });
    expect(await hides()).toEqual(['direct', 'innocent', 'relayed']);
  });
});
