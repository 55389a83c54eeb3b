import { canonicalJson, sha256Id } from '../contract/canonical.ts';
import { DecisionAnswer, Vote, type Decision } from '../contract/schemas.ts';
import { isNoWorker, isNotFound, isUnreachable, withDeadline, type TemporalSession } from '../temporal.ts';
import { CliError } from './exit.ts';
import { ask, cliPatience, send, type Patience } from './incident.ts';
import { checked } from './input.ts';
import { clean, shellWord } from './text.ts';

// The one way a decision goes to an incident: from the command line and from chat.

/**
 * Sends a decision and gives the incident's verdict. Undefined: no worker answered, so it was sent as a signal, which
 * stands in the history and counts, or is refused, when a worker runs. The same `updateId` is the same decision.
 */
export async function sendDecision(
  session: TemporalSession,
  id: string,
  payload: Decision,
  updateId: string,
  patience: Patience = cliPatience,
): Promise<DecisionAnswer | undefined> {
  const answer = await askVerdict(session, id, 'decide', payload, updateId, patience);
  if (answer !== undefined) return DecisionAnswer.parse(answer);
  const { decision: signal, ...rest } = payload;
  await send(session, id, signal, checked(Vote, rest, 'the decision'), { ms: patience.serverMs, requestId: updateId });
  return undefined;
}

/**
 * Is there a worker to take an update? The server keeps one that nobody takes although its sender has gone: sent beside
 * the signal, one of the two would be refused as counted already. A question leaves nothing behind.
 */
async function mayAnswer(session: TemporalSession, id: string, patience: Patience): Promise<boolean> {
  try {
    return (await ask(session, id, 'status', [], patience)) !== undefined;
  } catch (error) {
    if (isUnreachable(error) || isNotFound(error)) throw error;
    // An answer that fails is an answer: it must not keep a decision from its incident.
    return true;
  }
}

/** An update's answer; undefined when no worker takes it in time, or the server takes no more updates: a signal then says it. */
export async function askVerdict(
  session: TemporalSession,
  id: string,
  name: 'decide' | 'amend',
  payload: object,
  updateId: string,
  patience: Patience = cliPatience,
): Promise<unknown> {
  const started = Date.now();
  if (!(await mayAnswer(session, id, patience))) return undefined;
  const { verdictMs } = patience;
  const workerMs = Math.max(patience.workerMs - (Date.now() - started), 1_000);
  try {
    const handle = session.client.workflow.getHandle(id);
    const taken = await withDeadline(session.client, workerMs, () =>
      handle.startUpdate<unknown, [object]>(name, { args: [payload], updateId, waitForStage: 'ACCEPTED' }),
    );
    // A worker has it now: what it still has to do may take longer, and no signal must be sent beside it.
    return await withDeadline(session.client, verdictMs, () => taken.result()).catch((error: unknown) => {
      if (!isNoWorker(error)) throw error;
      throw new CliError('unconfirmed', `${name} was taken, its verdict is not there yet`, `cordon show ${shellWord(id)}`);
    });
  } catch (error) {
    if (error instanceof CliError) throw error;
    if (isUnreachable(error)) throw error;
    if (isNotFound(error)) throw new CliError('failed', `${clean(id)} is closed: it takes no more decisions`, 'cordon list');
    if (isNoWorker(error) || isExhausted(error)) return undefined;
    throw error;
  }
}

/** An id that is the same for the same thing sent. */
export function sameId(prefix: string, value: unknown): string {
  return `${prefix}-${sha256Id(canonicalJson(value)).slice('sha256:'.length, 'sha256:'.length + 32)}`;
}

/** The server's limits on updates are used up (a flood): the signal is the other way in. */
function isExhausted(error: unknown): boolean {
  const seen = [error, error instanceof Error ? error.cause : undefined];
  return seen.some((e) => e instanceof Error && 'code' in e && e.code === 8);
}
