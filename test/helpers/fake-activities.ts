import { activityInfo, Context } from '@temporalio/activity';
import { ApplicationFailure, type Duration } from '@temporalio/common';
import type { Activities } from '../../activities/index.ts';
import type { FailureType } from '../../src/contract/failures.ts';
import { defaultPolicy, type Policy } from '../../src/contract/policy.ts';
import type { PlanItem } from '../../src/contract/schemas.ts';
import type { Pause, PlanRef, StepResult, Trip, VerifiedKeys } from '../../src/contract/steps.ts';
import { planHash, sha256Id } from '../../src/contract/canonical.ts';

/** What the fake world looks like, and what it counts. Typed as the real activities are. */
export interface FakeWorld {
  policy: Policy;
  /** Facts in the plan by id, with the proposed action. */
  facts: Map<string, PlanItem['action']>;
  /**
   * Activities that fail, with which failure, and how often (Infinity: until deleted); `attempt`: as an attempt that died
   * does; `again`: when the next one begins, as the node may ask.
   */
  failing: Map<string, { type: FailureType; times: number; of?: 'attempt'; again?: Duration }>;
  /** Activities whose next attempts do not go on before this does. */
  held: Map<string, Promise<void>>;
  /** Steps that end in another way than verified. */
  results: Map<string, Partial<StepResult>>;
  /** How often each activity was called; `undoFacts` counts each fact undone. */
  calls: Map<string, number>;
  undone: Map<string, number>;
  heldBy: string | null;
  /** The holder closes, and lets go of the peer, before it takes any alert. */
  gone: boolean;
  /** How resolvePeer fails for the peer it is asked for; undefined: it finds it. */
  resolve: (asked: { readonly peer: string }) => FailureType | undefined;
  /** Facts that come up when the plan is made again. */
  late: Map<string, PlanItem['action']>;
  reminders: { gate: string; why: string }[];
  pause: Pause | undefined;
  /** The queue that somebody polls, or polled until just now; undefined: nobody does. */
  hostQueue: string | undefined;
  /** The new keys that the peer shows; undefined: none so far. */
  keys: VerifiedKeys | undefined;
  announced: string[];
  /** What waits behind the fence, and whether it would be let in; a test pull brings all of it. */
  waiting: Map<string, PlanItem['action']>;
  /** What waits still after a test pull. */
  stubborn: Map<string, PlanItem['action']>;
  /** Wires that the next look touches. */
  trips: Trip[];
  entries: number;
}

/** Keys that a peer may show. */
export const newKeys = {
  nodeId: 'node:peer',
  entityUri: 'stigmem://peer.test/node/self',
  publicKey: 'bmV3',
  keyId: 'key-2',
  fingerprint: `sha256:${'a'.repeat(64)}`,
  expiresAt: '2027-11-24T00:00:00Z',
  chain: 'none',
  remarks: ['no rotation chain'],
} as const satisfies VerifiedKeys;

export function fakeWorld(change: Partial<FakeWorld> = {}): FakeWorld {
  return {
    policy: defaultPolicy,
    facts: new Map([
      ['fact-a', 'retract'],
      ['fact-b', 'retract'],
      ['fact-c', 'keep'],
    ]),
    failing: new Map(),
    held: new Map(),
    results: new Map(),
    calls: new Map(),
    undone: new Map(),
    heldBy: null,
    gone: false,
    resolve: () => undefined,
    late: new Map(),
    reminders: [],
    pause: undefined,
    hostQueue: undefined,
    keys: undefined,
    announced: [],
    waiting: new Map([
      ['fact-w', 'keep'],
      ['fact-x', 'suppress'],
    ]),
    stubborn: new Map(),
    trips: [],
    entries: 0,
    ...change,
  };
}

const peer = {
  nodeId: 'node:peer',
  url: 'http://127.0.0.1:8802',
  entityUri: '',
  peerIds: ['row-1'],
  nodeIds: ['node:peer'],
  allowedScopes: ['company', 'public'],
};

