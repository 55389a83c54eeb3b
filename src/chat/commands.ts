import { parseArgs } from 'node:util';
import { Cli, type Answer, type Io } from '../cli/cli.ts';
import { CliError } from '../cli/exit.ts';
import { checked } from '../cli/input.ts';
import { list } from '../cli/list.ts';
import { show } from '../cli/show.ts';
import type { Env } from '../config.ts';
import { gates } from '../contract/names.ts';
import { Decision } from '../contract/schemas.ts';

/** What somebody typed after `/cordon`. */
export type Command =
  | { readonly verb: 'help' }
  | { readonly verb: 'list' }
  | { readonly verb: 'show'; readonly incident: string }
  | { readonly verb: 'approve' | 'reject'; readonly incident: string; readonly payload: Decision };

export const usage = [
  '/cordon list',
  '/cordon show <incident>',
  '/cordon approve <incident> <gate> <sha256:… or 12 digits of the digest or more> [--fingerprint sha256:…] [note]',
  '/cordon reject <incident> <gate> <sha256:…> [note]',
  '',
  `Gates: ${gates.join(', ')}. The digest stands on the card and in cordon plan.`,
  '<incident>: the workflow id, the node_id of the peer, or a part that only one incident has.',
].join('\n');

const columns = 100;

/**
 * Parses a command; `by` is who Slack says typed it. The options of the command line work too, but for --by.
 * Throws CliError: which part, what was expected, what came.
 */
export function parseCommand(text: string, by: string): Command {
  const words = text.trim().split(/\s+/).filter(Boolean);
  const [verb = 'help', ...args] = words;
  if (verb === 'help' || verb === 'list') return { verb };
  if (verb !== 'show' && verb !== 'approve' && verb !== 'reject') {
    throw new CliError('usage', `expected list, show, approve or reject; got ${JSON.stringify(verb.slice(0, 50))}`);
  }
  if (verb === 'show') {
    const [incident] = args;
    if (incident === undefined) throw new CliError('usage', 'show: which incident?');
    return { verb, incident };
  }
  const { positionals, values } = parsed(args);
  if (values.by !== undefined) throw new CliError('usage', '--by: in chat you decide as who you are');
  const [incident, ...rest] = positionals;
  const gate = values.gate ?? rest.shift();
  const digest = values.digest ?? rest.shift();
  if (incident === undefined || gate === undefined) throw new CliError('usage', `${verb}: expected an incident and a gate`);
  if (digest === undefined) throw new CliError('usage', `${verb}: which plan? Its digest stands on the card: 12 digits of it or more`);
  const note = [values.note, ...rest].filter(Boolean).join(' ');
  const payload = {
    gate,
    decision: verb,
    digest: digest.startsWith('sha256:') ? digest : `sha256:${digest}`,
    by,
    ...(note === '' ? {} : { note }),
    ...(values.fingerprint === undefined ? {} : { fingerprint: values.fingerprint }),
  };
  return { verb, incident, payload: checked(Decision, payload, 'the decision') };
}

function parsed(args: string[]) {
  const text = { type: 'string' } as const;
  try {
    return parseArgs({ args, allowPositionals: true, options: { gate: text, digest: text, note: text, fingerprint: text, by: text } });
  } catch (error) {
    throw new CliError('usage', error instanceof Error ? error.message.slice(0, 200) : 'expected other options');
  }
}

/** What `cordon list` or `cordon show` prints, errors included: the same words as on a terminal. */
export async function printedBy(env: Env, command: { verb: 'list' } | { verb: 'show'; incident: string }): Promise<string> {
  const lines: string[] = [];
  const take = (text: string) => void lines.push(text);
  const io: Io = {
    env,
    out: take,
    err: take,
    isTerminal: false,
    errIsTerminal: false,
    ask: undefined,
    columns,
    now: () => Date.now(),
  };
  const answer = (cli: Cli): Promise<Answer> => (command.verb === 'list' ? list(cli, {}) : show(cli, command.incident));
  await new Cli(io, false).run(answer);
  return lines.join('\n');
}
