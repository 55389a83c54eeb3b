import { z } from 'zod';
import { loadPeople } from '../chat/people.ts';
import { ConfigError, parseChatConfig, type ChatConfig } from '../config.ts';
import type { Cli } from './cli.ts';
import { about, type Check, type Finding } from './doctor-finding.ts';
import { clean, messageOf } from './text.ts';

const slackMs = 2_500;
const slackApi = 'https://slack.com/api';
const Answer = z.looseObject({ ok: z.boolean(), error: z.string().optional(), team: z.string().optional(), user: z.string().optional() });

/** Only where chat is configured on this machine at all. */
export function chatChecks(cli: Cli): Check[] {
  const isSet = Object.entries(cli.io.env).some(([name, value]) => /^CORDON_(SLACK|CHAT)_/.test(name) && (value ?? '') !== '');
  return isSet ? [{ name: 'chat', look: () => chatCheck(cli) }] : [];
}

async function chatCheck(cli: Cli): Promise<Finding> {
  const { ok, warn, fail } = about('chat');
  let config: ChatConfig;
  try {
    config = parseChatConfig(cli.io.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return fail(messageOf(error), 'docs/reference/config.md lists every variable');
  }
  let people: number;
  try {
    people = Object.keys(await loadPeople(config.peopleFile)).length;
  } catch (error) {
    return fail(messageOf(error), 'correct the file CORDON_CHAT_PEOPLE_FILE names: Slack user id to name');
  }
  const slack = await askSlack(config, 'auth.test', {});
  if (!slack.ok && slack.isDown)
    return fail(
      `Slack does not answer as it should: ${clean(slack.error)}`,
      'try again; if it stays so, look at status.slack.com and the way there',
    );
  if (!slack.ok)
    return fail(`Slack refuses the bot token: ${clean(slack.error)}`, 'set CORDON_SLACK_BOT_TOKEN_FILE to the token of the app');
  // Cards are found again by what the channel shows: without this none can be updated.
  const channel = await askSlack(config, 'conversations.history', { channel: config.channel, limit: '1', include_all_metadata: 'true' });
  if (!channel.ok)
    return fail(
      `Slack does not show channel ${clean(config.channel)}: ${clean(channel.error)}`,
      'invite the app to the channel CORDON_CHAT_CHANNEL names, with the scopes of docs/how-to/chat.md',
    );
  const found = `Slack knows the bot as ${clean(slack.user ?? '?')} of ${clean(slack.team ?? '?')}; ${people} people in the people file`;
  return people > 0 ? ok(found) : warn(`${found}: nobody can decide from chat`, 'add people to the file CORDON_CHAT_PEOPLE_FILE names');
}

type Said = ({ readonly ok: true } & z.infer<typeof Answer>) | { readonly ok: false; readonly error: string; readonly isDown: boolean };

/** Asks Slack without changing anything; the token goes nowhere but into its header. */
async function askSlack({ slackApiUrl, botToken }: ChatConfig, method: string, form: Record<string, string>): Promise<Said> {
  const answer = await fetch(`${(slackApiUrl ?? slackApi).replace(/\/+$/, '')}/${method}`, {
    method: 'POST',
    redirect: 'manual',
    signal: AbortSignal.timeout(slackMs),
    headers: { authorization: `Bearer ${botToken}` },
    body: new URLSearchParams(form),
  });
  if (answer.status !== 200) {
    await answer.body?.cancel();
    return { ok: false, error: `HTTP ${answer.status}`, isDown: true };
  }
  const said = Answer.safeParse(await answer.json().catch(() => undefined)).data;
  if (said === undefined) return { ok: false, error: "an answer that is not Slack's", isDown: true };
  return said.ok ? { ...said, ok: true } : { ok: false, error: said.error ?? 'no reason', isDown: false };
}
