import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { evidenceOf, type Deps } from '../../activities/deps.ts';
import { findCollection, readCollection } from '../../activities/facts/collection.ts';
import { readPlan } from '../../activities/facts/plans.ts';
import { createHostActivities, type HostActivities } from '../../activities/host/index.ts';
import { investigateActivities } from '../../activities/investigate.ts';
import { recoverActivities } from '../../activities/recover.ts';
import { defaultPolicy } from '../../src/contract/policy.ts';
import type { JudgedFact } from '../../src/contract/schemas.ts';
import type { IncidentRef, PeerRef, PlanRef, StepResult } from '../../src/contract/steps.ts';
import type { HostDatabase } from '../../src/host/database.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { assertFact, federate, waitForFact } from '../../src/lab/federation.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { hostileScene, incidentRef, runActivity, type Scene } from '../helpers/hostile-scene.ts';

// Bad facts of every kind on a real node: what the plan says of each, that none of them is recalled once it is undone, and
// that what is not the peer's is as it was.

vi.setConfig({ testTimeout: 120_000, hookTimeout: 240_000 });

const entityOf = (kind: string): string => `stigmem://ours.test/svc/${kind}`;
const relation = 'memory:endpoint';
const poison = (kind: string): string => `${kind} is served from evil-${kind}`;
const kinds = ['derived', 'confirmed', 'both', 'expired', 'swept', 'contradicted', 'retracted', 'relayed'] as const;
const asked = [...kinds, 'keyed'];

let scene: Scene;
let innocent: StigmemNode;
let database: HostDatabase;
let host: HostActivities;
let peer: PeerRef;
let ref: IncidentRef;
const bad: Record<string, string> = {};
const others: Record<string, string> = {};
let plan: PlanRef;
let items: Map<string, JudgedFact>;
let collected: StepResult;
let rowsBefore: readonly object[];
let toldBefore: Readonly<Record<string, readonly string[]>>;

const deps = (): Deps => scene.deps;
const item = (id: string | undefined): JudgedFact | undefined => items.get(id ?? '');
const notTheirs = () => [...Object.values(others), ...scene.benign];
const rows = (ids: readonly string[]) =>
  scene.ours.sql(`SELECT * FROM facts WHERE id IN (${ids.map(() => '?').join(', ')}) ORDER BY id`, ids);
const write = async (body: object, key = scene.ours.adminKey): Promise<string> => {
  const whole = { relation, source: scene.ours.entityUri, scope: 'company', confidence: 0.9, ...body };
  const answer = await scene.ours.request('POST', '/v1/facts', whole, key);
  expect(answer.status, JSON.stringify(answer.body)).toBe(201);
  return String((answer.body as { id: unknown }).id);
};
/** What an ordinary agent gets by the poison's own words and by words that know nothing of it: fact ids, and the texts of cards. */
const recall = async (kind: string) => {
  // Recall gives a card only once somebody has asked for it since the last write on its entity.
  const card = await scene.ours.request('GET', `/v1/cards/${encodeURIComponent(entityOf(kind))}?scope=company`);
  expect([200, 404]).toContain(card.status);
  const answers = await Promise.all(
    [poison(kind), `${kind} endpoint`, `team red owns ${kind}`].map((query) =>
      scene.node.recall({ query, scope: 'company', min_confidence: 0, token_budget: 200_000, limit: 500 }),
    ),
  );
  const facts = answers.flatMap(({ facts: all }) => all);
  return {
    ids: new Set(facts.filter(({ from_card: isCard }) => !isCard).map(({ fact }) => fact.id)),
    cards: facts.filter(({ from_card: isCard }) => isCard).map(({ fact }) => String(fact.value.v)),
  };
};
/** How agents are told of it: as the fact, or by its entity's card. */
const told = async (kind: string): Promise<string[]> => {
  const { ids, cards } = await recall(kind);
  const theirs = Object.values(bad).some((id) => ids.has(id)) ? ['fact'] : [];
  return [...theirs, ...(cards.some((text) => text.includes(`evil-${kind}`)) ? ['card'] : [])];
};
const shown = async (kind: string): Promise<string[]> =>
  (await scene.node.agentFactsPage({ entity: entityOf(kind), scope: 'company', limit: 500 })).facts.map(({ id }) => id);

