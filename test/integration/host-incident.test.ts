import type { WorkflowHandle } from '@temporalio/client';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { PlanAnswer, Status } from '../../src/contract/schemas.ts';
import { listIncidentFolders } from '../../src/evidence/find.ts';
import { verifyFolder } from '../../src/evidence/verify.ts';
import type { PeerCompromise } from '../../workflows/index.ts';
import { hostIncident, type HostIncident } from '../helpers/host-incident.ts';
import type { Scene, Storage } from '../helpers/hostile-scene.ts';

// The whole incident with a host worker beside a real node, as processes, on both kinds of database.

vi.setConfig({ testTimeout: 240_000, hookTimeout: 300_000 });

const stepOf = ({ steps }: Status, name: string) => steps.find((step) => step.name === name);

describe.each<Storage>(['sqlite', 'postgres'])('on %s', (storage) => {
  let host: HostIncident;
  let scene: Scene;
  let incident: WorkflowHandle<typeof PeerCompromise>;
  let atGate: Status;
  let plan: PlanAnswer;
  let peerKey = '';
  let before: {
    readonly peers: unknown;
    readonly facts: unknown;
    readonly keys: unknown;
    readonly key: number;
    readonly shown: readonly string[];
  };
  let entity = '';

  const peersKept = () => scene.ours.sql('SELECT id, node_id, status FROM peers ORDER BY id');
  const factsOf = (ids: readonly string[]) =>
    scene.ours.sql(`SELECT * FROM facts WHERE id IN (${ids.map(() => '?').join(', ')}) ORDER BY id`, [...ids]);
  const keys = () => scene.ours.sql('SELECT id, entity_uri, expires_at FROM api_keys ORDER BY id');
  const canRead = async (key: string): Promise<number> =>
    (await fetch(`${scene.ours.url}/v1/facts?limit=1`, { headers: { authorization: `Bearer ${key}` } })).status;
  const shown = async (): Promise<string[]> =>
    (await scene.node.agentFactsPage({ entity: 'stigmem://ours.test/svc/pay', scope: 'company', limit: 500 })).facts.map(({ id }) => id);

  beforeAll(async () => {
    host = await hostIncident(`host-incident-${storage}`, { storage });
    ({ scene } = host);
    const [row] = await scene.ours.sql('SELECT entity_uri FROM peers WHERE node_id = ?', [scene.peer.nodeId]);
    entity = String(row?.['entity_uri'] ?? '');
    peerKey = await scene.ours.issueKey({ entityUri: entity, permissions: ['read'] });
    before = {
      peers: await peersKept(),
      facts: await factsOf(scene.benign),
      keys: await keys(),
      key: await canRead(peerKey),
      shown: await shown(),
    };
    incident = await host.start('peer-compromise:host');
    atGate = await host.until(incident, 'gate retract', ({ waitingFor }) => waitingFor.some((one) => one.kind === 'gate'));
    plan = await host.plan(incident);
  });
  afterAll(async () => host?.stop());

  it('contains by the strongest way, each step read back, no step left to people but what the node has no lever for', async () => {
    expect(before.key).toBe(200);
    for (const name of ['fenceInbound', 'fenceOutbound', 'revokeTokens', 'revokeKeys'])
      expect(stepOf(atGate, name), name).toMatchObject({ outcome: 'verified', way: 'host' });
    expect(stepOf(atGate, 'blockRelays')).toMatchObject({ outcome: 'verified', way: 'http' });
    expect(stepOf(atGate, 'lowerTrust')).toMatchObject({ outcome: 'unavailable' });
    const rows = await scene.ours.sql('SELECT status, ingest_tenant FROM peers WHERE node_id = ?', [scene.peer.nodeId]);
    expect(rows).toEqual([{ status: 'revoked', ingest_tenant: null }]);
    expect(await canRead(peerKey)).toBe(401);
    expect(atGate.residual.map(({ what }) => what)).not.toContain('relays');
  });

  it('shows what it found on the host, and that all facts of the peer were listed', async () => {
    const coverage = new Map(atGate.coverage.map((one) => [one.what, one]));
    expect(coverage.get('host worker of the node')).toMatchObject({ seen: 1, complete: true });
    const [count] = await scene.ours.sql('SELECT COUNT(*) AS n FROM facts WHERE received_from = ? OR origin_node_id = ?', [
      scene.peer.nodeId,
      scene.peer.nodeId,
    ]);
    expect(coverage.get('facts of the peer')).toMatchObject({ seen: Number(count?.['n']), complete: true });
    expect(coverage.get('peers rows of the same attacker')).toMatchObject({ complete: true });
    const copy = coverage.get("signed copy of the whole node ('stigmem snapshot')");
    expect(copy).toMatchObject(storage === 'sqlite' ? { seen: 1, complete: true } : { seen: 0, complete: false });
    if (storage === 'sqlite') expect(readdirSync(join(scene.dir, 'snapshots'))).toHaveLength(1);
  });

  it('says that it is well', async () => {
    expect(await host.health()).toBe(200);
  });

  it('proposes to suppress what is bad, with nothing held, and to keep what is benign', () => {
    const actions = new Map(plan.items?.map(({ id, action }) => [id, action]));
    const bad = Object.entries(scene.bad).flatMap(([kind, ids]) => (kind === 'forged' ? [] : ids));
    expect(bad.map((id) => actions.get(id)).filter((action) => action !== 'suppress' && action !== 'reject')).toEqual([]);
    expect(scene.benign.map((id) => actions.get(id))).toEqual(scene.benign.map(() => 'keep'));
    expect(plan.counts['hold']).toBeUndefined();
  });

  it('waits with what was approved for a host worker that has died, and goes on when it is back', async () => {
    await host.hostWorker.kill();
    await host.approve(incident, 'retract');
    // The server still takes it for one that polls; the plan was made in its way, so without it the plan is another.
    const stuck = await host.until(incident, 'stuck or asked anew', ({ waitingFor, steps }) => {
      const isAsked = waitingFor.some((one) => one.kind === 'gate' && one.gate === 'retract' && one.opening > 1);
      return (
        isAsked ||
        steps.some(({ name }) => name === 'undoFacts') ||
        waitingFor.some((one) => one.kind === 'step' && one.step === 'undoFacts')
      );
    });
    expect(stepOf(stuck, 'undoFacts')).toBeUndefined();
    await host.hostWorker.start();
  });

  it('undoes what is approved: gone from facts and direct recall, ours shown again, benign facts as they were', async () => {
    const asked = ({ waitingFor }: Status) => waitingFor.find((one) => one.kind === 'gate' && one.gate === 'retract');
    let done = await host.until(incident, 'undone, or asked anew', (now) => now.phase === 'rotate' || asked(now) !== undefined);
    // What was asked anew without a host worker is asked once more in its way now that it is back.
    for (let times = 0; done.phase !== 'rotate' && times < 3; times += 1) {
      const before = JSON.stringify(asked(done));
      await host.approve(incident, 'retract');
      done = await host.until(incident, 'rotate, or asked anew', (now) => {
        const again = asked(now);
        return now.phase === 'rotate' || (again !== undefined && JSON.stringify(again) !== before);
      });
    }
    expect(done.phase).toBe('rotate');
    expect(stepOf(done, 'undoFacts')).toMatchObject({ outcome: 'verified' });
    expect(before.shown).not.toContain(scene.ourFact);
    expect(await shown()).toContain(scene.ourFact);
    expect(await factsOf(scene.benign)).toEqual(before.facts);
    expect(done.residual.filter(({ what }) => /answers|default query|quarantine/.test(what) && !what.startsWith('facts of ours'))).toEqual(
      [],
    );
    expect(stepOf(done, 'verifyUndone')).toMatchObject({ outcome: 'verified' });
  });

  it('a false alarm gives everything back as it was', async () => {
    const closed = await host.close(incident, 'dismissed');
    expect(stepOf(closed, 'restoreTrust')).toMatchObject({ outcome: 'verified', way: 'host' });
    expect(stepOf(closed, 'liftFences')).toMatchObject({ outcome: 'verified', way: 'host' });
    expect(await peersKept()).toEqual(before.peers);
    expect(await keys()).toEqual(before.keys);
    expect(await canRead(peerKey)).toBe(200);
    // Our own counter-statements stay, expired: the node is append-only.
    const stands =
      'SELECT o.fact_id FROM fact_validity_overrides o JOIN facts f ON f.id = o.fact_id WHERE o.updated_by = ? AND f.received_from IS NOT NULL';
    expect(await scene.ours.sql(stands, ['cordon host-worker'])).toEqual([]);
    expect(closed.residual.map(({ what }) => what)).toContain('counter-statements of ours');
    expect(await shown()).not.toContain(scene.ourFact);
  });

  it('the evidence verifies, and no secret of either worker is in it or in the logs', async () => {
    const folders = await listIncidentFolders(scene.deps.evidenceDir);
    expect(folders).toHaveLength(1);
    for (const { dir } of folders) expect(await verifyFolder(dir)).toMatchObject({ ok: true });
    const files = readdirSync(scene.deps.evidenceDir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const sealed = files.map((file) => readFileSync(join(file.parentPath, file.name), 'utf8'));
    expect(sealed.join()).toContain('stigmem:node:');
    const dsn = storage === 'sqlite' ? [] : [scene.ours.env['STIGMEM_PG_DSN'] ?? ''];
    for (const secret of [scene.ours.adminKey, peerKey, ...dsn]) {
      expect(secret.length).toBeGreaterThan(10);
      expect(host.logs()).not.toContain(secret);
      expect(sealed.filter((text) => text.includes(secret))).toEqual([]);
    }
  });
});
