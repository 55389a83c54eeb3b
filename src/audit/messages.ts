import {
  Alert,
  Amendment,
  CloseRequest,
  Decision as DecisionPayload,
  explainIssues,
  Extension,
  Note,
  signalSchemas,
  StepMessage,
  updateSchemas,
  Vote,
} from '../contract/schemas.ts';
import { samePerson, type Policy } from '../contract/policy.ts';
import { z } from 'zod';
import type { ActivityRecord } from './activities.ts';
import { memoOf, type Digests } from './digests.ts';
import { onlyValue, type Decoded, type HistoryEvent } from './history.ts';
import type { AuditRun } from './read.ts';
import type { RunSummary } from './project.ts';
import type { Decision, VoteLedger } from './votes.ts';

/** One message from outside, and what came of it. */
export interface Message {
  readonly at: string;
  readonly runId: string;
  readonly eventId: number;
  readonly via: 'signal' | 'update';
  readonly name: string;
  /** Who it says it is from, and what the sending program called itself. */
  readonly who: string;
  readonly what: string;
  /** Wrong shape, unknown name or undecodable: which. */
  readonly malformed: string | null;
  readonly refused: boolean;
  readonly decision?: Decision;
}

interface Context {
  readonly digests: Digests;
  readonly ledger: VoteLedger;
  readonly policy: Policy;
  readonly activities: readonly ActivityRecord[];
  readonly summary: RunSummary;
  readonly allEvents: readonly HistoryEvent[];
}

const schemas = { signal: signalSchemas, update: updateSchemas };
const CarriedGates = z.looseObject({
  gates: z.record(
    z.string(),
    z.looseObject({ opening: z.number(), plan: z.looseObject({ planHash: z.string(), summary: z.string().default('') }) }),
  ),
  pending: z.record(z.string(), z.unknown()).default({}),
});
type Open = NonNullable<ReturnType<typeof memoOf>>;
const nothingOpen: Open = { phase: '', round: 1, gates: new Map(), steps: new Set() };
const Answer = z.looseObject({ accepted: z.boolean(), refusedBecause: z.string().nullish() });

/** Walks a run's events once, and judges each message by what the history held before it. */
export function readMessages(run: AuditRun, context: Context): Message[] {
  const { digests, activities } = context;
  const messages: Message[] = [];
  const byEnd = new Map(activities.map((record) => [record.ended?.eventId ?? -1, record]));
  const accepted = new Map<string, Message>();
  const admitted: Admitted = new Map();
  // What a reset copied is not walked again, but what it left open still is.
  let open: Open = openBefore(context, Number(run.events[0]?.eventId ?? 1)) ?? carriedGates(run, context) ?? nothingOpen;
  for (const event of run.events) {
    const ended = byEnd.get(Number(event.eventId));
    if (ended) digests.addResult(ended);
    open = openAfter(event) ?? open;
    const message = messageOf(event, admitted);
    if (message) {
      const told = judge(run.runId, event, message, context, open);
      messages.push(told);
      if (message.via === 'update') accepted.set(event.eventId, told);
    }
    const completed = event.workflowExecutionUpdateCompletedEventAttributes;
    const asked = completed ? accepted.get(completed.acceptedEventId) : undefined;
    const answer = completed ? Answer.safeParse(onlyValue(completed.outcome?.success ?? [])).data : undefined;
    if (asked?.decision && answer) asked.decision.answered = { accepted: answer.accepted, refusedBecause: answer.refusedBecause ?? null };
  }
  return messages;
}

function openAfter(event: HistoryEvent): Open | undefined {
  const memo = event.workflowPropertiesModifiedEventAttributes?.upsertedMemo?.fields['cordon'];
  return memo && 'value' in memo ? memoOf(memo.value) : undefined;
}

function openBefore({ allEvents }: Context, eventId: number): Open | undefined {
  const before = allEvents.filter((event) => Number(event.eventId) < eventId && openAfter(event) !== undefined).at(-1);
  return before && openAfter(before);
}

function carriedGates({ events, runId }: AuditRun, { digests, summary }: Context): Open | undefined {
  const carried = events[0]?.workflowExecutionStartedEventAttributes?.input[1];
  if (!carried || !('value' in carried) || summary.continuedFrom === '') return undefined;
  const { gates = {}, pending = {} } = CarriedGates.safeParse(carried.value).data ?? {};
  digests.addRun(runId);
  const memo = memoOf({
    gates: Object.entries(gates).map(([gate, { opening }]) => `${gate}#${opening}`),
    steps: Object.keys(pending),
    phase: '',
  });
  for (const gate of memo?.gates.keys() ?? []) {
    const plan = gates[gate]?.plan;
    if (plan) digests.addPlan({ gate, planHash: plan.planHash, about: plan.summary });
  }
  return memo;
}

interface Raw {
  readonly via: 'signal' | 'update';
  readonly name: string;
  readonly args: readonly Decoded[];
  readonly identity: string;
}

type Admitted = Map<string, NonNullable<NonNullable<HistoryEvent['workflowExecutionUpdateAdmittedEventAttributes']>['request']>>;

