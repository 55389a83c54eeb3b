import { z } from 'zod';
import { Duration, durationMs } from './duration.ts';
import { gates, type Gate } from './names.ts';

const Person = z.string().trim().min(1).max(200);

/** Rules of one gate. */
export const GatePolicy = z.strictObject({
  /** How many different people must approve. */
  need: z.int().min(1).max(20),
  /** Who may decide; null means anybody who names themselves. */
  approvers: z.array(Person).min(1).max(200).nullable(),
  /** How long one opening counts; then its votes are void and the next one opens. Never approves by itself. */
  expiresAfter: Duration,
  /** How often people are reminded while it waits. */
  remindEvery: Duration,
});
export type GatePolicy = z.infer<typeof GatePolicy>;

const AtLeast = z.strictObject({ atLeast: z.int().min(1).max(100_000), within: Duration });

/** While a peer is watched that is back: how often it is looked at, and what shuts the door again. */
export const WatchPolicy = z.strictObject({
  every: Duration,
  /** A node that could not be asked for this long is itself a reason: a blind watch fails closed. */
  blindAfter: Duration,
  replays: AtLeast,
  rejectedTokens: AtLeast,
  /** This many facts within the time, or this many times what the peer sent in such a time before, whichever is more. */
  burst: z.strictObject({ facts: z.int().min(1).max(1_000_000), within: Duration, times: z.int().min(1).max(1_000) }),
});
export type WatchPolicy = z.infer<typeof WatchPolicy>;

/** Policy in force: pinned when the incident starts. */
export const Policy = z.strictObject({
  gates: z.strictObject({
    retract: GatePolicy,
    reregister: GatePolicy,
    testPull: GatePolicy,
    restore: GatePolicy,
    close: GatePolicy,
    skip: GatePolicy,
  }),
  /** Scopes that hold what must not leak or be steered; facts in them are proposed for undoing. */
  sensitiveScopes: z.array(z.string().min(1).max(200)).max(100),
  /** Relations that steer agents, letter by letter or as a prefix ending in `*`. */
  agentControlRelations: z.array(z.string().min(1).max(300)).max(500),
  /** This many facts of the peer within this time, by our own clock, is a burst. */
  burst: z.strictObject({ facts: z.int().min(1), within: Duration }),
  /** Facts this close to the first suspicious arrival are looked at with it, before and after. */
  window: Duration,
  /** Waiting for the peer's new keys: how often people are reminded, and when it is overdue. Absent in what an older run pinned. */
  rotation: z.strictObject({ remindEvery: Duration, escalateAfter: Duration }).optional(),
  /** Absent in what an older run pinned. */
  watch: WatchPolicy.optional(),
  /** How much a test pull lets in, held back, and how long at most. Absent in what an older run pinned. */
  testPull: z.strictObject({ maxFacts: z.int().min(1).max(10_000), atMost: Duration }).optional(),
  /** Are trust rules against the peer's sources kept when it is restored? Absent in what an older run pinned. */
  probation: z.boolean().optional(),
});
export type Policy = z.infer<typeof Policy>;

/** How long a peer is watched where the start does not say. */
export const watchedFor: Duration = '24h';

const gateDefault: GatePolicy = { need: 1, approvers: null, expiresAfter: '24h', remindEvery: '4h' };

/** Where the policy says nothing about it: an older run pinned one without. */
export const rotationDefault = { remindEvery: '3d', escalateAfter: '14d' };
export const watchDefault: WatchPolicy = {
  every: '1m',
  blindAfter: '15m',
  replays: { atLeast: 6, within: '1h' },
  rejectedTokens: { atLeast: 4, within: '1m' },
  burst: { facts: 50, within: '1h', times: 5 },
};

export const testPullDefault = { maxFacts: 1_000, atMost: '15m' };

/** What holds when no policy file is configured: one named person for each gate, a day for each opening. */
export const defaultPolicy: Policy = {
  gates: {
    retract: gateDefault,
    reregister: gateDefault,
    testPull: gateDefault,
    restore: gateDefault,
    close: gateDefault,
    skip: gateDefault,
  },
  sensitiveScopes: ['team', 'local'],
  agentControlRelations: ['agent:*', 'intent:*', 'instruction:*', 'stigmem:instruction*', 'policy:*', 'tool:*'],
  burst: { facts: 50, within: '1m' },
  window: '10m',
  rotation: rotationDefault,
  watch: watchDefault,
  testPull: testPullDefault,
  probation: false,
};

