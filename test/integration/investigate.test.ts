import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { investigateActivities } from '../../activities/investigate.ts';
import { readPlan } from '../../activities/facts/plans.ts';
import { defaultPolicy } from '../../src/contract/policy.ts';
import type { JudgedFact } from '../../src/contract/schemas.ts';
import type { IncidentRef, PlanRef } from '../../src/contract/steps.ts';
import { hostileScene, incidentRef, runActivity, type Scene } from '../helpers/hostile-scene.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });

let scene: Scene;
let acts: ReturnType<typeof investigateActivities>;
let ref: IncidentRef;
let plan: PlanRef;
let facts: Map<string, JudgedFact>;
const policy = defaultPolicy;

beforeAll(async () => {
  scene = await hostileScene('investigate');
  acts = investigateActivities(scene.deps);
  ref = incidentRef(scene, 'investigate');
});
afterAll(async () => scene?.stop());

const assess = async (over: Partial<Parameters<typeof acts.assess>[0]> = {}) =>
  runActivity(acts.assess, { ref, peer: scene.peer, policy, firstBad: null, recollect: false, ...over });
const load = async (of: PlanRef, under = ref) => new Map((await readPlan(scene.deps, under, of)).map((fact) => [fact.id, fact]));
const actionsOf = (kind: string) => (scene.bad[kind] ?? []).map((id) => facts.get(id)?.action);

describe('collectFacts and assess', () => {
  it('find everything the peer delivered, by what our node stamped', async () => {
    const collected = await runActivity(acts.collectFacts, { ref, peer: scene.peer });
    expect(collected.outcome).toBe('verified');
    const assessed = await assess();
    plan = assessed.plan;
    facts = await load(plan);
    const delivered = [...scene.benign, ...Object.values(scene.bad).flat()];
    expect([...facts.keys()].sort()).toEqual(delivered.sort());
    expect(assessed.plan.total).toBe(delivered.length);
    expect(plan.items).toHaveLength(delivered.length);
    expect(assessed.firstSuspicious?.from).toBe('arrival');
  });

  it('keep the benign facts of the peer', () => {
    expect(scene.benign.map((id) => facts.get(id)?.action)).toEqual(['keep', 'keep', 'keep']);
    expect(facts.get(scene.benign[0] ?? '')?.reason).toContain('benign');
  });

  it.each([
    ['foreignSource', 'retract'],
    ['neverGranted', 'retract'],
    ['impossibleTime', 'retract'],
    ['instruction', 'reject'],
    ['agentControl', 'retract'],
    ['shadow', 'hold'],
    ['unnormalised', 'hold'],
    ['forged', 'retract'],
    ['burst', 'retract'],
  ])('propose for %s: %s', (kind, action) => {
    expect(new Set(actionsOf(kind))).toEqual(new Set([action]));
  });

  it('say of a held fact what it hides, and what to do on the host', () => {
    const held = facts.get(scene.bad['shadow']?.[0] ?? '');
    expect(held?.ours).toContain(scene.ourFact);
    expect(held?.ours).toContain('1 hidden');
    expect(held?.reason).toContain('fact_validity_overrides');
  });

  it('judge what is sealed again without asking the node, and to the same plan', async () => {
    expect((await assess()).plan.planHash).toBe(plan.planHash);
    expect((await assess({ recollect: true })).plan.planHash).toBe(plan.planHash);
  });

  it('say who may have used it as far as the node knows, and that the rest is not knowable', async () => {
    const { coverage } = await runActivity(acts.collectFacts, { ref, peer: scene.peer });
    expect(coverage?.find(({ what }) => what.startsWith('callers'))?.why).toContain('not knowable');
    expect(coverage?.find(({ what }) => what === 'facts of the peer')?.complete).toBe(true);
  });

  it('do not fall over without a peer', async () => {
    const other = incidentRef(scene, 'no-peer');
    expect((await runActivity(acts.collectFacts, { ref: other, peer: null })).detail).toContain('0 facts');
    expect((await assess({ ref: other, peer: null })).plan.total).toBe(0);
  });
});

