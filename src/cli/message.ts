import { steps } from '../contract/names.ts';
import { CloseRequest, Extension, Note, StepMessage, type Status } from '../contract/schemas.ts';
import type { Answer, Cli } from './cli.ts';
import { unconfirmed } from './decide.ts';
import { CliError } from './exit.ts';
import { askStatus, findIncident, send, type Incident } from './incident.ts';
import { checked, required } from './input.ts';
import { clean, shellWord } from './text.ts';

export interface MessageOptions {
  by?: string;
  note?: string;
  text?: string;
  outcome?: string;
  reason?: string;
  for?: string;
}

const anyRun = '00000000';

/** `note`: something for the record. */
export async function note(cli: Cli, text: string, words: string, options: MessageOptions): Promise<Answer> {
  const payload = checked(Note, { by: named(options), text: words }, 'the note');
  return await tell(cli, text, { verb: 'note', by: payload.by, about: '' }, () => payload, 'your note');
}

/** `retry`, `done`, `skip`: what to do about a step that is stuck. */
export async function aboutStep(
  cli: Cli,
  verb: 'retry' | 'done' | 'skip',
  text: string,
  step: string,
  options: MessageOptions,
): Promise<Answer> {
  if (!steps.some((known) => known === step)) {
    throw new CliError('usage', `step: expected one of ${steps.join(', ')}; got ${JSON.stringify(step)}`);
  }
  if (verb !== 'retry') required(options.note, '--note', verb === 'skip' ? 'why it may be left out' : 'what was done by hand');
  const fields = { step, by: named(options), ...(options.note === undefined ? {} : { note: options.note }) };
  checked(StepMessage, { ...fields, run: anyRun }, `the ${verb}`);
  return await tell(cli, text, { verb, by: fields.by, about: step }, (run) => ({ ...fields, run }), `your ${verb} of ${step}`);
}

/** `extend`: the watch lasts longer. */
export async function extend(cli: Cli, text: string, options: MessageOptions): Promise<Answer> {
  const longer = required(options.for, '--for', 'how much longer, 24h or 7d');
  const fields = { for: longer, by: named(options), ...(options.note === undefined ? {} : { note: options.note }) };
  checked(Extension, { ...fields, run: anyRun }, 'the extension');
  const asked = { verb: 'extend', by: fields.by, about: `extend watch by ${longer}` };
  return await tell(cli, text, asked, (run) => ({ ...fields, run }), `your request to watch ${longer} longer`);
}

/** `close`: asks for an end; it opens a gate, approved like any other. */
export async function close(cli: Cli, text: string, options: MessageOptions): Promise<Answer> {
  const outcome = required(options.outcome, '--outcome', 'expelled or dismissed');
  const reason = required(options.reason, '--reason', 'why it may end like this');
  const fields = { outcome, by: named(options), reason };
  checked(CloseRequest, { ...fields, run: anyRun }, 'the close request');
  const asked = { verb: 'close', by: fields.by, about: `close ${outcome}` };
  const answer = await tell(cli, text, asked, (run) => ({ ...fields, run }), `your request to close as ${outcome}`);
  if (answer.exit !== undefined) return answer;
  const gate = outcome === 'dismissed' ? 'restore' : 'close';
  return { ...answer, text: [...answer.text, `It opens gate ${gate}: approve that gate when it waits.`] };
}

/** Sends a signal and reads back whether the incident refused it. */
async function tell(cli: Cli, text: string, sender: Sender, payload: (run: string) => object, what: string): Promise<Answer> {
  const { verb: signal } = sender;
  const session = await cli.temporal();
  const incident = await findIncident(session, text);
  if (!incident.isOpen) throw closed(incident);
  const before = await cli.working('asking for the status', askStatus(session, incident.id));
  const sent = payload(incident.runId);
  await send(session, incident.id, signal, sent);
  const json = { signal, payload: sent };
  if (before === undefined) return unconfirmed(incident.id, what, json);
  const after = await cli.working('reading back', askStatus(session, incident.id));
  if (after === undefined) return unconfirmed(incident.id, what, json);
  const refusal = refusalOf(sender, before, after);
  const show = `next: cordon show ${shellWord(incident.id)}`;
  if (refusal !== undefined) {
    const lines = refusal.detail === undefined ? [show] : [clean(refusal.detail), show];
    const next = `REFUSED (${refusal.because}): ${clean(what)} changed nothing`;
    return { next, text: lines, json: { incident: incident.id, ...json, refused: refusal }, exit: 'failed' };
  }
  return { next: `taken: ${clean(what)}`, text: [show], json: { incident: incident.id, ...json, phase: after.phase, state: after.state } };
}

/** Whose refusal it would be: others may send what is refused at the same time, junk by the thousand too. */
interface Sender {
  readonly verb: string;
  readonly by: string;
  /** What the refusal's detail names. */
  readonly about: string;
}

/** The sender's own refusal among those that came between two looks at the status. */
export function refusalOf(
  { by, about }: Sender,
  before: Pick<Status, 'refused'>,
  after: Pick<Status, 'refused'>,
): Status['refused']['last'][number] | undefined {
  const count = after.refused.count - before.refused.count;
  const since = count > 0 ? after.refused.last.slice(-count) : [];
  return since.findLast((refusal) => refusal.by === by.slice(0, 200) && (refusal.detail ?? '').includes(about));
}

function closed(incident: Incident): CliError {
  const state = incident.description.status.name.toLowerCase();
  return new CliError('failed', `${clean(incident.id)} is closed (${state}): nothing was sent`, `cordon show ${shellWord(incident.id)}`);
}

const named = (options: MessageOptions) => required(options.by, '--by', 'the name of the person who says so');
