import { createHmac } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { httpAnswers, managedProcess, tcpAnswers, type ManagedProcess } from '../../src/lab/processes.ts';
import { freePort, repoRoot } from '../../src/lab/tools.ts';
import type { SlackStub, StubMessage } from './slack-stub.ts';
import { buttonsOf } from './block-kit.ts';

export const signingSecret = '8f742231b10e8888abcd99yyyzzz85a5';

/** Signed as Slack's documentation says, and not by our own code. */
export function sign(body: string, timestamp: number, secret = signingSecret): Record<string, string> {
  const signature = `v0=${createHmac('sha256', secret).update(`v0:${timestamp}:${body}`, 'utf8').digest('hex')}`;
  return {
    'content-type': 'application/x-www-form-urlencoded',
    'x-slack-request-timestamp': String(timestamp),
    'x-slack-signature': signature,
  };
}

export const nowS = (): number => Math.floor(Date.now() / 1_000);

export interface Answered {
  readonly status: number;
  readonly text: string;
  readonly ms: number;
}

let requests = 0;

/** A built `cordon chat`, and Slack's side of the conversation. */
export class ChatProcess {
  readonly url: string;
  readonly dir: string;
  readonly child: ManagedProcess;

  private constructor(url: string, dir: string, child: ManagedProcess) {
    this.url = url;
    this.dir = dir;
    this.child = child;
  }

  /** Starts one, with its files in a folder of its own below `.test`. It serves; Temporal may still be away. */
  static async start(name: string, slack: SlackStub, temporal: string, env: Record<string, string> = {}): Promise<ChatProcess> {
    const dir = join(repoRoot, '.test', name);
    mkdirSync(dir, { recursive: true });
    const port = await freePort();
    const files = { token: slack.token, secret: signingSecret };
    for (const [file, text] of Object.entries(files)) writeFileSync(join(dir, file), `${text}\n`, { mode: 0o600 });
    const people = join(dir, 'people.yaml');
    writeFileSync(people, 'U0ALICE: alice\nU0BOB: bob\n');
    const child = managedProcess({
      name: 'cordon chat',
      command: process.execPath,
      args: [join(repoRoot, 'bin', 'cordon.js'), 'chat'],
      cwd: dir,
      env: {
        PATH: process.env['PATH'] ?? '',
        HOME: dir,
        TEMPORAL_ADDRESS: temporal,
        TEMPORAL_CONFIG_FILE: join(dir, 'no-profile.toml'),
        CORDON_CHAT_LISTEN: `127.0.0.1:${port}`,
        CORDON_CHAT_CHANNEL: slack.channel,
        CORDON_CHAT_PEOPLE_FILE: people,
        CORDON_SLACK_BOT_TOKEN_FILE: join(dir, 'token'),
        CORDON_SLACK_SIGNING_SECRET_FILE: join(dir, 'secret'),
        CORDON_SLACK_API_URL: slack.apiUrl,
        CORDON_TEMPORAL_UI_URL: 'http://127.0.0.1:8233/',
        CORDON_LOG_LEVEL: 'debug',
        ...env,
      },
      logFile: join(dir, 'chat.log'),
      ready: async () => await tcpAnswers(port),
    });
    await child.start();
    return new ChatProcess(`http://127.0.0.1:${port}`, dir, child);
  }

  get log(): string {
    return readFileSync(this.child.logFile, 'utf8');
  }

  people(text: string): void {
    writeFileSync(join(this.dir, 'people.yaml'), text);
  }

  async isHealthy(): Promise<boolean> {
    return await httpAnswers(`${this.url}/healthz`);
  }

  /** One request to the door. */
  async request(body: string, headers: Record<string, string>, path = '/slack/events', method = 'POST'): Promise<Answered> {
    const started = Date.now();
    const response = await fetch(`${this.url}${path}`, { method, headers, ...(method === 'GET' ? {} : { body }) });
    return { status: response.status, text: await response.text(), ms: Date.now() - started };
  }

  async post(body: string, headers = sign(body, nowS())): Promise<Answered> {
    return await this.request(body, headers);
  }

  /** `/cordon <text>`, as Slack sends it. The answer goes to the response_url of that name. */
  async command(text: string, { user = 'U0ALICE', to, slack, trigger }: { user?: string; to: string; slack: SlackStub; trigger?: string }) {
    requests += 1;
    const form = new URLSearchParams({
      token: 'xyzz0WbapA4vBCDEFasx0q6G',
      team_id: 'T1DC2JH3J',
      team_domain: 'testteamnow',
      channel_id: 'C0ANYWHERE',
      channel_name: 'anywhere',
      user_id: user,
      user_name: 'somebody',
      command: '/cordon',
      text,
      api_app_id: 'A123456',
      is_enterprise_install: 'false',
      response_url: slack.responseUrl(to),
      trigger_id: trigger ?? `${Date.now()}.${requests}.803a0bc887a14d10d2c447fce8b6703c`,
    });
    return await this.post(form.toString());
  }

  /** A click on a button of a message, as Slack sends it: each with its own time, trigger and response_url. */
  async click(
    action: 'approve' | 'reject',
    message: Pick<StubMessage, 'ts' | 'blocks'>,
    { user = 'U0ALICE', to, slack, value }: { user?: string; to: string; slack: SlackStub; value?: string },
  ): Promise<Answered> {
    return await this.post(clickBody(action, message, { user, to, slack, ...(value === undefined ? {} : { value }) }));
  }
}

/** The form of one click. */
export function clickBody(
  action: 'approve' | 'reject',
  { ts, blocks }: Pick<StubMessage, 'ts' | 'blocks'>,
  { user, to, slack, value }: { user: string; to: string; slack: SlackStub; value?: string },
): string {
  requests += 1;
  const at = `${nowS()}.${String(requests).padStart(6, '0')}`;
  const payload = {
    type: 'block_actions',
    user: { id: user, username: 'somebody', name: 'somebody', team_id: 'T1DC2JH3J' },
    api_app_id: 'A123456',
    token: 'xyzz0WbapA4vBCDEFasx0q6G',
    container: { type: 'message', message_ts: ts, channel_id: slack.channel, is_ephemeral: false },
    trigger_id: `${requests}.47445629121.803a0bc887a14d10d2c447fce8b6703c`,
    team: { id: 'T1DC2JH3J', domain: 'testteamnow' },
    enterprise: null,
    is_enterprise_install: false,
    channel: { id: slack.channel, name: 'incidents' },
    message: { type: 'message', bot_id: 'B0CORDON', ts, text: 'cordon', blocks },
    response_url: slack.responseUrl(to),
    actions: [
      {
        action_id: `cordon_${action}`,
        block_id: 'b1',
        text: { type: 'plain_text', text: action, emoji: true },
        value: value ?? buttonsOf(blocks).get(`cordon_${action}`) ?? '',
        type: 'button',
        action_ts: at,
      },
    ],
  };
  return new URLSearchParams({ payload: JSON.stringify(payload) }).toString();
}