beforeAll(async () => {
  scene = await hostileScene('fact-kinds', 3, { only: ['instruction', 'burst'] });
  const { ours, hostile } = scene;
  peer = { ...scene.peer, entityUri: 'stigmem://peer.test' };
  ref = incidentRef(scene, 'kinds');
  innocent = await startStigmemNode({ name: 'innocent', dir: join(scene.dir, 'innocent') });
  await federate(ours, innocent);
  const delivered = await hostile.deliver(
    kinds.map((kind) => ({
      entity: entityOf(kind),
      relation,
      value: poison(kind),
      ...(kind === 'expired' ? { validUntil: '2026-01-01T00:00:00+00:00' } : {}),
    })),
  );
  for (const [at, kind] of kinds.entries()) bad[kind] = delivered[at] ?? '';
  [bad['sibling'] = ''] = await hostile.deliver([
    { entity: entityOf('contradicted'), relation, value: 'contradicted is served from evil-sibling' },
  ]);
  await hostile.settled();
  others['confirmed'] = await assertFact(ours, { entity: entityOf('confirmed'), relation, value: poison('confirmed') });
  // Something that lives on the same entity has recall ask for its card.
  for (const kind of ['expired', 'swept'])
    others[`${kind} owner`] = await write({
      entity: entityOf(kind),
      relation: 'memory:owner',
      value: { type: 'text', v: `team red owns ${kind}` },
    });
  // As the node's own decay sweep does it, which whoever may write can ask for.
  await ours.exec(
    `INSERT INTO fact_validity_overrides (fact_id, valid_until, reason, updated_at, updated_by) VALUES ('${bad['swept'] ?? ''}', '2026-01-01T00:00:00+00:00', 'sweep', '2026-01-01', 'decay')`,
  );
  others['both'] = await assertFact(innocent, { entity: entityOf('both'), relation, value: poison('both') });
  await waitForFact(ours, ({ id }) => id === others['both']);
  others['derived'] = await write({
    entity: entityOf('made'),
    value: { type: 'text', v: 'made of what derived says' },
    derived_from: [{ fact_id: bad['derived'] }],
  });
  others['retraction'] = await write({
    entity: entityOf('retracted'),
    value: { type: 'text', v: 'retracted' },
    confidence: 0,
    derived_from: [{ fact_id: bad['retracted'] }],
  });
  // With relay on, a row that another peer brought first names that one; nothing else about it differs.
  const columns = (await ours.sql('SELECT name FROM pragma_table_info(?)', ['facts'])).map(({ name }) => String(name));
  const copied = columns.map((name) =>
    name === 'id' ? "'relayed-by-innocent'" : name === 'received_from' ? `'${innocent.nodeId}'` : name === 'cid' ? 'NULL' : name,
  );
  await ours.exec(`INSERT INTO facts (${columns.join(', ')}) SELECT ${copied.join(', ')} FROM facts WHERE id = '${bad['relayed'] ?? ''}'`);
  bad['relayedRow'] = 'relayed-by-innocent';
  const key = await ours.issueKey({ entityUri: peer.entityUri, permissions: ['read', 'write'] });
  bad['byKey'] = await assertFact(
    ours,
    { entity: entityOf('keyed'), relation, value: poison('keyed'), source: 'stigmem://ours.test/agent/x' },
    key,
  );
  await ours.exec(`
    INSERT INTO tombstones (id, entity_uri, scope, signed_by, signature, created_at, received_from) VALUES
      ('hides-ours', '${entityOf('pay')}', '*', '${peer.entityUri}', 'x', '2026-11-23T00:00:00Z', NULL),
      ('hides-its-own', 'stigmem://peer.test/person/x', '*', '${peer.entityUri}', 'x', '2026-11-23T00:00:00Z', '${peer.nodeId}');
    INSERT INTO fact_audit_log (id, fact_id, event_type, entity_uri, source, ts, tenant_id)
      VALUES ('brought', 'hides-ours', 'tombstone_federation_ingested', 'x', 'x', '2026-11-23', 'default')`);
  database = openSqlite(ours.dbPath);
  const trust = { mode: 'relaxed', quarantineGarden: undefined };
  const none = {
    snapshot: undefined,
    promotionCommand: undefined,
    federation: { privateKey: undefined, graceHours: 168, peerAllow: ['loopback'] },
    fateOf: async () => 'open' as const,
  };
  host = createHostActivities({ database, evidenceDir: deps().evidenceDir, trust, ...none });
  rowsBefore = await rows(notTheirs());
  toldBefore = Object.fromEntries(await Promise.all(asked.map(async (kind) => [kind, await told(kind)] as const)));

  const { evidenceId: listing } = await runActivity(host.listFacts, { ref, peer, ours: ours.entityUri });
  const investigate = investigateActivities(deps());
  collected = await runActivity(investigate.collectFacts, { ref, peer, listing });
  const judging = { ref, peer, policy: defaultPolicy, firstBad: null, host: true, recollect: false };
  ({ plan } = await runActivity(investigate.assess, judging));
  items = new Map((await readPlan(deps(), ref, plan)).map((one) => [one.id, one]));
});
afterAll(async () => {
  await database?.close();
  await innocent?.stop();
  await scene?.stop();
});

