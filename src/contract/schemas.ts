import { z } from 'zod';
import { Duration } from './duration.ts';
import { factActions, gates, outcomes, phases, refusals, stepOutcomes, ways } from './names.ts';
import { PolicyTightening } from './policy.ts';

const Name = z.string().trim().min(1).max(200);
const Text = z.string().max(4_000);
const Instant = z.union([z.iso.datetime({ offset: true }), z.iso.date()], {
  error: 'expected an ISO 8601 time like 2026-11-23T01:00:00Z, or a date',
});
const ShortDigest = z.string().regex(/^sha256:[0-9a-f]{12,64}$/, 'expected sha256: and 12 to 64 lower-case hex digits');
const Fingerprint = z.string().regex(/^sha256:[0-9a-f]{64}$/, 'expected sha256: and 64 lower-case hex digits');
const RunPrefix = z.string().min(8, 'expected the run id from status, 8 characters or more').max(100);

/** One alert that says something is wrong with the peer. */
export const Alert = z.strictObject({
  name: Name,
  at: Instant.optional(),
  detail: Text.optional(),
});
export type Alert = z.infer<typeof Alert>;

/** What starts an incident: one JSON object, only `peer` needed. */
export const StartPayload = z.strictObject({
  /** node_id, peer_id, URL or entity URI of the peer. */
  peer: z.string().trim().min(1).max(2_048),
  alerts: z.array(Alert).max(500).optional(),
  reportedBy: Name.optional(),
  reason: Text.optional(),
  firstBadAt: Instant.optional(),
  watch: Duration.optional(),
  mode: z.enum(['live', 'drill']).optional(),
  policy: PolicyTightening.optional(),
});
export type StartPayload = z.infer<typeof StartPayload>;

const decisionFields = {
  gate: z.string().min(1).max(50),
  digest: ShortDigest,
  by: Name,
  note: Text.optional(),
  fingerprint: Fingerprint.optional(),
};

/** Signals `approve` and `reject`. `gate` is checked against the gates by the reducer, to be refused as unknown_gate. */
export const Vote = z.strictObject(decisionFields);
export type Vote = z.infer<typeof Vote>;

/** Update `decide`. */
export const Decision = z.strictObject({ ...decisionFields, decision: z.enum(['approve', 'reject']) });
export type Decision = z.infer<typeof Decision>;

/** What `decide` answers. */
export const DecisionAnswer = z.object({
  accepted: z.boolean(),
  refusedBecause: z.enum(refusals).optional(),
  have: z.int(),
  need: z.int(),
  digest: z.string().optional(),
  /** In words, for a malformed or refused one: which field, what was expected, what came. */
  detail: z.string().optional(),
});
export type DecisionAnswer = z.infer<typeof DecisionAnswer>;

/** Update and signal `amend`: narrow the retract plan by keeping facts. */
export const Amendment = z.strictObject({
  gate: z.literal('retract'),
  digest: ShortDigest,
  keep: z
    .array(z.strictObject({ factId: z.string().min(1).max(300), justification: z.string().trim().min(1).max(2_000) }))
    .min(1)
    .max(1_000),
  by: Name,
});
export type Amendment = z.infer<typeof Amendment>;

/** What `amend` answers; `digest` is the new opening's. */
export const AmendAnswer = z.object({
  accepted: z.boolean(),
  refusedBecause: z.enum(refusals).optional(),
  digest: z.string().optional(),
  detail: z.string().optional(),
});
export type AmendAnswer = z.infer<typeof AmendAnswer>;

/** Signal `note`. */
export const Note = z.strictObject({ by: Name, text: z.string().trim().min(1).max(4_000) });
export type Note = z.infer<typeof Note>;

/** Signals `retry`, `done` and `skip`, about one step that waits or is parked. */
export const StepMessage = z.strictObject({
  step: z.string().min(1).max(50),
  run: RunPrefix,
  by: Name,
  note: Text.optional(),
});
export type StepMessage = z.infer<typeof StepMessage>;

/** Signal `close`: opens gate `close` (expelled) or `restore` (dismissed). */
export const CloseRequest = z.strictObject({
  outcome: z.enum(['expelled', 'dismissed']),
  run: RunPrefix,
  by: Name,
  reason: z.string().trim().min(1).max(4_000),
});
export type CloseRequest = z.infer<typeof CloseRequest>;

/** Signal `extend`: the watch that is under way lasts so much longer. */
export const Extension = z.strictObject({ for: Duration, run: RunPrefix, by: Name, note: Text.optional() });
export type Extension = z.infer<typeof Extension>;

/** Each signal and update by its name on the wire, with what its one argument must be. */
export const signalSchemas = {
  approve: Vote,
  reject: Vote,
  amend: Amendment,
  alert: Alert,
  note: Note,
  retry: StepMessage,
  done: StepMessage,
  skip: StepMessage,
  close: CloseRequest,
  extend: Extension,
} as const;
export const updateSchemas = { decide: Decision, amend: Amendment } as const;

/** Argument of query `plan`. */
export const PlanQuery = z.strictObject({ gate: z.enum(gates).optional() });

