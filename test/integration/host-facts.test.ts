import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import type { HostDatabase } from '../../src/host/database.ts';
import { countFacts, localSources, walkFacts, walkNeighbours, type HostFact } from '../../src/host/facts.ts';
import { readHostNode } from '../../src/host/schema.ts';
import { restoreFacts, suppressFacts } from '../../src/host/suppress.ts';
import { derivedFrom, recallersSince, writtenHereSince } from '../../src/host/traces.ts';
import { vanishing, vanishingPage } from '../../src/host/vanishing.ts';
import { assertFact } from '../../src/lab/federation.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { effectOf, hostScene, undoing, type HostScene } from '../helpers/host-scene.ts';
import type { Scene, Storage } from '../helpers/hostile-scene.ts';

// What the peer wrote, on the database of a node that runs and pulls all the while; what became of it is asked over HTTP.

vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });

describe.each<Storage>(['sqlite', 'postgres'])('on %s', (storage) => {
  let host: HostScene;
  let scene: Scene;
  let database: HostDatabase;
  beforeAll(async () => {
    host = await hostScene('host-facts', storage);
    ({ scene, database } = host);
  });
  afterAll(async () => host?.stop());

  it('the database is known by its last migration and by its node', async () => {
    expect(await readHostNode(database)).toMatchObject({ nodeId: scene.ours.nodeId });
  });

  describe('what a peer delivered', () => {
    it('is walked to its end in pages, each fact once, with when it came by our clock', async () => {
      const origin = { nodeIds: scene.peer.nodeIds, entityUris: [] };
      const found: HostFact[] = [];
      for await (const fact of walkFacts(database, origin, 7)) found.push(fact);
      const truth = await scene.ours.sql('SELECT id FROM facts WHERE received_from = ? ORDER BY id', [scene.peer.nodeId]);
      expect(found.map(({ id }) => id)).toEqual(truth.map(({ id }) => id));
      expect(await countFacts(database, origin)).toBe(truth.length);
      const ids = new Set(found.map(({ id }) => id));
      for (const bad of Object.entries(scene.bad).flatMap(([kind, list]) => (kind === 'forged' ? [] : list))) expect(ids).toContain(bad);
      for (const { arrived_at: at } of found) expect(Date.now() - Date.parse(at ?? '')).toBeLessThan(300_000);
      expect(await countFacts(database, { nodeIds: [], entityUris: [] })).toBe(0);
    });

    it('is more where it wrote here with a key of its own: with whose key and when, and nothing of other writers', async () => {
      const writer = 'stigmem://peer.test/agent/keyed';
      const origin = { nodeIds: scene.peer.nodeIds, entityUris: [] };
      const delivered = await countFacts(database, origin);
      const key = await scene.ours.issueKey({ entityUri: writer, permissions: ['read', 'write'] });
      const fact = {
        entity: 'stigmem://ours.test/svc/keyed',
        relation: 'memory:keyed',
        value: 'by a key',
        source: 'stigmem://ours.test/agent/x',
      };
      const id = await assertFact(scene.ours, fact, key);
      const all = { ...origin, writers: [writer] };
      expect([await countFacts(database, all), await countFacts(database, origin)]).toEqual([delivered + 1, delivered]);
      const found: HostFact[] = [];
      for await (const one of walkFacts(database, all)) found.push(one);
      expect(found.filter(({ written_by: by }) => by !== null)).toMatchObject([{ id, written_by: writer, received_from: null }]);
      expect(Math.abs(Date.now() - Date.parse(found.find((one) => one.id === id)?.arrived_at ?? ''))).toBeLessThan(60_000);
      const neighbours: string[] = [];
      for await (const one of walkNeighbours(database, all)) neighbours.push(one.id);
      expect(neighbours).not.toContain(id);
      expect(neighbours).toContain(scene.ourFact);
      expect(await localSources(database, [writer])).not.toContain('stigmem://ours.test/agent/x');
    });

    it('is suppressed: gone from facts and recall, ours shown again; and comes back as it was', async () => {
      const [shadow = ''] = scene.bad['shadow'] ?? [];
      const visible = async () => (await scene.node.agentFactsPage({ entity: 'stigmem://ours.test/svc/pay' })).facts.map(({ id }) => id);
      const recalled = async () =>
        (
          await scene.node.recall({ query: 'pay is served from evil-three', scope: 'company', min_confidence: 0, token_budget: 200_000 })
        ).facts.map(({ fact }) => fact.id);
      expect(await visible()).not.toContain(scene.ourFact);
      expect(await recalled()).toContain(shadow);
      const all = await scene.ours.sql('SELECT * FROM facts ORDER BY id');
      const suppress = effectOf('suppressFacts', 'suppress');
      const done = await suppressFacts(database, suppress, [shadow, 'no-such-fact']);
      expect(done).toEqual({ made: true, record: { suppressed: [{ id: shadow, before: null }], missing: ['no-such-fact'] } });
      expect(await visible()).toEqual([scene.ourFact]);
      expect(await recalled()).not.toContain(shadow);
      expect(await suppressFacts(database, suppress, [shadow])).toEqual({ ...done, made: false });
      // Nothing about any row of facts is different, in any column.
      expect(await scene.ours.sql('SELECT * FROM facts ORDER BY id')).toEqual(all);
      const back = await restoreFacts(database, undoing(suppress, 'restoreFacts'));
      expect(back.record).toEqual({ restored: [shadow], left: [], held: [] });
      expect(await visible()).not.toContain(scene.ourFact);
      expect(await scene.ours.sql('SELECT * FROM fact_validity_overrides WHERE fact_id = ?', [shadow])).toEqual([]);
    });
  });

  it('suppressed by two incidents stays until both let go, and what somebody changed since is left', async () => {
    const [first = '', second = ''] = scene.bad['burst'] ?? [];
    const [one, two] = [effectOf('suppressFacts', 'both', 'first'), effectOf('suppressFacts', 'both', 'second')];
    await scene.ours.exec(
      `INSERT INTO fact_validity_overrides (fact_id, valid_until, confidence, reason, updated_at, updated_by) VALUES ('${first}', '2098-01-01', 0.5, 'dana', '2026-01-01', 'dana')`,
    );
    const row = async (id: string) => (await scene.ours.sql('SELECT * FROM fact_validity_overrides WHERE fact_id = ?', [id]))[0];
    const before = await row(first);
    await suppressFacts(database, one, [first, second]);
    expect((await suppressFacts(database, two, [first])).record.suppressed).toMatchObject([
      { before: { valid_until: '2098-01-01', confidence: 0.5 } },
    ]);
    await scene.ours.exec(`UPDATE fact_validity_overrides SET updated_by = 'dana' WHERE fact_id = '${second}'`);
    expect((await restoreFacts(database, undoing(one, 'restoreFacts'))).record).toEqual({ restored: [], left: [second], held: [first] });
    expect(await row(first)).toMatchObject({ valid_until: '1970-01-01T00:00:00+00:00' });
    expect((await restoreFacts(database, undoing(two, 'restoreFacts'))).record).toEqual({ restored: [first], left: [], held: [] });
    expect(await row(first)).toEqual(before);
  });

  describe('who may have used a bad fact', () => {
    const since = new Date(Date.now() - 3_600_000).toISOString();
    const hourAhead = new Date(Date.now() + 3_600_000).toISOString();

    it('is asked as far as the node knows: who recalled in a scope and when, never which facts', async () => {
      const key = await scene.ours.issueKey({ entityUri: 'stigmem://ours.test/agent/asks', permissions: ['read'] });
      const ask = () => scene.ours.request('POST', '/v1/recall', { query: 'pay', scope: 'company', token_budget: 1_000 }, key);
      expect([(await ask()).status, (await ask()).status]).toEqual([200, 200]);
      const found = await recallersSince(database, ['company', 'public'], since);
      const asked = found.find(({ caller }) => caller === 'stigmem://ours.test/agent/asks');
      expect(asked).toMatchObject({ scope: 'company', times: 2 });
      expect(Date.parse(asked?.last ?? '')).toBeGreaterThanOrEqual(Date.parse(asked?.first ?? ''));
      expect(await recallersSince(database, ['company'], hourAhead)).toEqual([]);
      expect(await recallersSince(database, [], since)).toEqual([]);
    });

    it('shows in what was derived from it, and in what was written here on its entity afterwards', async () => {
      const [bad = ''] = scene.bad['shadow'] ?? [];
      const write = async (relation: string, more: object): Promise<string> => {
        const { status, body } = await scene.ours.request('POST', '/v1/facts', {
          entity: 'stigmem://ours.test/svc/derived',
          relation,
          value: { type: 'string', v: 'said' },
          source: scene.ours.entityUri,
          confidence: 1,
          scope: 'company',
          ...more,
        });
        expect(status).toBe(201);
        return z.object({ id: z.string() }).parse(body).id;
      };
      const derived = await write('memory:because', { derived_from: [{ fact_id: bad }] });
      const plain = await write('memory:plain', {});
      expect(await derivedFrom(database, new Set([bad]), 1)).toEqual([
        {
          id: derived,
          entity: 'stigmem://ours.test/svc/derived',
          relation: 'memory:because',
          scope: 'company',
          source: scene.ours.entityUri,
          confidence: 1,
          received_from: null,
          from: [bad],
        },
      ]);
      const here = (await writtenHereSince(database, ['stigmem://ours.test/svc/derived'], since)).map(({ id }) => id);
      expect(here.toSorted()).toEqual([derived, plain].toSorted());
      expect(await writtenHereSince(database, ['stigmem://ours.test/svc/derived'], hourAhead)).toEqual([]);
    });
  });

  it('what the node deletes by itself is read page by page, without what gives rights', async () => {
    const time = '2026-01-01T00:00:00+00:00';
    await scene.ours.exec(`
      INSERT INTO capability_tokens (id, token_json, issuer, subject, verb, object, issued_at, expiry, nonce, created_at)
        VALUES ('tok-1', '{"secret":1}', 'stigmem://ours.test', 'stigmem://peer.test', 'read', '*', '${time}', '${time}', '${'0'.repeat(64)}', '${time}');
      INSERT INTO subscriptions (id, subscriber_identity, target, on_change, delivery_address, created_at)
        VALUES ('sub-1', 'stigmem://ours.test/agent/x', 'company', 'webhook', 'http://127.0.0.1:9/hook', '${time}');
      INSERT INTO nonce_cache (nonce, peer_id, expires_at) VALUES ('n-1', 'p', '${time}'), ('n-2', 'p', '${time}'), ('n-3', 'p', '${time}');
      INSERT INTO subscription_events (id, subscription_id, event_type, payload, created_at, delivered_at, delivery_status)
        SELECT 'e-1', id, 'fact_asserted', '{"payload":1}', '${time}', '${time}', 'delivered' FROM subscriptions LIMIT 1`);
    const all: Record<string, string> = {};
    for (const kind of vanishing) {
      const rows: object[] = [];
      for (let after: string | undefined = ''; after !== undefined;) {
        const page: Awaited<ReturnType<typeof vanishingPage>> = await vanishingPage(database, kind, after, 2);
        rows.push(...page.rows);
        after = page.next;
      }
      all[kind] = JSON.stringify(rows);
    }
    for (const nonce of ['n-1', 'n-2', 'n-3']) expect(all['nonces']?.split(`"${nonce}"`)).toHaveLength(2);
    expect(all['deliveries']).toContain('"e-1"');
    expect(all['tokens']).toContain('"tok-1"');
    expect(Object.values(all).join()).not.toMatch(/secret|payload|0{64}/);
  });

  describe('SIGKILL', () => {
    /** Makes the change in a process of its own, killed so long after it has begun; gives what it said. */
    const run = async (incident: string, ids: readonly string[], killAfterMs: number): Promise<string> => {
      const where = storage === 'sqlite' ? scene.ours.dbPath : scene.ours.env['STIGMEM_PG_DSN'];
      const given = JSON.stringify({ kind: storage, where, incident, ids });
      const child = spawn(process.execPath, [join(repoRoot, 'test', 'helpers', 'host-op.mjs'), given], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let said = '';
      child.stdout.on('data', (text: Buffer) => {
        if (said === '' && killAfterMs < Infinity) setTimeout(() => child.kill('SIGKILL'), killAfterMs);
        said += String(text);
      });
      await once(child, 'close');
      return said;
    };
    const settled = async (incident: string) => {
      const rows = await scene.ours.sql('SELECT fact_id FROM fact_validity_overrides WHERE reason = ?', [incident]);
      const records = await scene.ours.sql('SELECT id FROM fact_audit_log WHERE entity_uri = ?', [incident]);
      return [rows.length, records.length];
    };

    it('at any moment leaves the whole change with its record, or neither; the next attempt makes it once', async () => {
      const all = await scene.ours.sql('SELECT id FROM facts WHERE received_from = ?', [scene.peer.nodeId]);
      const ids = all.map(({ id }) => String(id));
      const cutOff: string[] = [];
      // On a busy machine a process may end before it is killed: until some were not, at moments of all kinds.
      for (let n = 0; n < 40 && (n < 8 || cutOff.length === 0); n += 1) {
        const incident = `killed-${n}`;
        const said = await run(incident, ids, (n % 8) * 3);
        const now = await settled(incident);
        expect([
          [0, 0],
          [ids.length, 1],
        ]).toContainEqual(now);
        if (!said.includes('made')) cutOff.push(incident);
      }
      const [again = ''] = cutOff;
      await run(again, ids, Infinity);
      expect(await run(again, ids, Infinity)).toContain('was made');
      expect((await settled(again))[1]).toBe(1);
    });
  });
});