/** Activities without a world behind them, for the workflow's own logic under time skipping. */
export function fakeActivities(world: FakeWorld): Activities {
  const evidence = () => {
    world.entries += 1;
    return { head: `sha256:${String(world.entries).padStart(64, '0')}`, entries: world.entries };
  };
  const run = () => activityInfo().workflowExecution?.runId ?? '';
  const called = (name: string, fails?: FailureType): void => {
    world.calls.set(name, (world.calls.get(name) ?? 0) + 1);
    const failing: ReturnType<typeof world.failing.get> = fails ? { type: fails, times: 1 } : world.failing.get(name);
    if (!failing || failing.times <= 0) return;
    failing.times -= 1;
    const nonRetryable = failing.of !== 'attempt';
    const message = `${name}: ${failing.type} as the test asked`;
    const { type, again } = failing;
    throw ApplicationFailure.create({ type, message, nonRetryable, ...(again === undefined ? {} : { nextRetryDelay: again }) });
  };
  const ended = (name: string, fails?: FailureType): StepResult => {
    called(name, fails);
    return { outcome: 'verified', way: 'http', detail: `${name} done`, evidence: evidence(), ...world.results.get(name) };
  };
  const sealedPlans = new Map<string, PlanItem[]>();
  const planOf = (facts: ReadonlyMap<string, string>): PlanRef => {
    const items = [...facts].map(([id, action]) => ({
      id,
      entity: 'stigmem://x/y/z',
      relation: 'r',
      scope: 'company',
      action,
      way: action,
      rule: 'test',
      reason: 'test',
      evidence: [],
    }));
    const counts: Record<string, number> = {};
    for (const { action } of items) counts[action] = (counts[action] ?? 0) + 1;
    const hashed = items.map(({ id, action }) => ({ id, action, contentHash: sha256Id(id) }));
    const evidenceId = sha256Id(JSON.stringify(items));
    sealedPlans.set(evidenceId, items);
    return { planHash: planHash(hashed), counts, evidenceId, items, total: items.length };
  };
  const assertHere = (approvedInRun: string): void => {
    if (approvedInRun !== run()) throw ApplicationFailure.nonRetryable('approved in another run', 'PreconditionChanged');
  };
  const activities: Activities = {
    whichRun: async () => ({ run: run() }),
    findHostQueue: async () => ({ queue: world.hostQueue ?? 'stigmem-host', polled: world.hostQueue !== undefined }),
    seeHostProof: async () => ({ seen: world.hostQueue !== 'host-of-a-copy' }),
    missHost: async ({ why }) => {
      called('missHost');
      throw ApplicationFailure.create({ type: 'HostUnavailable', message: why });
    },
    openRun: async ({ originalRun }) => {
      called('openRun');
      return { run: run(), isReset: run() !== originalRun, policy: world.policy, registeredSearchAttributes: [], evidence: evidence() };
    },
    resolvePeer: async ({ peer: asked }) => ({
      ...ended('resolvePeer', world.resolve({ peer: asked })),
      ourNode: { nodeId: 'node:ours', url: 'http://127.0.0.1:8801' },
      peer,
    }),
    claimPeer: async () => {
      called('claimPeer');
      return { heldBy: world.heldBy };
    },
    handOverAlerts: async ({ alerts }) => {
      called('handOverAlerts');
      if (world.gone) {
        world.heldBy = null;
        return { handedOver: 0, gone: true };
      }
      return { handedOver: alerts.length };
    },
    releasePeer: async () => {
      called('releasePeer');
      return { released: true };
    },
    captureLocal: async ({ alerts }) => ({
      ...ended('captureLocal'),
      alerts: alerts.map(({ name }) => ({ name, at: null, corroborated: true, why: 'test', eventIds: ['e1'] })),
      firstSuspicious: null,
    }),
    holdAlerts: async ({ alerts }) => {
      called('holdAlerts');
      return {
        alerts: alerts.map(({ name }) => ({ name, at: null, corroborated: false, why: 'test', eventIds: [] })),
        evidence: evidence(),
      };
    },
    fenceInbound: async () => ended('fenceInbound'),
    fenceOutbound: async () => ended('fenceOutbound'),
    blockRelays: async () => ended('blockRelays'),
    revokeTokens: async () => ended('revokeTokens'),
    revokeKeys: async () => ended('revokeKeys'),
    lowerTrust: async () => ended('lowerTrust'),
    pausePromotion: async () => ended('pausePromotion'),
    readPeer: async () => ({ ...ended('readPeer'), entityUri: 'stigmem://peer.test/node/self' }),
    collectFacts: async () => ended('collectFacts'),
    assess: async () => ({ ...ended('assess'), plan: planOf(world.facts), firstSuspicious: null }),
    narrowPlan: async ({ keep }) => {
      called('narrowPlan');
      const unknown = keep.filter(({ factId }) => (world.facts.get(factId) ?? 'keep') === 'keep').map(({ factId }) => factId);
      if (unknown.length > 0) return { run: run(), plan: null, unknown, evidence: evidence() };
      for (const { factId } of keep) world.facts.set(factId, 'keep');
      return { run: run(), plan: planOf(world.facts), unknown, evidence: evidence() };
    },
    remakePlan: async ({ approved }) => {
      called('remakePlan');
      const next = world.late.size > 0 ? planOf(world.late) : null;
      // From here on the plan is about these.
      if (world.late.size > 0) world.facts = world.late;
      world.late = new Map();
      return { go: approved, next, detail: 'test', evidence: evidence() };
    },
    undoFacts: async ({ plan, approvedInRun, from }) => {
      assertHere(approvedInRun);
      const result = ended('undoFacts');
      const ids = (sealedPlans.get(plan.evidenceId) ?? []).filter(({ action }) => action === 'retract').map(({ id }) => id);
      const { pause } = world;
      world.pause = undefined;
      const upTo = pause ? from + 1 : ids.length;
      for (const id of ids.slice(from, upTo)) world.undone.set(id, (world.undone.get(id) ?? 0) + 1);
      return { ...result, done: upTo, total: ids.length, ...(pause ? { pause } : {}) };
    },
    verifyUndone: async () => ended('verifyUndone'),
    notifyPeer: async () => ended('notifyPeer'),
    notifyDownstream: async () => ended('notifyDownstream'),
    notifyLocal: async () => ended('notifyLocal'),
    remind: async ({ gate, why }) => {
      world.reminders.push({ gate, why });
      called('remind');
      return { evidence: evidence() };
    },
    restoreTrust: async ({ approvedInRun }) => {
      assertHere(approvedInRun);
      return ended('restoreTrust');
    },
    resumePromotion: async ({ approvedInRun }) => {
      assertHere(approvedInRun);
      return ended('resumePromotion');
    },
    liftFences: async ({ approvedInRun }) => {
      assertHere(approvedInRun);
      return ended('liftFences');
    },
    seal: async () => ({ ...ended('seal'), report: 'files/report.md' }),
    requestRotation: async () => ended('requestRotation'),
    announce: async ({ kind, text }) => {
      world.announced.push(`${kind}: ${text}`);
      called('announce');
      return { evidence: evidence() };
    },
    verifyKeys: async () => {
      const done = ended('verifyKeys');
      if (!world.keys) throw ApplicationFailure.create({ type: 'RotationPending', message: 'no new keys as the test asked' });
      return { ...done, keys: world.keys, evidenceId: sha256Id('keys') };
    },
    watchPeer: async () => {
      called('watchPeer');
      const trips = world.trips.splice(0);
      return { trips, looks: 1, lastLookAt: new Date(0).toISOString(), coverage: [], evidence: evidence() };
    },
    judgeBacklog: async () => ({ ...ended('judgeBacklog'), plan: planOf(world.waiting) }),
    judgeArrivals: async () => {
      const shows = [...world.waiting.values()].filter((action) => action === 'keep').length;
      world.waiting = world.stubborn;
      const result = ended('judgeArrivals');
      return { ...result, evidenceId: sha256Id('arrivals'), shows, failed: result.outcome === 'verified' ? [] : ['as the test asked'] };
    },
    registerPeer: async ({ peer: of, keys, approvedInRun }) => {
      assertHere(approvedInRun);
      if (world.keys && keys.publicKey !== world.keys.publicKey)
        throw ApplicationFailure.nonRetryable('the peer shows another key', 'PreconditionChanged');
      return { ...ended('registerPeer'), peer: of };
    },
    exportHistory: async () => {
      called('exportHistory');
      return evidence();
    },
  };
  const waiting = Object.entries(activities).map(([name, act]: [string, (input: never) => Promise<unknown>]) => [
    name,
    async (input: never) => {
      const held = world.held.get(name);
      if (held) await beating(held);
      return act(input);
    },
  ]);
  return Object.fromEntries(waiting) as Activities;
}

/** One that waits is alive: it beats, as the real ones do. */
async function beating(held: Promise<void>): Promise<void> {
  const { heartbeat } = Context.current();
  const beats = setInterval(() => heartbeat(), 1_000);
  await held.finally(() => clearInterval(beats));
}
