import { setDefaultSignalHandler, setDefaultUpdateHandler, setHandler, workflowInfo } from '@temporalio/workflow';
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
  noteSignal,
  planQuery,
  rejectSignal,
  retrySignal,
  skipSignal,
  statusQuery,
} from '../src/contract/messages.ts';
import { Alert, Amendment, CloseRequest, Decision, explainIssues, Note, PlanQuery, StepMessage, Vote } from '../src/contract/schemas.ts';
import { amend, closeRequest, stepCommand, vote } from './inbox.ts';
import type { Incident } from './incident.ts';
import { planOf } from './status.ts';

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
      return vote(incident, decision, given);
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

  const on =
    <S extends z.ZodType>(name: string, schema: S, record: (payload: z.infer<S>) => unknown) =>
    async (...args: unknown[]): Promise<void> => {
      incident.messages += 1;
      const parsed = parse(schema, args);
      if ('expected' in parsed) malformed(name, args, parsed.expected);
      else await record(parsed.value);
    };

  const shape = '{"gate":"retract","digest":"sha256:…","by":"you"}';
  setHandler(
    approveSignal,
    on('approve', Vote, (given) => vote(incident, 'approve', given)),
    { description: `Approve one opening of a gate: ${shape}` },
  );
  setHandler(
    rejectSignal,
    on('reject', Vote, (given) => vote(incident, 'reject', given)),
    { description: `Reject one opening of a gate: ${shape}` },
  );
  setHandler(
    amendSignal,
    on('amend', Amendment, (amendment) => amend(incident, amendment)),
    {
      description: 'Narrow the retract plan: {"gate":"retract","digest":"sha256:…","keep":[{"factId":"…","justification":"…"}],"by":"you"}',
    },
  );
  setHandler(
    alertSignal,
    on('alert', Alert, (alert) => incident.alert(alert)),
    { description: 'Another alert about this peer: {"name":"peer_replay_burst"}' },
  );
  setHandler(
    noteSignal,
    on('note', Note, ({ by, text }) => incident.note(by, text)),
    { description: 'Put a note on record: {"by":"you","text":"…"}' },
  );
  const stepShape = '{"step":"revokeKeys","run":"<run id>","by":"you","note":"…"}';
  setHandler(
    retrySignal,
    on('retry', StepMessage, (message) => stepCommand(incident, 'retry', message)),
    { description: `Try a stuck step again: ${stepShape}` },
  );
  setHandler(
    doneSignal,
    on('done', StepMessage, (message) => stepCommand(incident, 'done', message)),
    { description: `You did a step by hand; it is read back: ${stepShape}` },
  );
  setHandler(
    skipSignal,
    on('skip', StepMessage, (message) => stepCommand(incident, 'skip', message)),
    { description: `Go on without a step: ${stepShape}` },
  );
  setHandler(
    closeSignal,
    on('close', CloseRequest, (request) => closeRequest(incident, request)),
    {
      description: 'Ask to close the incident: {"outcome":"expelled","run":"<run id>","by":"you","reason":"…"}',
    },
  );

  setDefaultSignalHandler((name, ...args) => {
    incident.messages += 1;
    malformed(
      `signal ${name.slice(0, 100)}`,
      args,
      'no such signal; expected approve, reject, amend, alert, note, retry, done, skip or close',
    );
  });
  setDefaultUpdateHandler((name, ...args) => {
    incident.messages += 1;
    const detail = malformed(`update ${name.slice(0, 100)}`, args, 'no such update; expected decide or amend');
    return { accepted: false, refusedBecause: 'malformed', detail };
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

function parse<S extends z.ZodType>(schema: S, args: readonly unknown[]): { value: z.infer<S> } | { expected: string } {
  if (args.length !== 1) return { expected: `expected exactly one JSON object, got ${args.length} arguments` };
  const parsed = schema.safeParse(args[0]);
  return parsed.success ? { value: parsed.data } : { expected: explainIssues(parsed.error, args[0]) };
}

function claimedBy(payload: unknown): string {
  const by = typeof payload === 'object' && payload !== null && 'by' in payload ? payload.by : undefined;
  return typeof by === 'string' ? by : 'unknown';
}
