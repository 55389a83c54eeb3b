import { z } from 'zod';
import type { Gate, Outcome } from '../contract/names.ts';
import { keysPlanHash } from '../contract/keys.ts';
import type { Status } from '../contract/schemas.ts';
import { stepOf, type ActivityRecord } from './activities.ts';
import { Keys } from './digests.ts';
import type { RunSummary } from './project.ts';
import type { Decided } from './votes.ts';

/** Something that changed the node, and by what right. */
export interface Mutation {
  readonly record: ActivityRecord;
  /** null: a reversible containment, which waits for nobody. */
  readonly gate: Gate | null;
  readonly approval: Decided | null;
  /** Why it was not allowed; null when it was. */
  readonly wrong: string | null;
}

const contains = ['fenceInbound', 'fenceOutbound', 'blockRelays', 'revokeTokens', 'revokeKeys', 'lowerTrust', 'pausePromotion'];
const containsOnHost = ['revokePeers', 'revokeAccess', 'lowerTrustRules', 'pausePromotionJob'];
const gateOnHost = new Map<string, Gate>([
  ['suppressFacts', 'retract'],
  ['liftTombstones', 'retract'],
  ['coverCards', 'retract'],
  ['restoreOnHost', 'restore'],
  ['resumePromotionJob', 'restore'],
  ['reinstatePeers', 'restore'],
  ['rebindPeer', 'reregister'],
  ['unbindPeer', 'restore'],
  ['letPeerIn', 'testPull'],
  ['holdDoorOpen', 'testPull'],
  ['showArrivals', 'testPull'],
  ['endHolds', 'testPull'],
]);
const gateOf = new Map<string, Gate>([
  ['undoFacts', 'retract'],
  ['registerPeer', 'reregister'],
  ['testPull', 'testPull'],
  ['liftFences', 'restore'],
  ['restoreTrust', 'restore'],
  ['resumePromotion', 'restore'],
  ...gateOnHost,
]);
/** Fences that go before there is full trust go with the approval of the test pull. */
const beforeTrust = ['testPull', 'watch'];
const skipNeedsGate = ['contain', 'rotate', 'reregister', 'watch'];

/** What a step says it changed on the node; absent while it has not ended, or can't say. */
const Changed = z.looseObject({ changed: z.int().optional(), done: z.int().optional() });
const Asked = z.looseObject({
  ref: z.looseObject({ mode: z.string().default('live'), phase: z.string().default('') }).default({ mode: 'live', phase: '' }),
  readBack: z.boolean().default(false),
  plan: z.looseObject({ planHash: z.string() }).optional(),
  keys: Keys.optional(),
});
const Remade = z.looseObject({ go: z.looseObject({ planHash: z.string() }) });
const Approved = z.looseObject({ approved: z.looseObject({ planHash: z.string() }) });

/** Everything that changed the node, each held against the approvals before it. */
export function checkMutations(
  activities: readonly ActivityRecord[],
  decided: readonly Decided[],
  runs: readonly RunSummary[],
): Mutation[] {
  const remade = remadeFrom(activities);
  return activities.flatMap((record): Mutation[] => {
    const asked = Asked.safeParse(record.input).data;
    if (asked?.readBack === true) return [];
    const said = Changed.safeParse(record.result).data;
    const isOnHost = containsOnHost.includes(record.name) || gateOnHost.has(record.name);
    // Of undoFacts `done` is how far it has come; a host operation says by it how much it changed.
    const changed = isOnHost ? said?.done : said?.changed;
    if (asked?.ref.mode === 'drill' || changed === 0) return [];
    if (contains.includes(record.name) || containsOnHost.includes(record.name))
      return [{ record, gate: null, approval: null, wrong: null }];
    const gate = record.name === 'liftFences' && beforeTrust.includes(asked?.ref.phase ?? '') ? 'testPull' : gateOf.get(record.name);
    // An activity that saw that its approval was void refused to act: nothing was changed.
    if (!gate || record.failure?.type === 'PreconditionChanged') return [];
    const before = decided.filter(
      (other) => other.gate === gate && other.approved && cameBefore(other, record) && reaches(other.inRun, record.runId, runs),
    );
    const hash = asked?.plan?.planHash ?? '';
    const wanted = new Set([hash, ...(remade.get(hash) ?? []), ...hashesOf(asked?.keys)]);
    const isExact = gate === 'retract' || gate === 'reregister';
    const approval = (isExact ? before.findLast((other) => wanted.has(other.planHash)) : before.at(-1)) ?? null;
    const where = `run ${record.runId} event ${record.eventId}: ${record.name}`;
    const why =
      before.length > 0
        ? `was about another plan than ${hash} that was approved`
        : `has no valid approval of gate ${gate} before it in this run`;
    return [{ record, gate, approval, wrong: approval ? null : `${where} ${why}` }];
  });
}