const GateTightening = z.strictObject({
  need: GatePolicy.shape.need.optional(),
  approvers: GatePolicy.shape.approvers.unwrap().optional(),
  expiresAfter: Duration.optional(),
  remindEvery: Duration.optional(),
});

/** The start payload's `policy`: every field optional, and it may only tighten the policy in force. */
export const PolicyTightening = z.strictObject({
  gates: z
    .strictObject({
      retract: GateTightening.optional(),
      reregister: GateTightening.optional(),
      testPull: GateTightening.optional(),
      restore: GateTightening.optional(),
      close: GateTightening.optional(),
      skip: GateTightening.optional(),
    })
    .optional(),
  sensitiveScopes: Policy.shape.sensitiveScopes.optional(),
  agentControlRelations: Policy.shape.agentControlRelations.optional(),
  burst: z.strictObject({ facts: z.int().min(1).optional() }).optional(),
  window: Duration.optional(),
});
export type PolicyTightening = z.infer<typeof PolicyTightening>;

/** A policy file: like {@link Policy} with every field optional; what is left out keeps its default. */
export const PolicyFile = z.strictObject({
  gates: z.partialRecord(z.enum(gates), GatePolicy.partial()).optional(),
  sensitiveScopes: Policy.shape.sensitiveScopes.optional(),
  agentControlRelations: Policy.shape.agentControlRelations.optional(),
  burst: Policy.shape.burst.optional(),
  window: Duration.optional(),
  rotation: Policy.shape.rotation,
  watch: Policy.shape.watch,
  testPull: Policy.shape.testPull,
  probation: Policy.shape.probation,
});

/** One person, however they write their name: quorums count people, not spellings. */
export function samePerson(a: string, b: string): boolean {
  const fold = (name: string) => name.normalize('NFKC').trim().toLowerCase();
  return fold(a) === fold(b);
}

/**
 * Applies a tightening. Returns the new policy, or the first field that would loosen it.
 * Approvers may only be narrowed, quorums raised, openings shortened, watched scopes and relations added.
 */
export function tightenPolicy(
  base: Policy,
  by: PolicyTightening,
): { ok: true; policy: Policy } | { ok: false; field: string; expected: string; got: string } {
  const policy = structuredCloneJson(base);
  for (const gate of gates) {
    const change = by.gates?.[gate];
    if (change === undefined) continue;
    const loosened = tightenGate(policy, gate, change);
    if (loosened) return { ok: false, ...loosened };
  }
  policy.sensitiveScopes = [...new Set([...base.sensitiveScopes, ...(by.sensitiveScopes ?? [])])];
  policy.agentControlRelations = [...new Set([...base.agentControlRelations, ...(by.agentControlRelations ?? [])])];
  if (by.burst?.facts !== undefined) {
    if (by.burst.facts > base.burst.facts) {
      return { ok: false, field: 'policy.burst.facts', expected: `at most ${base.burst.facts}`, got: String(by.burst.facts) };
    }
    policy.burst.facts = by.burst.facts;
  }
  if (by.window !== undefined) {
    if (durationMs(by.window) < durationMs(base.window)) {
      return { ok: false, field: 'policy.window', expected: `at least ${base.window}`, got: by.window };
    }
    policy.window = by.window;
  }
  return { ok: true, policy };
}

function tightenGate(
  policy: Policy,
  gate: Gate,
  change: z.infer<typeof GateTightening>,
): { field: string; expected: string; got: string } | undefined {
  const now = policy.gates[gate];
  const field = (name: string) => `policy.gates.${gate}.${name}`;
  if (change.need !== undefined) {
    if (change.need < now.need) return { field: field('need'), expected: `at least ${now.need}`, got: String(change.need) };
    now.need = change.need;
  }
  if (change.approvers !== undefined) {
    const allowed = now.approvers;
    const added = change.approvers.find((name) => allowed !== null && !allowed.some((a) => samePerson(a, name)));
    if (added !== undefined) return { field: field('approvers'), expected: 'only people who may decide already', got: added };
    now.approvers = change.approvers;
  }
  for (const name of ['expiresAfter', 'remindEvery'] as const) {
    const value = change[name];
    if (value === undefined) continue;
    if (durationMs(value) > durationMs(now[name])) return { field: field(name), expected: `at most ${now[name]}`, got: value };
    now[name] = value;
  }
  return undefined;
}

function structuredCloneJson<T>(value: T): T {
  // structuredClone is not in the workflow sandbox; a policy is plain JSON.
  return JSON.parse(JSON.stringify(value)) as T;
}