function messageOf(event: HistoryEvent, admitted: Admitted): Raw | undefined {
  const signal = event.workflowExecutionSignaledEventAttributes;
  if (signal) return { via: 'signal', name: signal.signalName, args: signal.input, identity: signal.identity };
  const again = event.workflowExecutionUpdateAdmittedEventAttributes?.request;
  if (again) admitted.set(again.meta.updateId, again);
  const accepted = event.workflowExecutionUpdateAcceptedEventAttributes;
  const update = accepted && (accepted.acceptedRequest ?? admitted.get(accepted.protocolInstanceId));
  return update && { via: 'update', name: update.input.name, args: update.input.args, identity: update.meta.identity };
}

function judge(runId: string, event: HistoryEvent, raw: Raw, context: Context, open: Open): Message {
  const { via, name, args, identity } = raw;
  const common = { at: event.eventTime, runId, eventId: Number(event.eventId), via, name: name.slice(0, 200) };
  const malformed = (why: string): Message => ({
    ...common,
    who: identity,
    what: `${via} ${name.slice(0, 100)}: refused as malformed: ${why}`,
    malformed: why,
    refused: true,
  });
  if (!Object.hasOwn(schemas[via], name)) return malformed('no such message');
  const [undecodable] = args.flatMap((arg) => ('undecodable' in arg ? [arg.undecodable] : []));
  if (undecodable !== undefined) return malformed(`undecodable: ${undecodable}`);
  if (args.length !== 1) return malformed(`expected exactly one JSON object, got ${args.length} arguments`);
  const payload = onlyValue(args);
  const parsed = parseAs(via, name, payload);
  if ('wrong' in parsed) return malformed(parsed.wrong);
  if (name === 'decide' || name === 'approve' || name === 'reject') {
    const vote: DecisionPayload = name === 'decide' ? DecisionPayload.parse(payload) : { ...Vote.parse(payload), decision: name };
    const { gate, digest, by, note = '', fingerprint = '' } = vote;
    const { principal } = event;
    const seen = principal ? `${principal.type} ${principal.name}`.trim() : '';
    const said = {
      at: common.at,
      runId,
      eventId: common.eventId,
      via,
      decision: vote.decision,
      gate,
      digest,
      by,
      note,
      fingerprint,
      identity,
      principal: seen,
    };
    const decision = context.ledger.count(said, context.digests, context.policy, open.gates);
    const { named, refusedBecause } = decision;
    const about = named ? ` (opening ${named.opening}: ${named.about})` : '';
    const what = `${vote.decision} ${gate} under ${digest}${about}: ${refusedBecause === null ? 'counted' : `refused, ${refusedBecause}`}`;
    return { ...common, who: `${by} (as ${identity})`, what, malformed: null, refused: refusedBecause !== null, decision };
  }
  if (via === 'signal') context.digests.addRequest(name, payload);
  return { ...common, who: `${parsed.by} (as ${identity})`, ...told(name, payload, runId, context, open) };
}

function parseAs(via: Raw['via'], name: string, payload: unknown): { readonly by: string } | { readonly wrong: string } {
  for (const [known, schema] of Object.entries(schemas[via])) {
    if (known !== name) continue;
    const parsed = schema.safeParse(payload);
    if (!parsed.success) return { wrong: explainIssues(parsed.error, payload) };
    return { by: 'by' in parsed.data ? parsed.data.by : '' };
  }
  return { wrong: 'no such message' };
}

function told(
  name: string,
  payload: unknown,
  runId: string,
  { digests, policy }: Context,
  open: Open,
): Pick<Message, 'what' | 'malformed' | 'refused'> {
  const plain = (what: string, why = '') => ({
    what: why === '' ? what : `${what}: refused, ${why}`,
    malformed: null,
    refused: why !== '',
  });
  const wrongRun = (run: string) => (runId.startsWith(run) ? '' : 'it names another run');
  if (name === 'alert') {
    const { name: alert, detail = '' } = Alert.parse(payload);
    return plain(`alert ${alert}${detail === '' ? '' : `: ${detail}`}`);
  }
  if (name === 'note') return plain(`note: ${Note.parse(payload).text}`);
  if (name === 'amend') {
    const { keep, digest, by } = Amendment.parse(payload);
    const facts = keep.slice(0, 5).map(({ factId, justification }) => `${factId} (${justification})`);
    const opening = open.gates.get('retract');
    const named = digests.find(digest, 'retract');
    const { approvers } = policy.gates.retract;
    const why =
      opening === undefined
        ? 'not_open'
        : named?.runId !== runId || named.opening !== opening
          ? 'stale_digest'
          : approvers === null || approvers.some((person) => samePerson(person, by))
            ? ''
            : 'not_allowed';
    return plain(`asked to keep ${keep.length} facts of the plan under ${digest}: ${facts.join('; ')}`, why);
  }
  if (name === 'close') {
    const { outcome, reason, run } = CloseRequest.parse(payload);
    const asked = open.gates.has(outcome === 'expelled' ? 'close' : 'restore') ? 'asked already' : '';
    return plain(`asked to close as ${outcome}: ${reason}`, wrongRun(run) || asked);
  }
  if (name === 'extend') {
    const { for: longer, note = '', run } = Extension.parse(payload);
    const why = open.phase === 'watch' || open.phase === '' ? '' : 'no watch is under way';
    return plain(`asked to watch ${longer} longer${note === '' ? '' : `: ${note}`}`, wrongRun(run) || why);
  }
  const { step, note = '', run } = StepMessage.parse(payload);
  return plain(`${name} ${step}${note === '' ? '' : `: ${note}`}`, wrongRun(run) || (open.steps.has(step) ? '' : 'no such step waits'));
}