const Waiting = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('gate'),
    gate: z.enum(gates),
    opening: z.int(),
    digest: z.string(),
    have: z.int(),
    need: z.int(),
    since: z.string(),
    expiresAt: z.string(),
    summary: z.string(),
    how: z.string(),
  }),
  z.object({ kind: z.literal('step'), step: z.string(), run: z.string(), why: z.string(), how: z.string() }),
]);
export type Waiting = z.infer<typeof Waiting>;

/** One step as status shows it. */
export const StepStatus = z.object({
  name: z.string(),
  phase: z.enum(phases),
  round: z.int(),
  outcome: z.enum(stepOutcomes),
  way: z.enum(ways),
  at: z.string(),
  detail: z.string(),
});
export type StepStatus = z.infer<typeof StepStatus>;

export const Residual = z.object({ what: z.string(), why: z.string(), count: z.int() });
export type Residual = z.infer<typeof Residual>;

export const Coverage = z.object({ what: z.string(), seen: z.int(), complete: z.boolean(), why: z.string() });
export type Coverage = z.infer<typeof Coverage>;

/** Answer of query `status`. */
export const Status = z.object({
  incident: z.string(),
  run: z.string(),
  mode: z.enum(['live', 'drill']),
  peer: z.object({
    nodeId: z.string(),
    url: z.string(),
    entityUri: z.string(),
    peerIds: z.array(z.string()),
  }),
  phase: z.enum(phases),
  round: z.int(),
  state: z.enum(['running', 'waiting', 'parked', 'closed']),
  outcome: z.enum(outcomes).nullable(),
  waitingFor: z.array(Waiting),
  steps: z.array(StepStatus),
  residual: z.array(Residual),
  coverage: z.array(Coverage),
  refused: z.object({
    count: z.int(),
    last: z.array(z.object({ at: z.string(), by: z.string(), because: z.enum(refusals), detail: z.string().optional() })),
  }),
  evidence: z.object({ head: z.string(), entries: z.int() }),
  firstBadAt: z.object({ at: z.string(), from: z.string() }).nullable(),
  alerts: z.object({ count: z.int(), corroborated: z.int() }),
  notes: z.array(z.object({ at: z.string(), by: z.string(), text: z.string() })),
  /** What an operator should know while it goes on: the fence's price, a recorded cancel request. */
  warnings: z.array(z.string()),
});
export type Status = z.infer<typeof Status>;

/** One proposed action, as query `plan` shows it. */
export const PlanItem = z.object({
  id: z.string(),
  entity: z.string(),
  relation: z.string(),
  scope: z.string(),
  action: z.string(),
  way: z.string(),
  rule: z.string(),
  reason: z.string(),
  evidence: z.array(z.string()),
});
export type PlanItem = z.infer<typeof PlanItem>;

/** Answer of query `plan`: items inline, or the evidence id that holds them. */
export const PlanAnswer = z.object({
  gate: z.enum(gates).nullable(),
  opening: z.int(),
  digest: z.string(),
  planHash: z.string(),
  counts: z.record(z.string(), z.int()),
  items: z.array(PlanItem).optional(),
  evidence: z.string().optional(),
});
export type PlanAnswer = z.infer<typeof PlanAnswer>;

/** What the workflow returns. */
export const IncidentResult = z.object({
  outcome: z.enum(outcomes),
  residual: z.array(Residual),
  evidenceHead: z.string(),
  report: z.string(),
});
export type IncidentResult = z.infer<typeof IncidentResult>;

/** One fact with its judgement: a line of the sealed plan. */
export const JudgedFact = PlanItem.extend({
  action: z.enum(factActions),
  /** sha256 of the fact as the node gave it: an approval is about this content. */
  contentHash: z.string(),
  /** Whether ours on the same triple is hidden now, and whether acting would hide it. */
  ours: z.string(),
  /** Justification of people who kept it. */
  justification: z.string().optional(),
  /** Suppressed with no other live fact beside it: a counter-statement keeps its entity's card out of recall. */
  counter: z.boolean().optional(),
  /** Not the peer's: id of the fact of the peer that it was derived from. Its owner decides. */
  derivedFrom: z.string().optional(),
});
export type JudgedFact = z.infer<typeof JudgedFact>;

/** `field: expected …, got …` for each issue of a failed parse, in words a person under stress can act on. */
export function explainIssues(error: z.ZodError, input: unknown): string {
  return error.issues
    .slice(0, 5)
    .map((issue) => {
      const field = issue.path.length === 0 ? '(whole payload)' : issue.path.map(String).join('.');
      return `${field}: ${issue.message.replace(/^Invalid input: /, '').replace(/, received .*$/, '')}, got ${shown(at(input, issue.path))}`;
    })
    .join('; ');
}

function at(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = Object.getOwnPropertyDescriptor(value, key)?.value;
  }
  return value;
}

/** A malformed value cut to what fits on one line. Never called on what may hold a secret. */
function shown(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? String(value);
  } catch {
    text = Object.prototype.toString.call(value);
  }
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}