describe('the plan', () => {
  it.each([
    ['derived', 'othersDerived'],
    ['confirmed', 'confirmedHere'],
    ['both', 'saidByOtherPeer'],
    ['expired', 'expired'],
    ['swept', 'expired'],
    ['contradicted', 'contradicted'],
    ['sibling', 'contradicted'],
    ['retracted', 'contradicted'],
    ['relayedRow', 'twoPeers'],
    ['byKey', 'writtenWithItsKey'],
  ])('suppresses %s, and says %s', (kind, rule) => {
    expect(item(bad[kind])).toMatchObject({ action: 'suppress', way: 'host', rule: expect.stringContaining(rule) });
  });

  it('names who else is concerned, by what the node knows', () => {
    expect(item(bad['derived'])?.reason).toContain(others['derived']);
    expect(item(bad['confirmed'])?.reason).toContain(others['confirmed']);
    expect(item(bad['both'])?.reason).toContain(innocent.nodeId);
    expect(item(bad['relayedRow'])?.reason).toContain(innocent.nodeId);
    expect(item(bad['relayedRow'])?.reason).toContain(scene.peer.nodeId);
    expect(item(bad['retracted'])?.reason).toContain(others['retraction']);
    expect(item(bad['byKey'])?.reason).toContain(peer.entityUri);
  });

  it('holds what was derived for its owner, rejects what waits in quarantine, keeps what is benign, and has nothing else of others', () => {
    expect(item(others['derived'])).toMatchObject({ action: 'hold', rule: 'derivedFromBad', derivedFrom: bad['derived'] });
    for (const id of scene.bad['instruction'] ?? [])
      expect(item(id)).toMatchObject({ action: 'reject', rule: expect.stringContaining('inQuarantine') });
    for (const id of scene.benign) expect(item(id)).toMatchObject({ action: 'keep', way: 'none', rule: 'closeToFirstSuspicious' });
    for (const kind of ['confirmed', 'both', 'retraction']) expect(item(others[kind])).toBeUndefined();
  });

  it('lifts the tombstone that hides an entity of ours, and leaves the peer what is its own', () => {
    expect(item('hides-ours')).toMatchObject({ action: 'lift', way: 'host', rule: 'tombstone' });
    expect(item('hides-its-own')).toMatchObject({ action: 'keep' });
    expect(plan.counts).toMatchObject({ lift: 1 });
  });

  it('is made of all there is: what its keys wrote and its tombstones are counted', () => {
    const coverage = new Map(collected.coverage?.map((one) => [one.what, one]));
    expect(coverage.get('facts written here with an API key issued to the peer')).toMatchObject({ seen: 1, complete: true });
    expect(coverage.get('tombstones of the peer')).toMatchObject({ seen: 2, complete: true });
  });

  it('is the same over HTTP alone, but for what only the host can do: an expired one and one that others share are held', async () => {
    const investigate = investigateActivities(deps());
    const alone = { ...ref, incident: 'kinds-http', firstRun: 'first-kinds-http' };
    const { coverage } = await runActivity(investigate.collectFacts, { ref: alone, peer });
    expect(coverage).toContainEqual(expect.objectContaining({ what: 'tombstones of the peer', seen: 0, complete: false }));
    const { plan: overHttp } = await runActivity(investigate.assess, {
      ref: alone,
      peer,
      policy: defaultPolicy,
      firstBad: null,
      recollect: false,
    });
    const http = new Map((await readPlan(deps(), alone, overHttp)).map((one) => [one.id, one]));
    for (const kind of ['derived', 'contradicted', 'byKey']) expect(http.get(bad[kind] ?? ''), kind).toMatchObject({ action: 'retract' });
    for (const kind of ['confirmed', 'both', 'expired', 'swept', 'retracted'])
      expect(http.get(bad[kind] ?? ''), kind).toMatchObject({ action: 'hold' });
    for (const id of scene.bad['instruction'] ?? []) expect(http.get(id)).toMatchObject({ action: 'reject' });
    for (const [id, { rule, contentHash }] of http) {
      expect(items.get(id)?.rule, id).toBe(rule);
      // Over HTTP an override's end stands for the fact's own, and what waits in quarantine shows no value.
      if (id !== bad['swept'] && !(scene.bad['instruction'] ?? []).includes(id)) expect(items.get(id)?.contentHash, id).toBe(contentHash);
    }
    const known = await readCollection(await evidenceOf(deps(), alone), (await findCollection(deps(), alone)) ?? '');
    expect([...known.localSources]).not.toContain('stigmem://ours.test/agent/x');
  });
});

