import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { containActivities } from '../../activities/contain.ts';
import { createHostActivities } from '../../activities/host/index.ts';
import type { HostDatabase } from '../../src/host/database.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { storedFacts } from '../../src/lab/federation.ts';
import { hostileScene, incidentRef, runActivity, type Scene } from '../helpers/hostile-scene.ts';

// The host worker says that the door is shut, and over HTTP it does not read back: then HTTP has to shut it.

vi.setConfig({ testTimeout: 120_000, hookTimeout: 180_000 });

let scene: Scene;
let database: HostDatabase;
beforeAll(async () => {
  scene = await hostileScene('host-fallback', 2, { only: ['burst'] });
  database = openSqlite(scene.ours.dbPath);
});
afterAll(async () => {
  await database?.close();
  await scene?.stop();
});

const row = async () =>
  (await scene.ours.sql('SELECT status, ingest_tenant, pull_tenant FROM peers WHERE node_id = ?', [scene.peer.nodeId]))[0];
const untouched = { status: 'active', ingest_tenant: null, pull_tenant: null };

/** The host worker revokes the rows, and the step reads it back. */
async function shut(incident: string, over: { readonly readBack?: boolean; readonly mode?: 'drill' } = {}) {
  const { readBack = false, mode = 'live' } = over;
  const ref = incidentRef(scene, incident, { phase: 'contain', mode });
  const trust = { mode: 'relaxed', quarantineGarden: undefined };
  const deps = { database, evidenceDir: scene.deps.evidenceDir, trust, snapshot: undefined, promotionCommand: undefined };
  const worker = createHostActivities({
    ...deps,
    federation: { privateKey: undefined, graceHours: 168, peerAllow: ['loopback'] },
    fateOf: async () => 'open',
  });
  const host = await runActivity(worker.revokePeers, { ref, peer: scene.peer, readBack });
  const { fenceInbound, fenceOutbound } = containActivities(scene.deps);
  const input = { ref, peer: scene.peer, readBack, host };
  return [await runActivity(fenceInbound, input), await runActivity(fenceOutbound, input)] as const;
}

it('a row that somebody opens again at once is fenced over HTTP, both ways, and the fence holds', async () => {
  const before = (await storedFacts(scene.ours)).length;
  expect((await scene.hostile.pullFromUs()).length).toBeGreaterThan(0);
  await scene.ours.exec(
    "CREATE TRIGGER reopen AFTER UPDATE OF status ON peers WHEN new.status = 'revoked' BEGIN UPDATE peers SET status = 'active' WHERE id = new.id; END",
  );
  // Looking only, and a drill, change nothing, and do not say that it is shut.
  for (const over of [{ readBack: true }, { mode: 'drill' }] as const) {
    for (const step of await shut(`only ${Object.keys(over).join()}`, over))
      expect(step).toMatchObject({ outcome: 'unverified', way: 'host' });
    expect(await row()).toEqual(untouched);
  }
  for (const step of await shut('fallback')) expect(step).toMatchObject({ outcome: 'verified', way: 'http' });
  expect(await row()).toEqual({
    status: 'active',
    ingest_tenant: expect.stringMatching(/^cordon-[0-9a-f]{12}$/),
    pull_tenant: 'cordon-none',
  });
  await scene.hostile.deliver([{ entity: 'stigmem://ours.test/svc/late', relation: 'memory:x', value: 'behind the fence' }]);
  const pulls = (await scene.hostile.pullsSeen()).count;
  await expect.poll(async () => (await scene.hostile.pullsSeen()).count, { timeout: 20_000 }).toBeGreaterThan(pulls + 2);
  expect((await storedFacts(scene.ours)).length).toBe(before);
  expect(await scene.hostile.pullFromUs()).toEqual([]);
});

it('a row that reads back as revoked needs no fence over HTTP', async () => {
  await scene.ours.exec(
    `DROP TRIGGER reopen; UPDATE peers SET ingest_tenant = NULL, pull_tenant = NULL, status = 'active' WHERE node_id = '${scene.peer.nodeId}'`,
  );
  for (const step of await shut('door')) expect(step).toMatchObject({ outcome: 'verified', way: 'host' });
  expect(await row()).toEqual({ ...untouched, status: 'revoked' });
});