describe('readPeer', () => {
  const read = async (peer = scene.peer) => runActivity(acts.readPeer, { ref, peer });

  it('believes an entity URI that nothing speaks against', async () => {
    const asked = await read();
    expect(asked).toMatchObject({ outcome: 'verified', entityUri: scene.hostile.node.entityUri });
    expect(asked.detail).toMatch(/key sha256:[0-9a-f]{64}/);
  });

  it('does not believe one that differs from what our node has', async () => {
    const asked = await read({ ...scene.peer, entityUri: 'stigmem://known.test' });
    expect(asked).toMatchObject({ outcome: 'unverified', entityUri: 'stigmem://known.test' });
  });

  it.each(['otherNode', 'garbage', 'huge'] as const)('ends unverified and does not fail when the peer answers %s', async (mode) => {
    await scene.hostile.setWellKnown(mode);
    expect(await read()).toMatchObject({ outcome: 'unverified', entityUri: '' });
    await scene.hostile.setWellKnown('normal');
  });

  it('does not ask an address that is not allowed', async () => {
    const closed = investigateActivities({ ...scene.deps, peerAllow: [] });
    const asked = await runActivity(closed.readPeer, { ref, peer: scene.peer });
    expect(asked.outcome).toBe('unverified');
    expect(asked.detail).toContain('not a public address');
  });
});

describe('narrowPlan', () => {
  const narrow = async (ids: readonly string[]) =>
    runActivity(
      acts.narrowPlan,
      { ref, plan, keep: ids.map((factId) => ({ factId, justification: 'looked at it' })), by: 'alice' },
      { runId: 'run-7' },
    );

  it('keeps a fact with justification and name, in a new plan', async () => {
    const id = scene.bad['agentControl']?.[0] ?? '';
    const narrowed = await narrow([id]);
    expect(narrowed.run).toBe('run-7');
    expect(narrowed.plan?.planHash).not.toBe(plan.planHash);
    const after = narrowed.plan === null ? undefined : (await load(narrowed.plan)).get(id);
    expect(after).toMatchObject({ action: 'keep', justification: 'looked at it (kept by alice)' });
  });

  it('refuses ids that are unknown or kept already', async () => {
    const kept = scene.benign[0] ?? '';
    expect(await narrow(['nobody', kept])).toMatchObject({ plan: null, unknown: ['nobody', kept] });
  });
});

describe('remakePlan', () => {
  const remake = async (approved: PlanRef) => runActivity(acts.remakePlan, { ref, peer: scene.peer, policy, firstBad: null, approved });

  it('lets everything that is unchanged go ahead, and asks nothing', async () => {
    const remade = await remake(plan);
    expect(remade.go.planHash).toBe(plan.planHash);
    expect(remade.next).toBeNull();
  });

  it('asks anew about what came after the cut, and carries over what people kept', async () => {
    const kept = scene.bad['agentControl']?.[0] ?? '';
    const narrowed = await runActivity(acts.narrowPlan, { ref, plan, keep: [{ factId: kept, justification: 'ours' }], by: 'alice' });
    if (narrowed.plan === null) throw new Error('expected a plan');
    const [late] = await scene.hostile.deliver([
      { entity: 'stigmem://ours.test/svc/late', relation: 'memory:note', value: 'late poison', scope: 'team' },
    ]);
    await scene.hostile.settled();
    const remade = await remake(narrowed.plan);
    expect(remade.go.planHash).toBe(narrowed.plan.planHash);
    if (remade.next === null) throw new Error('expected a next plan');
    const next = await load(remade.next);
    expect([...next.keys()].sort()).toEqual([kept, late].sort());
    expect(next.get(kept)?.justification).toBe('ours (kept by alice)');
    expect(next.get(late ?? '')?.action).toBe('retract');
  });

  it('does not act on a fact whose state changed since', async () => {
    const id = scene.bad['instruction']?.[0] ?? '';
    expect((await scene.ours.request('POST', `/v1/quarantine/${id}/admit?reason=test`)).status).toBe(200);
    const remade = await remake(plan);
    expect((await load(remade.go)).has(id)).toBe(false);
    if (remade.next === null) throw new Error('expected a next plan');
    const changed = (await load(remade.next)).get(id);
    expect(changed?.rule).toContain('promotedFromQuarantine');
    expect(changed?.evidence.length).toBeGreaterThan(1);
  });
});

describe('a fact that makes the node fail on whatever would show it', () => {
  it('stops nobody: the rest is collected and judged, and the gap is said', async () => {
    await scene.hostile.deliver([{ entity: 'stigmem://ours.test/svc/blind', relation: 'memory:note', value: 'abc', valueType: 'number' }]);
    await scene.hostile.settled();
    const blind = incidentRef(scene, 'blind');
    const collected = await runActivity(acts.collectFacts, { ref: blind, peer: scene.peer });
    expect(collected.residual?.map(({ what }) => what)).toContain('facts that nobody can read over HTTP');
    const judged = await load((await assess({ ref: blind })).plan, blind);
    expect(scene.bad['neverGranted']?.map((id) => judged.get(id)?.action)).toEqual(['retract', 'retract']);
  });
});