describe('undone', () => {
  let verified: StepResult;
  let undone: StepResult;
  it('acts on what was approved in this very run, each item once, and waits with HTTP until the host has done its part', async () => {
    const at = { ref: { ...ref, phase: 'retract' as const }, plan, approvedInRun: 'run-1' };
    await expect(runActivity(host.liftTombstones, { ...at, peer, approvedInRun: 'run-0' })).rejects.toMatchObject({
      type: 'PreconditionChanged',
    });
    expect(await scene.ours.sql('SELECT id FROM tombstone_revocations')).toEqual([]);
    const recover = recoverActivities(deps());
    await runActivity(host.suppressFacts, { ...at, action: 'suppress' as const });
    await expect(runActivity(recover.undoFacts, { ...at, from: 0 })).rejects.toMatchObject({ type: 'HostUnavailable' });
    for (let times = 0; times < 2; times += 1)
      expect(await runActivity(host.liftTombstones, { ...at, peer })).toMatchObject({
        done: 1,
        detail: '1 of 1 tombstones lifted on the host, read back',
      });
    undone = await runActivity(recover.undoFacts, { ...at, from: 0 });
    await runActivity(host.suppressFacts, { ...at, action: 'reject' as const });
    await runActivity(host.coverCards, at);
    verified = await runActivity(recover.verifyUndone, { ref: at.ref, peer, policy: defaultPolicy });
  });

  it('no bad fact of any kind is recalled by an ordinary agent, by its own words or by benign ones; before, they were', async () => {
    // Past its own end nothing told of it; what a sweep had ended stood on the card of its entity still.
    expect(toldBefore).toMatchObject({ expired: [], swept: ['card'] });
    for (const kind of asked) if (kind !== 'expired') expect(toldBefore[kind], kind).not.toEqual([]);
    for (const kind of asked) expect(await told(kind), kind).toEqual([]);
  });

  it('what others say stands as it was, row for row, and is shown and recalled again', async () => {
    expect(await rows(notTheirs())).toEqual(rowsBefore);
    for (const kind of ['confirmed', 'both'] as const) {
      expect(await shown(kind)).toEqual([others[kind]]);
      expect((await recall(kind)).ids).toContain(others[kind]);
    }
    expect(await shown('made')).toEqual([others['derived']]);
  });

  it('says what stays: what was derived, and what others say as well', () => {
    expect(undone).toMatchObject({ outcome: 'verified', way: 'host' });
    expect(undone.residual).toEqual([expect.objectContaining({ what: 'facts of others that were derived from bad ones', count: 1 })]);
    expect(verified.residual).toEqual([expect.objectContaining({ what: 'undone facts that others say as well', count: 2 })]);
  });

  it('a false alarm lets the tombstone count again, and shows what was suppressed', async () => {
    const counts = () =>
      scene.ours.sql(
        'SELECT t.id FROM tombstones t WHERE NOT EXISTS (SELECT 1 FROM tombstone_revocations r WHERE r.tombstone_id = t.id) ORDER BY id',
      );
    expect(await counts()).toEqual([{ id: 'hides-its-own' }]);
    const restore = { ref: { ...ref, phase: 'restore' as const }, approvedInRun: 'run-1' };
    const look = await runActivity(host.restoreOnHost, { ...restore, readBack: true });
    expect(look.residual).toMatchObject([{ what: 'changes on the host', count: 3 }]);
    const done = await runActivity(host.restoreOnHost, { ...restore, readBack: false });
    expect(done.detail).toContain('1 tombstones count again');
    expect(await counts()).toEqual([{ id: 'hides-its-own' }, { id: 'hides-ours' }]);
    expect(await shown('confirmed')).not.toContain(others['confirmed']);
  });
});
