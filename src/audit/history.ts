import { z } from 'zod';
import { explainIssues } from '../contract/schemas.ts';

/** A payload as history holds it, decoded, or why it can't be. */
export type Decoded = { readonly value: unknown } | { readonly undecodable: string };

const Payload = z
  .looseObject({ metadata: z.record(z.string(), z.string()).nullish(), data: z.string().nullish() })
  .transform(({ metadata, data }) => decode(metadata?.['encoding'] ?? '', data ?? ''));
const Payloads = z
  .looseObject({ payloads: z.array(Payload).default([]) })
  .nullish()
  .transform((list): Decoded[] => list?.payloads ?? []);
const Named = z.looseObject({ name: z.string().default('') }).default({ name: '' });
const Failure = z.looseObject({
  message: z.string().default(''),
  applicationFailureInfo: z.looseObject({ type: z.string().default('') }).optional(),
});
const id = z.string().default('');
const UpdateRequest = z.looseObject({
  meta: z.looseObject({ updateId: id, identity: id }).default({ updateId: '', identity: '' }),
  input: z.looseObject({ name: id, args: Payloads }),
});

/** The parts of an event that an audit reads. Everything else of it is left alone. */
export const HistoryEvent = z.looseObject({
  eventId: z.string().regex(/^[1-9][0-9]{0,9}$/, 'expected an event id'),
  eventTime: z.string().refine((text) => !Number.isNaN(Date.parse(text)), 'expected a time'),
  eventType: z.string().min(1),
  /** Who the server itself says it was; only with principal propagation switched on. */
  principal: z.looseObject({ type: z.string().default(''), name: z.string().default('') }).nullish(),
  workflowExecutionStartedEventAttributes: z
    .looseObject({
      workflowType: Named,
      workflowId: z.string().optional(),
      input: Payloads,
      originalExecutionRunId: id,
      firstExecutionRunId: id,
      continuedExecutionRunId: id,
      identity: id,
    })
    .optional(),
  workflowExecutionSignaledEventAttributes: z.looseObject({ signalName: id, input: Payloads, identity: id }).optional(),
  /** What a reset brings again: the accepted event after it names it by its id only. */
  workflowExecutionUpdateAdmittedEventAttributes: z.looseObject({ request: UpdateRequest.optional() }).optional(),
  workflowExecutionUpdateAcceptedEventAttributes: z
    .looseObject({ protocolInstanceId: id, acceptedRequest: UpdateRequest.optional() })
    .optional(),
  workflowExecutionUpdateCompletedEventAttributes: z
    .looseObject({ acceptedEventId: id, outcome: z.looseObject({ success: Payloads, failure: Failure.optional() }).optional() })
    .optional(),
  activityTaskScheduledEventAttributes: z.looseObject({ activityType: Named, input: Payloads }).optional(),
  activityTaskStartedEventAttributes: z
    .looseObject({ scheduledEventId: id, attempt: z.number().default(1), identity: id, lastFailure: Failure.optional() })
    .optional(),
  activityTaskCompletedEventAttributes: z.looseObject({ scheduledEventId: id, result: Payloads }).optional(),
  activityTaskFailedEventAttributes: z.looseObject({ scheduledEventId: id, failure: Failure.optional() }).optional(),
  activityTaskTimedOutEventAttributes: z.looseObject({ scheduledEventId: id, failure: Failure.optional() }).optional(),
  activityTaskCanceledEventAttributes: z.looseObject({ scheduledEventId: id }).optional(),
  workflowTaskCompletedEventAttributes: z.looseObject({ identity: id }).optional(),
  workflowTaskFailedEventAttributes: z
    .looseObject({ cause: id, baseRunId: id, newRunId: id, identity: id, failure: Failure.optional() })
    .optional(),
  workflowPropertiesModifiedEventAttributes: z
    .looseObject({ upsertedMemo: z.looseObject({ fields: z.record(z.string(), Payload).default({}) }).optional() })
    .optional(),
  workflowExecutionCancelRequestedEventAttributes: z.looseObject({ identity: id, reason: id, cause: id }).optional(),
  workflowExecutionContinuedAsNewEventAttributes: z.looseObject({ newExecutionRunId: id }).optional(),
  workflowExecutionCompletedEventAttributes: z.looseObject({ result: Payloads }).optional(),
  workflowExecutionFailedEventAttributes: z.looseObject({ failure: Failure.optional() }).optional(),
  workflowExecutionTerminatedEventAttributes: z.looseObject({ reason: id, identity: id }).optional(),
  workflowExecutionTimedOutEventAttributes: z.looseObject({}).optional(),
  workflowExecutionCanceledEventAttributes: z.looseObject({}).optional(),
});
export type HistoryEvent = z.infer<typeof HistoryEvent>;

/** A history that can't be read; the message names the field, what was expected, and what came. */
export class HistoryError extends Error {
  override readonly name = 'HistoryError';
}

/** Parses one event of a history. Throws {@link HistoryError}. */
export function parseEvent(raw: unknown, where: string): HistoryEvent {
  const parsed = HistoryEvent.safeParse(raw);
  if (parsed.success) return parsed.data;
  throw new HistoryError(`${where}: ${explainIssues(parsed.error, raw)}`);
}

/**
 * Events of a history file: one JSON object with `events`, as `temporal workflow show --output json` writes it, or one
 * event a line, as our own export does. Throws {@link HistoryError}.
 */
export function parseHistory(text: string, name: string): HistoryEvent[] {
  const whole = parseJson(text);
  if (typeof whole === 'object' && whole !== null && !('eventId' in whole)) {
    const { events } = z.looseObject({ events: z.unknown() }).catch({ events: undefined }).parse(whole);
    if (Array.isArray(events))
      return atLeastOne(
        events.map((event, at) => parseEvent(event, `${name}: events.${at}`)),
        name,
      );
    throw new HistoryError(`${name}: events: expected the list of events, got ${typeof events}`);
  }
  const lines = text.split('\n').flatMap((line, at) => (line.trim() === '' ? [] : [{ line, at }]));
  const events = lines.map(({ line, at }) => {
    const raw = parseJson(line);
    if (raw === undefined)
      throw new HistoryError(`${name}: line ${at + 1}: expected a JSON object, got ${JSON.stringify(line.slice(0, 60))}`);
    return parseEvent(raw, `${name}: line ${at + 1}`);
  });
  return atLeastOne(events, name);
}

function atLeastOne(events: HistoryEvent[], name: string): HistoryEvent[] {
  if (events.length === 0) throw new HistoryError(`${name}: expected at least one event, got none`);
  return events;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function decode(encoding64: string, data64: string): Decoded {
  const encoding = Buffer.from(encoding64, 'base64').toString('utf8').slice(0, 100);
  if (encoding === 'binary/null') return { value: null };
  if (encoding !== 'json/plain') return { undecodable: encoding === '' ? 'no encoding named' : `encoding ${encoding}` };
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(data64, 'base64'));
    return { value: JSON.parse(text) };
  } catch {
    return { undecodable: 'the bytes are no JSON' };
  }
}

/** The one value of a list of payloads; undefined when there is none, several, or it can't be decoded. */
export function onlyValue(payloads: readonly Decoded[]): unknown {
  const [first, ...others] = payloads;
  return first && others.length === 0 && 'value' in first ? first.value : undefined;
}
