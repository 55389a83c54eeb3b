import { setDefaultSignalHandler, setDefaultUpdateHandler, setHandler, workflowInfo, type SignalDefinition } from '@temporalio/workflow';
import { ApplicationFailure } from '@temporalio/common';
import type { z } from 'zod';
import {
  alertSignal,
  amendSignal,
  amendUpdate,
  approveSignal,
  closeSignal,
  decideUpdate,
  doneSignal,
  extendSignal,
  noteSignal,
  planQuery,
  rejectSignal,
  retrySignal,
  skipSignal,
  statusQuery,
} from '../src/contract/messages.ts';
import {
  Alert,
  Amendment,
  CloseRequest,
  Decision,
  explainIssues,
  Extension,
  Note,
  PlanQuery,
  StepMessage,
  Vote,
} from '../src/contract/schemas.ts';
import { openDoor } from './door.ts';
import { amend, amendCase, closeCase, extendCase, plainCase, settle, settleJunk, stepCase, voteCase, type Case } from './inbox.ts';
import type { Incident } from './incident.ts';
import { planOf } from './status.ts';

/** One signal: what it means, and how it is described in the Web UI. */
interface Signal {
  readonly definition: SignalDefinition<[unknown]>;
  readonly description: string;
  readonly read: (args: readonly unknown[]) => Case<unknown> | { readonly expected: string };
}

/**
 * Registers every handler, before the first await. A handler parses what came, records, and never throws:
 * a throw would wedge or fail the incident. What can't be parsed is refused on record and changes nothing.
 */
export function listen(incident: Incident): void {
  const malformed = (name: string, args: readonly unknown[], expected: string): string => {
    const detail = `${name}: ${expected}`;
    incident.refuse('malformed', claimedBy(args[0]), detail);
    return detail.slice(0, 500);
  };

  setHandler(
    decideUpdate,
    async (...args) => {
      incident.messages += 1;
      const parsed = parse(Decision, args);
      if ('expected' in parsed) {
        return { accepted: false, refusedBecause: 'malformed', have: 0, need: 0, detail: malformed('decide', args, parsed.expected) };
      }
      const { decision, ...given } = parsed.value;
      return settle(incident, voteCase(incident, decision, given));
    },
    { description: 'Approve or reject one opening of a gate, and get the verdict' },
  );

  setHandler(
    amendUpdate,
    async (...args) => {
      incident.messages += 1;
      const parsed = parse(Amendment, args);
      if ('expected' in parsed) return { accepted: false, refusedBecause: 'malformed', detail: malformed('amend', args, parsed.expected) };
      return amend(incident, parsed.value);
    },
    { description: 'Narrow the retract plan: keep facts, with a justification' },
  );

  const signalCame = (): void => {
    incident.messages += 1;
    incident.signals += 1;
  };
  const signals = signalsOf(incident);
  for (const { definition, description, read } of signals) {
    const handler = async (...args: unknown[]): Promise<void> => {
      signalCame();
      const found = read(args);
      if ('expected' in found) malformed(definition.name, args, found.expected);
      else await settle(incident, found);
    };
    setHandler(definition, handler, { description });
  }

  const unknown = (name: string, args: readonly unknown[]) =>
    malformed(
      `signal ${name.slice(0, 100)}`,
      args,
      'no such signal; expected approve, reject, amend, alert, note, retry, done, skip, close or extend',
    );
  setDefaultSignalHandler((name, ...args) => {
    signalCame();
    unknown(name, args);
  });
  setDefaultUpdateHandler((name, ...args) => {
    incident.messages += 1;
    const detail = malformed(`update ${name.slice(0, 100)}`, args, 'no such update; expected decide or amend');
    return { accepted: false, refusedBecause: 'malformed', detail };
  });

  const byName = new Map(signals.map((signal) => [signal.definition.name, signal]));
  openDoor((name, args, isFirst) => {
    const found = byName.get(name)?.read(args);
    if (found && !('expected' in found)) {
      if (!settleJunk(incident, found)) {
        if (!isFirst) return false;
        found.judge().settle();
      }
    } else if (found) malformed(name, args, found.expected);
    else unknown(name, args);
    signalCame();
    return true;
  });

  setHandler(statusQuery, () => incident.snapshot(), { description: 'Where the incident is, what it waits for, what is not verified' });

  setHandler(
    planQuery,
    (...args) => {
      const query = args.length === 0 || args[0] === undefined || args[0] === null ? {} : args[0];
      const parsed = PlanQuery.safeParse(query);
      // A query that throws fails only itself, and nothing is recorded.
      if (!parsed.success) throw ApplicationFailure.nonRetryable(`plan: ${explainIssues(parsed.error, query)}`, 'InvalidInput');
      const { gates } = incident.state;
      const { gate } = parsed.data;
      return planOf(incident.state, gate === undefined ? Object.values(gates)[0] : gates[gate], workflowInfo().runId);
    },
    { description: 'The list a gate is about' },
  );
}

