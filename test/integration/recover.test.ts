import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { investigateActivities } from '../../activities/investigate.ts';
import { recoverActivities } from '../../activities/recover.ts';
import { readUndone } from '../../activities/facts/undo-log.ts';
import { defaultPolicy } from '../../src/contract/policy.ts';
import type { IncidentRef, PlanRef, Undone } from '../../src/contract/steps.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import { hostileScene, incidentRef, runActivity, type Scene } from '../helpers/hostile-scene.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });

const policy = defaultPolicy;
let scene: Scene;
let assessing: IncidentRef;
let ref: IncidentRef;
let plan: PlanRef;
let acts: ReturnType<typeof recoverActivities>;

beforeAll(async () => {
  scene = await hostileScene('recover', 40);
  assessing = incidentRef(scene, 'recover');
  ref = { ...assessing, phase: 'retract' };
  const investigate = investigateActivities(scene.deps);
  await runActivity(investigate.collectFacts, { ref: assessing, peer: scene.peer });
  plan = (await runActivity(investigate.assess, { ref: assessing, peer: scene.peer, policy, firstBad: null, recollect: false })).plan;
  acts = recoverActivities(scene.deps);
});
afterAll(async () => scene?.stop());

const undo = async (
  over: {
    readonly from?: number;
    readonly deps?: Partial<Scene['deps']>;
    readonly runId?: string;
    readonly ref?: IncidentRef;
    readonly heartbeatDetails?: unknown;
  } = {},
): Promise<Undone> => {
  const { undoFacts } = recoverActivities({ ...scene.deps, ...over.deps });
  const input = { ref: over.ref ?? ref, plan, approvedInRun: 'run-1', from: over.from ?? 0 };
  return runActivity(undoFacts, input, { runId: over.runId ?? 'run-1', heartbeatDetails: over.heartbeatDetails });
};
const retractions = async () =>
  scene.ours.sql(
    "SELECT id, entity, relation, scope, derived_from FROM facts WHERE confidence = 0 AND received_from IS NULL AND value_v LIKE 'retracted: %'",
  );
/** The plan is in the order of ids, which the node draws: the one that is rejected in quarantine may be among the first. */
const writes = async () => {
  const rejected = await scene.ours.sql("SELECT fact_id FROM fact_quarantine_status WHERE quarantine_status = 'rejected'");
  return (await retractions()).length + rejected.length;
};
/** One for each entity, relation and scope that the plan retracts on. */
const expectedRetractions = () =>
  new Set(
    (plan.items ?? []).filter(({ action }) => action === 'retract').map(({ entity, relation, scope }) => `${entity} ${relation} ${scope}`),
  ).size;
/** What the plan takes beyond what was written. */
const writesLeft = async () => {
  const rejects = (plan.items ?? []).filter(({ action }) => action === 'reject').length;
  return expectedRetractions() + rejects - (await writes());
};

