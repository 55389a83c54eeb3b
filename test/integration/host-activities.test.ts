import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createHostActivities, type HostActivities } from '../../activities/host/index.ts';
import type { HostDeps } from '../../activities/host/deps.ts';
import type { Fate, Holder } from '../../activities/host/fate.ts';
import { investigateActivities } from '../../activities/investigate.ts';
import { findCollection, readCollection } from '../../activities/facts/collection.ts';
import { evidenceOf } from '../../activities/deps.ts';
import type { IncidentRef, PeerRef } from '../../src/contract/steps.ts';
import { contentHash, type Collection } from '../../src/policy/facts.ts';
import { hostScene, type HostScene } from '../helpers/host-scene.ts';
import { incidentRef, runActivity, type Scene, type Storage } from '../helpers/hostile-scene.ts';

// What a host worker offers, each operation as its worker runs it, beside a node that runs.

vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });

describe.each<Storage>(['sqlite', 'postgres'])('on %s', (storage) => {
  let host: HostScene;
  let scene: Scene;
  let deps: HostDeps;
  let activities: HostActivities;
  beforeAll(async () => {
    host = await hostScene('host-activities', storage);
    ({ scene } = host);
    const { evidenceDir } = scene.deps;
    const trust = { mode: 'strict', quarantineGarden: 'garden' };
    deps = {
      database: host.database,
      evidenceDir,
      trust,
      snapshot: undefined,
      promotionCommand: undefined,
      federation: { privateKey: undefined, graceHours: 168, peerAllow: ['loopback'] },
      fateOf: async () => 'open',
    };
    activities = createHostActivities(deps);
  });
  afterAll(async () => host?.stop());

  const refOf = (name: string, over: Partial<IncidentRef> = {}) => incidentRef(scene, name, { phase: 'contain', ...over });
  const everything = () =>
    Promise.all(
      ['peers', 'api_keys', 'capability_tokens', 'fact_validity_overrides', 'quarantine_rules', 'fact_audit_log'].map((table) =>
        scene.ours.sql(`SELECT COUNT(*) AS n FROM ${table}`),
      ),
    );
  const statusOf = async () => (await scene.ours.sql('SELECT status FROM peers WHERE node_id = ?', [scene.peer.nodeId]))[0]?.['status'];

  describe('whose incident it serves', () => {
    it('is asked before anything else: another node, another evidence folder, and nothing is touched', async () => {
      const before = await everything();
      const input = { peer: scene.peer, readBack: false };
      const other = refOf('other', { nodeId: 'stigmem:node:other' });
      await expect(runActivity(activities.revokePeers, { ...input, ref: other })).rejects.toMatchObject({
        type: 'HostUnsupported',
        message: expect.stringContaining('expected stigmem:node:other'),
      });
      const elsewhere = refOf('elsewhere', { evidenceHead: `sha256:${'a'.repeat(64)}` });
      await expect(runActivity(activities.revokePeers, { ...input, ref: elsewhere })).rejects.toMatchObject({
        type: 'HostUnsupported',
        message: expect.stringContaining('CORDON_EVIDENCE_DIR'),
      });
      expect(await everything()).toEqual(before);
    });

    it('is shown by a row of the audit that the node answers with, and a drill leaves none', async () => {
      const { proof } = await runActivity(activities.probeHost, { ref: refOf('proof') });
      expect((await scene.node.auditPage({ fact_id: proof ?? '', limit: 1 })).entries.map(({ id }) => id)).toEqual([proof]);
      const before = await everything();
      const drill = refOf('drill', { mode: 'drill' });
      expect(await runActivity(activities.probeHost, { ref: drill })).not.toHaveProperty('proof');
      const input = { ref: drill, peer: scene.peer, readBack: false };
      for (const done of [
        await runActivity(activities.revokePeers, input),
        await runActivity(activities.revokeAccess, { ...input, part: 'keys' as const }),
        await runActivity(activities.lowerTrustRules, { ...input, ours: 'stigmem://ours.test' }),
      ])
        expect(done.done).toBe(0);
      expect(await everything()).toEqual(before);
    });
  });

  describe('the rows of an attacker', () => {
    const find = (peer: PeerRef, ours = 'stigmem://ours.test') => runActivity(activities.findPeerRows, { ref: refOf('rows'), peer, ours });
    const say = (uri: string) => scene.ours.exec(`UPDATE peers SET entity_uri = '${uri}' WHERE node_id = '${scene.peer.nodeId}'`);
    const insert = (id: string, key: string, uri: string) =>
      scene.ours.exec(
        `INSERT INTO peers (id, node_id, node_url, federation_pubkey, allowed_scopes, status, declaration_sig, established_at, signed_at, created_at, trust_tier, entity_uri, relay_trusted)
         SELECT '${id}', 'stigmem:node:${id}', 'http://${id}.test', ${key}, allowed_scopes, 'active', declaration_sig, established_at, signed_at, created_at, trust_tier, '${uri}', 0 FROM peers WHERE node_id = '${scene.peer.nodeId}'`,
      );

    it('are found by its pinned key too, and named in a warning', async () => {
      await say('stigmem://peer.test');
      await insert('second', 'federation_pubkey', 'stigmem://second.test');
      const { peer, warnings, coverage } = await find(scene.peer);
      expect(peer).toMatchObject({ entityUri: 'stigmem://peer.test', nodeIds: [scene.peer.nodeId, 'stigmem:node:second'] });
      expect(warnings.join()).toContain('stigmem:node:second');
      expect(coverage[0]).toMatchObject({ seen: 2, complete: true });
      await scene.ours.exec("DELETE FROM peers WHERE id = 'second'");
    });

    it.each([
      ['an entity of ours', 'stigmem://ours.test/agent/ops'],
      ["another active peer's", 'stigmem://innocent.test'],
      ['one with an admin key', 'stigmem://boss.test'],
    ])('are not looked for under %s that its manifest names', async (_what, uri) => {
      await insert('innocent', "'another-key'", 'stigmem://innocent.test');
      await scene.ours.issueKey({ entityUri: 'stigmem://boss.test', permissions: ['read', 'admin'] });
      await say(uri);
      const { peer, warnings } = await find(scene.peer);
      expect(peer).toMatchObject({ entityUri: '', nodeIds: [scene.peer.nodeId] });
      expect(warnings.join()).toContain('is not believed');
      await scene.ours.exec("DELETE FROM peers WHERE id = 'innocent'");
      await say('stigmem://peer.test');
    });
  });

  it('lists the facts that HTTP finds with the same content, so that a plan made in one way stands in the other', async () => {
    const { collectFacts } = investigateActivities(scene.deps);
    const collected = async (name: string, listing?: string): Promise<Collection> => {
      const ref = refOf(name, { phase: 'investigate' });
      await runActivity(collectFacts, { ref, peer: scene.peer, ...(listing === undefined ? {} : { listing }) });
      return readCollection(await evidenceOf(scene.deps, ref), (await findCollection(scene.deps, ref)) ?? '');
    };
    const { evidenceId, facts } = await runActivity(activities.listFacts, {
      ref: refOf('by host', { phase: 'investigate' }),
      peer: scene.peer,
    });
    const [byHost, overHttp] = [await collected('by host', evidenceId), await collected('over http')];
    expect(byHost.complete).toBe(true);
    expect(byHost.facts).toHaveLength(facts);
    const hashes = ({ facts: all }: Collection) =>
      new Map(
        all.flatMap((one) => (one.fact && one.quarantine?.quarantine_status !== 'pending' ? [[one.id, contentHash(one)] as const] : [])),
      );
    for (const [id, hash] of hashes(overHttp)) expect(hashes(byHost).get(id), id).toBe(hash);
    for (const { id } of overHttp.facts) expect(byHost.facts.map((one) => one.id)).toContain(id);
    expect(byHost.others.map(({ id, hidden }) => [id, hidden])).toEqual(overHttp.others.map(({ id, hidden }) => [id, hidden]));
    // What waits in quarantine shows its value to nobody over HTTP, and so can't be judged by it.
    const blind = overHttp.facts.filter(({ fact }) => fact === null).map(({ id }) => id);
    for (const id of blind) expect(byHost.facts.find((one) => one.id === id)?.fact?.value.v, id).toBeDefined();
  });

  it('lowers trust where a rule counts, reads it back, and lifts it', async () => {
    const ref = refOf('trust');
    const rules = () => scene.ours.sql("SELECT org_uri FROM quarantine_rules WHERE rule_type = 'never_trust'");
    const done = await runActivity(activities.lowerTrustRules, { ref, peer: scene.peer, ours: 'stigmem://ours.test', readBack: false });
    expect(done).toMatchObject({ works: true, done: (await rules()).length });
    expect(done.done).toBeGreaterThan(0);
    // It claimed to be an agent of ours that has said nothing here yet.
    expect(await rules()).toEqual([{ org_uri: 'stigmem://peer.test' }]);
    await runActivity(activities.restoreOnHost, { ref: { ...ref, phase: 'restore' }, approvedInRun: 'run-1', readBack: false });
    expect(await rules()).toEqual([]);
  });

  it('opens the door again only as approved in this very run, and tells the same when it is asked twice', async () => {
    const ref = refOf('door');
    const input = { peer: scene.peer, readBack: false };
    await runActivity(activities.revokePeers, { ...input, ref });
    await runActivity(activities.revokePeers, { ...input, ref: { ...ref, at: '2026-11-23T01:05:00.000Z' } });
    expect(await statusOf()).toBe('revoked');
    const restore = { ref: { ...ref, phase: 'restore' as const }, readBack: false };
    await expect(runActivity(activities.reinstatePeers, { ...restore, approvedInRun: 'run-0' })).rejects.toMatchObject({
      type: 'PreconditionChanged',
    });
    const look = { ...restore, approvedInRun: 'run-1', readBack: true };
    expect((await runActivity(activities.reinstatePeers, look)).residual).toMatchObject([{ what: 'changes on the host', count: 2 }]);
    expect(await statusOf()).toBe('revoked');
    const first = await runActivity(activities.reinstatePeers, { ...restore, approvedInRun: 'run-1' });
    expect(first.reopened).toEqual(Object.fromEntries(scene.peer.peerIds.map((id) => [id, 'active'])));
    expect(await statusOf()).toBe('active');
    expect((await runActivity(activities.reinstatePeers, { ...restore, approvedInRun: 'run-1' })).reopened).toEqual(first.reopened);
    expect((await runActivity(activities.reinstatePeers, look)).residual).toEqual([]);
  });

  describe('what an incident did that was ended by somebody', () => {
    const later = '2026-11-23T02:00:00.000Z';
    const rules = () => scene.ours.sql("SELECT org_uri FROM quarantine_rules WHERE rule_type = 'never_trust'");
    const keyAt = async (id: string) =>
      (await scene.ours.sql('SELECT expires_at FROM api_keys WHERE entity_uri = ?', [id]))[0]?.['expires_at'];
    /** One incident shuts the door and takes the keys and the trust; the next one finds all that done, and is dismissed. */
    const twoIncidents = async (first: string, second: string, fate: Fate) => {
      const [one, two] = [refOf(first), refOf(second, { at: later })];
      const holder = `stigmem://peer.test/${first}`;
      const peer = { ...scene.peer, entityUri: holder };
      await scene.ours.issueKey({ entityUri: holder, permissions: ['read'] });
      const before = await keyAt(holder);
      const asked: Holder[] = [];
      const worker = createHostActivities({
        ...deps,
        fateOf: async (of) => {
          asked.push(of);
          return fate;
        },
      });
      for (const ref of [one, two]) {
        await runActivity(worker.revokePeers, { ref, peer, readBack: false });
        await runActivity(worker.revokeAccess, { ref, peer, readBack: false, part: 'keys' as const });
        await runActivity(worker.lowerTrustRules, {
          ref,
          peer: { ...peer, entityUri: holder },
          ours: 'stigmem://ours.test',
          readBack: false,
        });
      }
      expect([await statusOf(), (await keyAt(holder)) !== before, (await rules()).length > 0]).toEqual(['revoked', true, true]);
      const restore = { ref: { ...two, phase: 'restore' as const }, approvedInRun: 'run-1', readBack: false };
      const restored = await runActivity(worker.restoreOnHost, restore);
      const reinstated = await runActivity(worker.reinstatePeers, restore);
      const left = await runActivity(worker.reinstatePeers, { ...restore, readBack: true });
      expect(asked[0]).toEqual({ incident: one.incident, firstRun: one.firstRun });
      return { restored, reinstated, left, holder, before, one, worker };
    };

    it('is undone with what the next one did, which takes it over', async () => {
      const { restored, reinstated, left, holder, before } = await twoIncidents('ended', 'heir', 'dead');
      expect([await statusOf(), await keyAt(holder), await rules()]).toEqual(['active', before, []]);
      expect([restored.residual, reinstated.residual, left.residual]).toEqual([[], [], []]);
      expect(reinstated.reopened).toEqual(Object.fromEntries(scene.peer.peerIds.map((id) => [id, 'active'])));
    });

    it.each<Fate>(['open', 'closed', 'unknown'])('stays as it is where that one is %s', async (fate) => {
      const { restored, reinstated, holder, before, one, worker } = await twoIncidents(`${fate} one`, `${fate} two`, fate);
      expect([await statusOf(), (await keyAt(holder)) === before]).toEqual(['revoked', false]);
      expect((await rules()).length).toBeGreaterThan(0);
      expect(restored.residual?.map(({ what }) => what)).toEqual(['things that another incident holds as well']);
      expect(reinstated.residual?.map(({ what }) => what)).toEqual(['peers rows that another incident keeps shut']);
      const restore = { ref: { ...one, phase: 'restore' as const }, approvedInRun: 'run-1', readBack: false };
      await runActivity(worker.restoreOnHost, restore);
      await runActivity(worker.reinstatePeers, restore);
      expect([await statusOf(), await keyAt(holder), await rules()]).toEqual(['active', before, []]);
    });
  });

  it('says when it shut the door, so that what came after that is judged by it', async () => {
    const ref = refOf('since', { phase: 'contain' });
    const began = Date.now();
    await runActivity(activities.revokePeers, { ref, peer: scene.peer, readBack: false });
    const shut = Date.now();
    // Tried again later on: shut since the first time.
    await runActivity(activities.revokePeers, { ref: { ...ref, at: '2026-11-23T03:00:00.000Z' }, peer: scene.peer, readBack: false });
    const { collectFacts } = investigateActivities(scene.deps);
    const collected = async (name: string): Promise<Collection> => {
      const of = refOf(name, { phase: 'investigate' });
      const { evidenceId: listing } = await runActivity(activities.listFacts, { ref: of, peer: scene.peer });
      await runActivity(collectFacts, { ref: of, peer: scene.peer, listing });
      return readCollection(await evidenceOf(scene.deps, of), (await findCollection(scene.deps, of)) ?? '');
    };
    const { fencedAt } = await collected('while shut');
    expect(Date.parse(fencedAt ?? '')).toBeGreaterThanOrEqual(began - 1);
    expect(Date.parse(fencedAt ?? '')).toBeLessThanOrEqual(shut + 1);
    await runActivity(activities.reinstatePeers, { ref: { ...ref, phase: 'restore' as const }, approvedInRun: 'run-1', readBack: false });
    expect((await collected('open again')).fencedAt).toBeNull();
    // Shut by somebody else: nobody can say since when.
    await scene.ours.exec(`UPDATE peers SET status = 'revoked' WHERE node_id = '${scene.peer.nodeId}'`);
    expect((await collected('by somebody')).fencedAt).toBeNull();
    await scene.ours.exec(`UPDATE peers SET status = 'active' WHERE node_id = '${scene.peer.nodeId}'`);
  });

  it('pauses promotion by the program of the deployment, and resumes only what it paused', async () => {
    const file = join(scene.dir, 'promotion.sh');
    const mark = join(scene.dir, 'paused');
    writeFileSync(
      file,
      `#!/bin/sh\ncase "$1" in pause) : > "${mark}";; resume) rm -f "${mark}";; status) [ -e "${mark}" ] && echo paused || echo running;; *) exit 1;; esac\n`,
    );
    chmodSync(file, 0o755);
    const withProgram = createHostActivities({ ...deps, promotionCommand: file });
    const [one, two] = [refOf('promotion one'), refOf('promotion two')];
    const input = { peer: scene.peer, readBack: false };
    expect(await runActivity(activities.pausePromotionJob, { ...input, ref: one })).toMatchObject({ works: false });
    expect(await runActivity(withProgram.pausePromotionJob, { ...input, ref: one })).toMatchObject({ works: true, done: 1, residual: [] });
    expect(existsSync(mark)).toBe(true);
    // It was paused already when the second came: it stays so when that one is dismissed.
    await runActivity(withProgram.pausePromotionJob, { ...input, ref: two });
    const resume = (ref: IncidentRef) =>
      runActivity(withProgram.resumePromotionJob, { ref: { ...ref, phase: 'restore' as const }, approvedInRun: 'run-1', readBack: false });
    expect((await resume(two)).detail).toContain('left as it is');
    expect(existsSync(mark)).toBe(true);
    expect(await resume(one)).toMatchObject({ done: 1, residual: [] });
    expect(existsSync(mark)).toBe(false);
    const broken = createHostActivities({ ...deps, promotionCommand: join(scene.dir, 'no-such-program') });
    await expect(runActivity(broken.pausePromotionJob, { ...input, ref: one })).rejects.toMatchObject({ type: 'HostUnavailable' });
  });
});