function signalsOf(incident: Incident): Signal[] {
  const on = <S extends z.ZodType>(
    definition: SignalDefinition<[unknown]>,
    schema: S,
    mean: (payload: z.infer<S>) => Case<unknown>,
    description: string,
  ): Signal => ({
    definition,
    description,
    read: (args) => {
      const parsed = parse(schema, args);
      return 'expected' in parsed ? parsed : mean(parsed.value);
    },
  });
  const vote = '{"gate":"retract","digest":"sha256:…","by":"you"}';
  const step = '{"step":"revokeKeys","run":"<run id>","by":"you","note":"…"}';
  const keep = '{"gate":"retract","digest":"sha256:…","keep":[{"factId":"…","justification":"…"}],"by":"you"}';
  return [
    on(approveSignal, Vote, (given) => voteCase(incident, 'approve', given), `Approve one opening of a gate: ${vote}`),
    on(rejectSignal, Vote, (given) => voteCase(incident, 'reject', given), `Reject one opening of a gate: ${vote}`),
    on(amendSignal, Amendment, (amendment) => amendCase(incident, amendment), `Narrow the retract plan: ${keep}`),
    on(
      alertSignal,
      Alert,
      (alert) => plainCase(() => incident.alert(alert)),
      'Another alert about this peer: {"name":"peer_replay_burst"}',
    ),
    on(noteSignal, Note, ({ by, text }) => plainCase(() => incident.note(by, text)), 'Put a note on record: {"by":"you","text":"…"}'),
    on(retrySignal, StepMessage, (message) => stepCase(incident, 'retry', message), `Try a stuck step again: ${step}`),
    on(doneSignal, StepMessage, (message) => stepCase(incident, 'done', message), `You did a step by hand; it is read back: ${step}`),
    on(skipSignal, StepMessage, (message) => stepCase(incident, 'skip', message), `Go on without a step: ${step}`),
    on(
      closeSignal,
      CloseRequest,
      (request) => closeCase(incident, request),
      'Ask to close the incident: {"outcome":"expelled","run":"<run id>","by":"you","reason":"…"}',
    ),
    on(
      extendSignal,
      Extension,
      (extension) => extendCase(incident, extension),
      'Watch the peer longer: {"for":"24h","run":"<run id>","by":"you"}',
    ),
  ];
}

function parse<S extends z.ZodType>(schema: S, args: readonly unknown[]): { value: z.infer<S> } | { expected: string } {
  if (args.length !== 1) return { expected: `expected exactly one JSON object, got ${args.length} arguments` };
  const parsed = schema.safeParse(args[0]);
  return parsed.success ? { value: parsed.data } : { expected: explainIssues(parsed.error, args[0]) };
}

function claimedBy(payload: unknown): string {
  const by = typeof payload === 'object' && payload !== null && 'by' in payload ? payload.by : undefined;
  return typeof by === 'string' ? by : 'unknown';
}