describe('undoFacts', () => {
  it('refuses a plan that was approved in another run', async () => {
    await expect(undo({ runId: 'run-2' })).rejects.toMatchObject({ type: 'PreconditionChanged' });
    expect(await retractions()).toEqual([]);
  });

  it('refuses to act on another node than the one the incident is about', async () => {
    await expect(undo({ ref: { ...ref, nodeId: 'stigmem:node:other' } })).rejects.toMatchObject({ code: 'STIGMEM_IDENTITY' });
  });

  it('changes nothing in a drill, and says so', async () => {
    const done = await undo({ ref: { ...ref, mode: 'drill' } });
    expect(done).toMatchObject({ outcome: 'unverified', done: plan.total, total: plan.total });
    expect(done.detail).toContain('DRILL');
    expect(await retractions()).toEqual([]);
  });

  it('stops when its share of the write limit is spent, and goes on from there', async () => {
    const deps = { writesPerHour: 10, writeHeadroom: 0.5 };
    const first = await undo({ deps });
    expect(first.pause?.ms).toBe(1_800_000);
    expect(first.done).toBeLessThan(plan.total);
    expect(await writes()).toBe(5);
    // Five in half an hour: so many pauses more, and what the writing itself takes.
    const left = await writesLeft();
    const pauses = Math.ceil(left / 5) - 1;
    expect(first.pause?.restMs).toBeGreaterThanOrEqual(pauses * 1_800_000);
    expect(first.pause?.restMs).toBeLessThan(pauses * 1_800_000 + 600_000);
    const second = await undo({ deps, from: first.done });
    expect(second.done).toBeGreaterThan(first.done);
    expect(await writes()).toBeLessThanOrEqual(10);
  });

  it('takes the heartbeat of an attempt that died, if that was further', async () => {
    const before = (await retractions()).length;
    const done = await undo({ heartbeatDetails: { plan: plan.planHash, done: plan.total, writes: 3 } });
    expect(done.done).toBe(plan.total);
    expect((await retractions()).length).toBe(before);
  });

  it('is made once by two workers at the same time, and once more changes nothing', async () => {
    const [a, b] = await Promise.all([undo(), undo()]);
    expect([a.done, b.done]).toEqual([plan.total, plan.total]);
    expect(a.outcome).toBe('verified');
    const rows = await retractions();
    expect(rows).toHaveLength(expectedRetractions());
    await undo();
    expect(await retractions()).toEqual(rows);
  });

  it("names the peer's facts in each retraction and touches nobody else", async () => {
    const named = (await retractions()).map((row) => String(row['derived_from'])).join();
    for (const kind of ['foreignSource', 'neverGranted', 'burst'] as const)
      for (const id of scene.bad[kind] ?? []) expect(named).toContain(id);
    for (const id of [...scene.benign, ...(scene.bad['shadow'] ?? []), ...(scene.bad['unnormalised'] ?? [])])
      expect(named).not.toContain(id);
  });

  it('rejects in quarantine what is pending there', async () => {
    const rows = await scene.ours.sql('SELECT quarantine_status FROM fact_quarantine_status WHERE fact_id = ?', [
      scene.bad['instruction']?.[0] ?? '',
    ]);
    expect(rows).toEqual([{ quarantine_status: 'rejected' }]);
  });

  it('has on record what became of every fact of the plan', async () => {
    const lines = await readUndone(scene.deps, ref, plan.planHash);
    expect(lines.size).toBe(plan.total);
    expect(lines.get(scene.bad['shadow']?.[0] ?? '')).toMatchObject({ action: 'hold', outcome: 'left' });
    expect([...lines.values()].filter(({ outcome }) => outcome === 'wrong' || outcome === 'refused')).toEqual([]);
  });

  it("ends the go with the node's own wait when it answers 429", async () => {
    await scene.ours.stop();
    await scene.ours.start({ STIGMEM_RATE_LIMIT_WRITE_PER_HOUR: '2' });
    await scene.ours.exec("DELETE FROM quota_buckets WHERE dimension = 'fact_write'");
    const paused = await undo({ ref: { ...ref, round: 2 } });
    expect(paused.pause?.why).toContain('429');
    expect(paused.pause?.ms).toBeGreaterThan(1_000);
    await scene.ours.stop();
    await scene.ours.start({ STIGMEM_RATE_LIMIT_WRITE_PER_HOUR: '1000000' });
  });
});

describe('verifyUndone', () => {
  it('says that recall still answers with retracted facts, and that our own stay hidden', async () => {
    const verified = await runActivity(acts.verifyUndone, { ref, peer: scene.peer, policy });
    expect(verified.outcome).toBe('unverified');
    const what = (verified.residual ?? []).map((residual) => residual.what).join('\n');
    expect(what).toContain("POST /v1/recall by the poison's words");
    expect(what).toContain('facts of others that the default query hides');
    expect(what).not.toContain('the default GET /v1/facts');
    expect(what).not.toContain('hidden now');
    expect(what).not.toContain('questions that the node did not answer');
  });

  it("is complete where an agent's key asked, and says where the admin key did in its place", async () => {
    const asAgent = await runActivity(acts.verifyUndone, { ref, peer: scene.peer, policy });
    expect(asAgent.coverage?.[0]).toMatchObject({ complete: true, why: expect.stringContaining('as an ordinary agent') });
    const node = new Stigmem({ url: scene.ours.url, adminKey: scene.ours.adminKey });
    try {
      const asAdmin = await runActivity(recoverActivities({ ...scene.deps, node }).verifyUndone, { ref, peer: scene.peer, policy });
      expect(asAdmin.coverage?.[0]).toMatchObject({ complete: false, why: expect.stringContaining('set CORDON_AGENT_KEY') });
    } finally {
      await node.close();
    }
  });

  it('says so when nothing was undone', async () => {
    const other = incidentRef(scene, 'nothing', { phase: 'retract' });
    expect(await runActivity(acts.verifyUndone, { ref: other, peer: scene.peer, policy })).toMatchObject({ outcome: 'unverified' });
  });
});
