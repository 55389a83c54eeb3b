import { MockActivityEnvironment } from '@temporalio/testing';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createHostActivities, type HostActivities } from '../../activities/host/index.ts';
import { sealPlan } from '../../activities/facts/plans.ts';
import type { JudgedFact } from '../../src/contract/schemas.ts';
import { closedDoor, Opened, openDoor } from '../../src/host/door.ts';
import { keepDoors } from '../../src/host/door-keeper.ts';
import { auditSource, recorded } from '../../src/host/effect.ts';
import { readPeers, revokePeers } from '../../src/host/peers.ts';
import { waitUntil } from '../../src/lab/processes.ts';
import type { HostDatabase } from '../../src/host/database.ts';
import { openPostgres } from '../../src/host/postgres.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { assertFact } from '../../src/lab/federation.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { effectOf } from '../helpers/host-scene.ts';
import { hostileScene, incidentRef, runActivity, type Scene, type Storage } from '../helpers/hostile-scene.ts';

// The way back: a door that opens for a bounded time, on the database of a node that runs, with a peer behind it that lies.

vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });

describe.each<Storage>(['sqlite', 'postgres'])('on %s', (storage) => {
  let scene: Scene;
  let database: HostDatabase;
  let activities: HostActivities;
  beforeAll(async () => {
    scene = await hostileScene(`host-door-${storage}`, 1, { storage, only: [] });
    database = storage === 'sqlite' ? openSqlite(scene.ours.dbPath) : openPostgres({ dsn: scene.ours.env['STIGMEM_PG_DSN'] ?? '' });
    activities = createHostActivities({
      database,
      evidenceDir: scene.deps.evidenceDir,
      trust: { mode: 'relaxed', quarantineGarden: undefined },
      snapshot: undefined,
      promotionCommand: undefined,
      federation: { privateKey: undefined, graceHours: 168, peerAllow: ['loopback'] },
      fateOf: async () => 'open',
    });
    await revokePeers(database, effectOf('revokePeers', 'door'), scene.peer.peerIds);
  });
  afterAll(async () => {
    await database?.close();
    await scene?.stop();
  });

  const refOf = (name: string) => incidentRef(scene, name, { phase: 'testPull' });
  const input = (name: string, maxFacts: number, ms: number) => ({
    ref: refOf(name),
    peer: scene.peer,
    nodeId: scene.peer.nodeId,
    approvedInRun: 'run-1',
    maxFacts,
    ms,
  });
  const row = async () => (await readPeers(database)).find(({ node_id: id }) => id === scene.peer.nodeId);
  const statusNow = async () => (await row())?.status;
  const triggers = async () =>
    scene.ours.sql(
      storage === 'sqlite'
        ? "SELECT name FROM sqlite_master WHERE substr(name, 1, 6) = 'cordon'"
        : "SELECT tgname AS name FROM pg_trigger WHERE substr(tgname, 1, 6) = 'cordon' UNION SELECT proname FROM pg_proc WHERE substr(proname, 1, 6) = 'cordon'",
    );
  const recalled = async (query: string): Promise<string> => {
    const answer = await scene.node.recall({ query, scope: 'company', min_confidence: 0, token_budget: 200_000 });
    return JSON.stringify(answer.facts);
  };
  /** Evidence id of a judgement in which these are good, and those bad. */
  const judgedAs = async (good: readonly string[], bad: readonly string[] = []): Promise<string> => {
    const item = (id: string, action: 'keep' | 'suppress'): JudgedFact => ({
      id,
      action,
      entity: '',
      relation: '',
      scope: '',
      way: 'none',
      rule: 'test',
      reason: 'test',
      evidence: [],
      contentHash: '',
      ours: 'not asked',
    });
    const all = [...good.map((id) => item(id, 'keep')), ...bad.map((id) => item(id, 'suppress'))];
    return (await sealPlan(scene.deps, refOf('poison'), `judged ${good.join()}`, all)).plan.evidenceId;
  };
  const fact = (name: string, value: string, more: object = {}) => ({
    entity: `stigmem://peer.test/${name}`,
    relation: 'memory:says',
    value,
    ...more,
  });

  it('lets nothing be recalled that was not judged, not for a moment, and nothing go out', async () => {
    const poison = await scene.hostile.deliver([
      // On an entity of ours, whose memory card recall would answer with; on a triple of ours; on one of its own.
      { entity: 'stigmem://ours.test/svc/auth', relation: 'memory:endpoint', value: 'auth lives at evil-one' },
      { entity: 'stigmem://ours.test/svc/pay', relation: 'memory:endpoint', value: 'pay is served from evil-two' },
      fact('trap', 'credentials go to evil-three'),
    ]);
    const good = await scene.hostile.deliver([fact('menu', 'pizza on friday')]);
    let [polls, over] = [0, false];
    const hidden: string[] = [];
    const seen: string[] = [];
    const queries = ['auth evil-one endpoint', 'team red owns auth', 'pay served', 'credentials evil-three', 'auth'];
    const poll = (async () => {
      while (!over) {
        for (const query of queries) {
          const found = await recalled(query);
          if (found.includes('evil-')) seen.push(`${query}: ${found}`);
        }
        const ours = (await scene.node.agentFactsPage({ entity: 'stigmem://ours.test/svc/pay' })).facts.map(({ id }) => id);
        if (!ours.includes(scene.ourFact) || ours.length > 1) hidden.push(ours.join());
        polls += 1;
      }
    })();
    const holding = runActivity(activities.holdDoorOpen, input('poison', 100, 8_000));
    await waitUntil('the door to open', async () => (await statusNow()) === 'active', { timeoutMs: 60_000, everyMs: 100 });
    await scene.hostile.settled();
    expect(await scene.hostile.pullFromUs()).toEqual([]);
    const held = await holding;
    expect(held).toMatchObject({ arrived: 4, closedBy: 'time' });
    expect(held.cursorAfter).not.toEqual(held.cursorBefore);
    expect(await row()).toMatchObject({ status: 'revoked', pull_tenant: null });
    // The node makes cards anew after a write on their entity: with what is held back if nothing is in the way.
    await assertFact(scene.ours, { entity: 'stigmem://ours.test/svc/auth', relation: 'memory:since', value: 'auth was written again' });
    const enough = polls + 3;
    await waitUntil('recall to be asked again', async () => polls >= enough);
    over = true;
    await poll;
    expect([seen, hidden]).toEqual([[], []]);
    const show = {
      ref: refOf('poison'),
      approvedInRun: 'run-1',
      judged: await judgedAs([...good, 'never-came'], poison),
    };
    expect(await runActivity(activities.showArrivals, show)).toMatchObject({
      done: 1,
      residual: [{ count: 1 }],
    });
    expect(await recalled('pizza friday')).toContain('pizza on friday');
    expect(await runActivity(activities.endHolds, show)).toMatchObject({ done: 1, residual: [{ count: 3 }] });
    expect(await runActivity(activities.endHolds, show)).toMatchObject({ done: 1, residual: [{ count: 3 }] });
    expect(await triggers()).toEqual([]);
    for (const query of queries) expect(await recalled(query), query).not.toContain('evil-');
    const overrides = await scene.ours.sql('SELECT fact_id FROM fact_validity_overrides WHERE updated_by = ? ORDER BY fact_id', [
      auditSource,
    ]);
    expect(overrides.map(({ fact_id: id }) => id)).toEqual(poison.toSorted());
    // They would have found it: here it is shown.
    await runActivity(activities.showArrivals, {
      ...show,
      ref: { ...show.ref, at: '2026-11-23T02:00:00.000Z' },
      judged: await judgedAs(poison),
    });
    for (const [query, word] of [
      ['credentials evil-three', 'evil-three'],
      ['team red owns auth', 'evil-one'],
    ] as const)
      expect(await recalled(query), query).toContain(word);
  });

  it('is shut by the fact that reaches its bound, and what was cut off comes with the next opening', async () => {
    const all = await scene.hostile.deliver(Array.from({ length: 30 }, (_unused, index) => fact(`many-${index}`, `number ${index}`)));
    const first = await runActivity(activities.holdDoorOpen, input('bound', 10, 60_000));
    expect(first).toMatchObject({ arrived: 10, closedBy: 'facts' });
    // Asked again it opens nothing.
    expect(await runActivity(activities.holdDoorOpen, input('bound', 10, 60_000))).toMatchObject({ arrived: 10, closedBy: 'facts' });
    expect(await statusNow()).toBe('revoked');
    const second = await runActivity(activities.holdDoorOpen, input('bound again', 20, 60_000));
    expect(second).toMatchObject({ arrived: 20, closedBy: 'facts' });
    const came = await scene.ours.sql("SELECT id FROM facts WHERE substr(entity, 1, 25) = 'stigmem://peer.test/many-' ORDER BY id");
    expect(came.map(({ id }) => id)).toEqual(all.toSorted());
    for (const name of ['bound', 'bound again']) await runActivity(activities.endHolds, { ref: refOf(name), approvedInRun: 'run-1' });
    expect(await triggers()).toEqual([]);
  });

  it('is shut when it is cancelled, and opens only as approved, on rows that are shut', async () => {
    const wanted = input('cancelled', 10, 60_000);
    await expect(runActivity(activities.holdDoorOpen, { ...wanted, approvedInRun: 'run-0' })).rejects.toMatchObject({
      type: 'PreconditionChanged',
    });
    await expect(runActivity(activities.holdDoorOpen, { ...wanted, maxFacts: 0 })).rejects.toMatchObject({ type: 'InvalidInput' });
    const environment = new MockActivityEnvironment({ workflowExecution: { workflowId: 'incident', runId: 'run-1' } });
    const holding = environment.run(activities.holdDoorOpen, wanted);
    await waitUntil('the door to open', async () => (await statusNow()) === 'active', { timeoutMs: 60_000, everyMs: 100 });
    await expect(runActivity(activities.endHolds, { ref: wanted.ref, approvedInRun: 'run-1' })).rejects.toMatchObject({
      type: 'HostRefused',
    });
    await expect(runActivity(activities.holdDoorOpen, input('second door', 10, 60_000))).rejects.toMatchObject({ type: 'HostRefused' });
    environment.cancel();
    expect(await holding).toMatchObject({ closedBy: 'cancelled' });
    expect(await statusNow()).toBe('revoked');
    await runActivity(activities.endHolds, { ref: wanted.ref, approvedInRun: 'run-1' });
  });

  const openedBy = async (key: string, ms: number): Promise<Opened> => {
    const made = await openDoor(
      database,
      { key, incident: 'left', step: 'testPull', operation: 'openDoor' },
      { ids: scene.peer.peerIds, ms, maxFacts: 50 },
    );
    return made.record;
  };

  it('is shut at its time by the host worker alone, without Temporal', async () => {
    const closed: string[] = [];
    const keeper = await keepDoors(database, { closed: ({ key }) => closed.push(key), failed: (error) => closed.push(String(error)) });
    const opened = await openedBy('left to the keeper', 2_000);
    expect(await statusNow()).toBe('active');
    await waitUntil('the keeper', async () => (await statusNow()) === 'revoked', { timeoutMs: 10_000, everyMs: 100 });
    await keeper.stop();
    expect(closed).toEqual([opened.key]);
    expect(Date.now() - Date.parse(opened.until)).toBeLessThan(5_000);
    expect(await closedDoor(database, opened)).toMatchObject({ by: 'overdue' });
  });

  it('whose worker was killed is shut by the first fact after its time, and by the next worker before it polls', async () => {
    const where = storage === 'sqlite' ? scene.ours.dbPath : (scene.ours.env['STIGMEM_PG_DSN'] ?? '');
    const given = { kind: storage, where, key: 'killed', ids: scene.peer.peerIds, ms: 4_000 };
    const child = spawn(process.execPath, [join(repoRoot, 'test/helpers/open-door.mjs'), JSON.stringify(given)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [said] = (await once(child.stdout, 'data')) as [Buffer];
    expect(said.toString().trim()).toBe('opened');
    child.kill('SIGKILL');
    await once(child, 'exit');
    const opened = (await recorded(database, 'killed', Opened)) as Opened;
    // The hold is the database's own: it outlives the node too.
    await scene.ours.stop();
    await scene.ours.start();
    await waitUntil('the time to be over', async () => Date.now() > Date.parse(opened.until) + 200);
    expect(await statusNow()).toBe('active');
    const late = await scene.hostile.deliver([fact('late', 'evil-late'), fact('later', 'evil-later')]);
    await waitUntil('the database to shut it', async () => (await statusNow()) === 'revoked', { timeoutMs: 30_000, everyMs: 100 });
    const came = await scene.ours.sql("SELECT id FROM facts WHERE substr(entity, 1, 24) = 'stigmem://peer.test/late'");
    expect(came.map(({ id }) => id)).toEqual(late.slice(0, 1));
    expect(await recalled('evil-late')).not.toContain('evil-late');
    expect(await closedDoor(database, opened)).toBeUndefined();
    // Nobody answers there: the door is shut all the same, then the worker gives up.
    const worker = spawn(process.execPath, [join(repoRoot, 'bin/cordon.js'), 'host-worker'], {
      env: {
        PATH: process.env['PATH'],
        HOME: scene.dir,
        ...scene.ours.env,
        TEMPORAL_ADDRESS: '127.0.0.1:9',
        CORDON_EVIDENCE_DIR: scene.deps.evidenceDir,
      },
      stdio: 'ignore',
    });
    await once(worker, 'exit');
    expect(await closedDoor(database, opened)).toMatchObject({ by: 'overdue', arrived: 1, statuses: ['revoked'] });
    expect(await row()).toMatchObject({ pull_tenant: null });
  });
});