/** What an approval of this key was about. */
function hashesOf(keys: z.infer<typeof Keys> | undefined): string[] {
  return keys ? [keysPlanHash(keys, 'rebind'), keysPlanHash(keys, 'register')] : [];
}

/** A plan is made again right before acting: which approved plans became which. */
function remadeFrom(activities: readonly ActivityRecord[]): Map<string, string[]> {
  const from = new Map<string, string[]>();
  for (const { name, input, result } of activities) {
    const went = Remade.safeParse(result).data?.go.planHash;
    const approved = Approved.safeParse(input).data?.approved.planHash;
    if (name === 'remakePlan' && went !== undefined && approved !== undefined) from.set(went, [...(from.get(went) ?? []), approved]);
  }
  return from;
}

function cameBefore(decided: Decided, record: ActivityRecord): boolean {
  return decided.inRun === record.runId ? decided.eventId < record.eventId : Date.parse(decided.at) <= Date.parse(record.at);
}

/** An approval counts in its own run and in those that continue it; a reset voids it. */
function reaches(fromRun: string, toRun: string, runs: readonly RunSummary[]): boolean {
  const seen = new Set<string>();
  for (let at: string | undefined = toRun; at !== undefined && at !== '' && !seen.has(at);) {
    if (at === fromRun) return true;
    seen.add(at);
    const run: RunSummary | undefined = runs.find(({ runId }) => runId === at);
    at = run?.resetFrom === '' ? run.continuedFrom : undefined;
  }
  return false;
}

/** The end itself, and what was left out, need gates too. */
export function checkOutcome(
  outcome: Outcome | null,
  status: Status | null,
  decided: readonly Decided[],
  runs: readonly RunSummary[],
): string[] {
  const lastRun = runs.at(-1)?.runId ?? '';
  const approved = (gate: Gate, about = '') =>
    decided.some((other) => other.gate === gate && other.approved && other.about.startsWith(about) && reaches(other.inRun, lastRun, runs));
  const problems: string[] = [];
  if (outcome === 'expelled' && !approved('close', 'close as expelled'))
    problems.push('the incident ended as expelled without a valid approval of gate close');
  if (outcome === 'dismissed' && !approved('restore', 'close as dismissed'))
    problems.push('the incident ended as dismissed without a valid approval of gate restore');
  if (outcome === 'restored' && !approved('restore', 'close as restored'))
    problems.push('the incident ended as restored without a valid approval of gate restore');
  for (const { name, phase, detail } of status?.steps ?? []) {
    if (!skipNeedsGate.includes(phase) || !detail.startsWith('skipped by ')) continue;
    if (!decided.some((other) => other.gate === 'skip' && other.approved && other.about.startsWith(`skip ${name}:`))) {
      problems.push(`${name} was skipped without a valid approval of gate skip`);
    }
  }
  return problems;
}

/** How a mutation was read back, in the words of the activity that did it. */
export function readBackOf({ record }: Mutation): string {
  const { outcome, way, detail } = stepOf(record);
  if (outcome === undefined)
    return record.ended ? `${record.ended.how}${record.failure ? `: ${record.failure.message}` : ''}` : 'not finished';
  return `${outcome}${way && way !== 'none' ? ` by ${way}` : ''}: ${detail ?? ''}`;
}
