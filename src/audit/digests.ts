import { z } from 'zod';
import { canonicalJson, digestMatches, gateDigest, planHash, sha256Id } from '../contract/canonical.ts';
import { closureHash, restoring } from '../contract/closing.ts';
import { isGate, type Gate } from '../contract/names.ts';
import { keysPlanHash } from '../contract/keys.ts';
import { CloseRequest, StepMessage } from '../contract/schemas.ts';
import type { ActivityRecord } from './activities.ts';

/** What a digest stands for. */
export interface Named {
  readonly gate: Gate;
  readonly opening: number;
  readonly planHash: string;
  readonly runId: string;
  /** What was asked, in words. */
  readonly about: string;
  /** Who asked for it, where a person did. */
  readonly requestedBy?: string;
  /** What whoever approves has to bring from outside. */
  readonly fingerprint?: string;
}

/** A gate is opened anew when it expires or its plan changes; more openings than this are not looked for. */
const maxOpenings = 300;

const Hashed = z.looseObject({
  planHash: z.string(),
  counts: z.record(z.string(), z.number()).default({}),
  evidenceId: z.string().default(''),
});
/** A key that gate `reregister` may be about, whole: its hash is over all of it. */
export const Keys = z.looseObject({
  nodeId: z.string(),
  entityUri: z.string(),
  publicKey: z.string(),
  keyId: z.string(),
  fingerprint: z.string(),
  expiresAt: z.string(),
  chain: z.enum(['none', 'whole', 'afterFirstBad']),
  remarks: z.array(z.string()),
});
const Verified = z.looseObject({ keys: Keys });
const Watching = z.looseObject({ ref: z.looseObject({ round: z.int() }) });
const Planned = z.looseObject({ plan: Hashed.nullish(), next: Hashed.nullish() });

/**
 * Every digest that could have been decided about so far, made again from what the history says: the plans that
 * activities returned, the requests to close or to skip, each in each run and opening. A vote names one of them or none.
 */
export class Digests {
  readonly #plans = new Map<string, Omit<Named, 'opening' | 'runId'>>();
  readonly #runs = new Set<string>();
  readonly #byDigest = new Map<string, Named>();

  addRun(runId: string): void {
    if (this.#runs.has(runId)) return;
    this.#runs.add(runId);
    for (const plan of this.#plans.values()) this.#make(plan, runId);
  }

  addPlan(plan: Omit<Named, 'opening' | 'runId'>): void {
    const key = `${plan.gate} ${plan.planHash}`;
    if (this.#plans.has(key)) return;
    this.#plans.set(key, plan);
    for (const runId of this.#runs) this.#make(plan, runId);
  }

  /** The plan that an activity made or narrowed. */
  addResult({ name, result, input }: ActivityRecord): void {
    // After the watch of a round the workflow asks for full trust by itself.
    const round = name === 'watchPeer' ? Watching.safeParse(input).data?.ref.round : undefined;
    if (round !== undefined)
      this.addPlan({
        gate: 'restore',
        planHash: closureHash(restoring(round)),
        about: `close as restored, after the watch of round ${round}`,
      });
    const keys = name === 'verifyKeys' ? Verified.safeParse(result).data?.keys : undefined;
    for (const action of ['rebind', 'register'] as const) {
      if (!keys) break;
      const about = `${action} ${keys.nodeId} with its new key`;
      this.addPlan({ gate: 'reregister', planHash: keysPlanHash(keys, action), about, fingerprint: keys.fingerprint });
    }
    const found = Planned.safeParse(result).data;
    for (const plan of [found?.plan, found?.next]) {
      if (!plan) continue;
      const counts = Object.entries(plan.counts).map(([action, count]) => `${action} ${count}`);
      this.addPlan({
        gate: name === 'judgeBacklog' ? 'testPull' : 'retract',
        planHash: plan.planHash,
        about: `${counts.join(', ')} (plan of ${name}, evidence ${plan.evidenceId})`,
      });
    }
  }

  /** What `close` or `skip` asked for: workflows/close.ts and workflows/steps.ts hash the same. */
  addRequest(signal: string, payload: unknown): void {
    if (signal === 'close') {
      const asked = CloseRequest.safeParse(payload).data;
      if (!asked) return;
      const { outcome, by, reason } = asked;
      const gate = outcome === 'expelled' ? 'close' : 'restore';
      this.addPlan({ gate, planHash: closureHash(asked), about: `close as ${outcome}: ${reason}`, requestedBy: by });
    }
    if (signal === 'skip') {
      const asked = StepMessage.safeParse(payload).data;
      if (!asked) return;
      const { step, by, note = '' } = asked;
      const hash = planHash([{ id: step, action: 'skip', contentHash: sha256Id(canonicalJson({ by, note })) }]);
      this.addPlan({ gate: 'skip', planHash: hash, about: `skip ${step}: ${note}`, requestedBy: by });
    }
  }

  /** What a digest, whole or by its first digits, stands for. */
  find(digest: string, gate: string): Named | undefined {
    for (const [full, named] of this.#byDigest) if (named.gate === gate && digestMatches(digest, full)) return named;
    return undefined;
  }

  #make(plan: Omit<Named, 'opening' | 'runId'>, runId: string): void {
    const { gate, planHash: hash } = plan;
    for (let opening = 1; opening <= maxOpenings; opening += 1) {
      this.#byDigest.set(gateDigest({ gate, opening, planHash: hash, runId }), { ...plan, opening, runId });
    }
  }
}

const Memo = z.looseObject({
  gates: z.array(z.string()),
  steps: z.array(z.string()).default([]),
  phase: z.string(),
  round: z.number().default(1),
});

/** Where the workflow itself said it was: its phase, which opening of which gate was open, and which steps waited. */
export function memoOf(value: unknown):
  | {
      readonly phase: string;
      readonly round: number;
      readonly gates: ReadonlyMap<Gate, number>;
      readonly steps: ReadonlySet<string>;
    }
  | undefined {
  const memo = Memo.safeParse(value).data;
  if (!memo) return undefined;
  const gates = memo.gates.flatMap((text): [Gate, number][] => {
    const [gate = '', opening = ''] = text.split('#');
    return isGate(gate) ? [[gate, Number(opening)]] : [];
  });
  const steps = memo.steps.map((text) => text.split(':')[0] ?? '');
  return { phase: memo.phase, round: memo.round, gates: new Map(gates), steps: new Set(steps) };
}
