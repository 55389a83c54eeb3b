import type { RequestListener } from 'node:http';
import { App, HTTPReceiver, type RespondFn } from '@slack/bolt';
import type { Logger } from 'pino';
import { z } from 'zod';
import { CliError } from '../cli/exit.ts';
import { findIncident } from '../cli/incident.ts';
import type { ChatConfig, Env } from '../config.ts';
import { explainIssues } from '../contract/schemas.ts';
import { actions, ButtonValue } from './card.ts';
import { parseCommand, printedBy, usage } from './commands.ts';
import { say, show, type Decisions, type Reply } from './decide.ts';
import { boltLog } from './log.ts';
import { chatPatience } from './openings.ts';
import { PeopleError, personOf } from './people.ts';
import { boundedFetch } from './slack.ts';
import type { LazyTemporal } from './temporal.ts';
import type { Watch } from './watch.ts';

const id = z.string().min(1).max(300);
const CommandBody = z.object({ user_id: id, text: z.string().max(10_000).default(''), trigger_id: id });
const ClickBody = z.object({
  user: z.object({ id }),
  container: z.object({ message_ts: id, channel_id: id }),
  actions: z.array(z.object({ action_id: id, value: z.string().optional() })).length(1),
});

export interface AppParts {
  readonly config: ChatConfig;
  readonly env: Env;
  readonly temporal: LazyTemporal;
  readonly decisions: Decisions;
  readonly watch: Watch;
  readonly log: Logger;
}

/** Slack's commands and clicks: acknowledged at once, whatever Temporal does; answered afterwards, to that person alone. */
export class ChatApp {
  readonly listener: RequestListener;
  readonly #parts: AppParts;
  readonly #underWay = new Set<Promise<void>>();

  constructor(parts: AppParts) {
    this.#parts = parts;
    const { signingSecret, botToken, slackApiUrl } = parts.config;
    const logger = boltLog(parts.log);
    const receiver = new HTTPReceiver({ signingSecret, endpoints: ['/slack/events'], logger });
    const app = new App({
      receiver,
      logger,
      // Without asking Slack who we are: the acknowledgement waits for nobody.
      authorize: () => Promise.resolve({ botToken }),
      convoStore: false,
      ignoreSelf: false,
      clientOptions: { fetch: boundedFetch(), ...(slackApiUrl === undefined ? {} : { slackApiUrl }) },
    });
    app.command('/cordon', async ({ ack, body, respond }) => {
      await ack();
      this.#later(respond, () => this.#command(body));
    });
    for (const [verb, action] of [['approve', actions.approve] as const, ['reject', actions.reject] as const]) {
      app.action(action, async ({ ack, body, respond }) => {
        await ack();
        this.#later(respond, () => this.#click(verb, body));
      });
    }
    // A link that was opened; Slack tells it all the same.
    app.action(actions.open, async ({ ack }) => ack());
    app.error(async (error) => parts.log.error({ reason: error.message }, 'Bolt could not handle a request'));
    this.listener = receiver.requestListener;
  }

  /** Resolves when everything that was acknowledged has been answered. */
  async quiet(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
  }

  #later(respond: RespondFn, work: () => Promise<Reply>): void {
    const { log } = this.#parts;
    const answering = work()
      .catch((error: unknown) => say(wordsFor(error, log)))
      .then((reply) => respond({ ...reply, response_type: 'ephemeral', replace_original: false }))
      .then(() => undefined)
      .catch((error: unknown) => {
        // The address it went to is good for answering in that person's name: it is not logged.
        log.warn({ reason: error instanceof Error ? error.name : 'unknown' }, 'an answer did not reach Slack');
      })
      .finally(() => this.#underWay.delete(answering));
    this.#underWay.add(answering);
  }

  async #command(body: unknown): Promise<Reply> {
    const { user_id: user, text, trigger_id: trigger } = parse(CommandBody, body, 'the command');
    const { env, temporal, decisions, watch } = this.#parts;
    const by = await this.#person(user);
    const command = parseCommand(text, by);
    if (command.verb === 'help') return show(usage);
    if (command.verb === 'list' || command.verb === 'show') return show(await printedBy(env, command));
    this.#mayDecide();
    const session = await temporal.session();
    const { id: incident } = await findIncident(session, command.incident, chatPatience);
    const reply = await decisions.send({ user, incident, payload: command.payload, click: { trigger, user } });
    this.#look(watch, incident);
    return reply;
  }

  async #click(decision: 'approve' | 'reject', body: unknown): Promise<Reply> {
    const { user, container, actions: clicked } = parse(ClickBody, body, 'the click');
    const by = await this.#person(user.id);
    this.#mayDecide();
    const { incident, gate, digest } = parse(ButtonValue, clicked[0]?.value, 'the button');
    const { message_ts: ts, channel_id: channel } = container;
    // Without the time of the click: two quick clicks of one person on one button are one decision. With the name: a
    // refusal of a wrong one is not the answer to the right one.
    const click = { channel, ts, user: user.id, by, decision, digest };
    const reply = await this.#parts.decisions.send({ user: user.id, incident, payload: { gate, digest, decision, by }, click });
    this.#look(this.#parts.watch, incident);
    return reply;
  }

  /** Brings the incident's cards up to date, beside the answer. */
  #look(watch: Watch, incident: string): void {
    const looking = watch.look(incident).finally(() => this.#underWay.delete(looking));
    this.#underWay.add(looking);
  }

  async #person(user: string): Promise<string> {
    const person = await personOf(this.#parts.config.peopleFile, user);
    if (person !== undefined) return person;
    this.#parts.log.warn({ slackUser: user }, 'refused: not in the people file');
    throw new CliError('usage', `you (${user}) are not in the people file of cordon, so nothing was sent`);
  }

  #mayDecide(): void {
    if (this.#parts.config.decisions) return;
    throw new CliError(
      'usage',
      'chat only tells here (CORDON_CHAT_DECISIONS is off), so nothing was sent: decide with cordon approve on a terminal',
    );
  }
}

function parse<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new CliError('usage', `${what} is not as expected, nothing was sent: ${explainIssues(parsed.error, value)}`);
}

/** Any error as an answer to the person who caused it. */
function wordsFor(error: unknown, log: Logger): string {
  if (error instanceof CliError) return `${error.message}${error.next === undefined ? '' : `\nnext: ${error.next}`}`;
  log.warn({ reason: error instanceof Error ? error.message : String(error) }, 'nothing was sent');
  if (error instanceof PeopleError)
    return 'The people file of cordon can not be used, so nobody is known and nothing was sent. Whoever runs cordon chat finds the reason in its log.';
  return 'Temporal did not answer in time: nothing was sent. Try again, or: cordon doctor';
}
