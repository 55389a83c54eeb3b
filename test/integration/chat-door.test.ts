import { rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitUntil } from '../../src/lab/processes.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { ChatProcess, nowS, sign, signingSecret } from '../helpers/chat.ts';
import { cordon } from '../helpers/cli.ts';
import { SlackStub } from '../helpers/slack-stub.ts';
import { wordsOf } from '../helpers/block-kit.ts';

// The door of the built `cordon chat`, with no Temporal server anywhere: what gets in, and that it is answered at once.

const slack = new SlackStub();
let chat: ChatProcess;
let asked = 0;

beforeAll(async () => {
  rmSync(join(repoRoot, '.test', 'chat-door'), { recursive: true, force: true });
  await slack.start();
  chat = await ChatProcess.start('chat-door', slack, '127.0.0.1:1');
});

afterAll(async () => {
  await chat?.child.stop();
  await slack.stop();
});

/** A command's form whose answer goes to a response_url of its own. */
function form(text = 'help', extra: Record<string, string> = {}): { body: string; to: string } {
  asked += 1;
  const to = `door-${asked}`;
  const fields = { command: '/cordon', text, user_id: 'U0ALICE', trigger_id: `t${asked}`, response_url: slack.responseUrl(to), ...extra };
  return { body: new URLSearchParams(fields).toString(), to };
}

const answered = (to: string) => waitUntil(`the answer to ${to}`, async () => slack.repliesTo(to)[0]);

/** Refused means: nothing of it was carried out either. */
async function refused(body: string, headers: Record<string, string>, status: number, to: string, path?: string): Promise<void> {
  expect((await chat.request(body, headers, path)).status).toBe(status);
  const proof = form();
  expect((await chat.post(proof.body)).status).toBe(200);
  await answered(proof.to);
  expect(slack.repliesTo(to)).toEqual([]);
}

describe('what Slack signed', () => {
  it('is acknowledged with nothing in it, and answered to that person alone', async () => {
    const { body, to } = form();
    const got = await chat.post(body);
    expect(got).toMatchObject({ status: 200, text: '' });
    const reply = await answered(to);
    expect(reply).toMatchObject({ response_type: 'ephemeral', replace_original: false });
    expect(wordsOf(reply.blocks)).toContain('/cordon approve <incident> <gate>');
  });

  it('may name a charset', async () => {
    const { body, to } = form();
    const headers = { ...sign(body, nowS()), 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' };
    expect((await chat.request(body, headers)).status).toBe(200);
    await answered(to);
  });

  it.each([-295, 295])('may be %i s from now', async (seconds) => {
    const { body, to } = form();
    expect((await chat.request(body, sign(body, nowS() + seconds))).status).toBe(200);
    await answered(to);
  });

  it('answers the check of the address, and of the certificate', async () => {
    const challenge = JSON.stringify({ type: 'url_verification', challenge: '3eZbrw1aBm2r', token: 'x' });
    const json = { ...sign(challenge, nowS()), 'content-type': 'application/json' };
    const got = await chat.request(challenge, json);
    expect([got.status, JSON.parse(got.text)]).toEqual([200, { challenge: '3eZbrw1aBm2r' }]);
    const check = 'ssl_check=1&token=x';
    expect((await chat.request(check, sign(check, nowS()))).status).toBe(200);
    expect((await chat.request(check, { 'content-type': 'application/x-www-form-urlencoded' })).status).toBe(401);
  });
});

describe('what is refused, and not carried out', () => {
  it("Slack's published example: rightly signed, years old", async () => {
    const body =
      'token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c';
    const headers = {
      'content-type': 'application/x-www-form-urlencoded',
      'x-slack-request-timestamp': '1531420618',
      'x-slack-signature': 'v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503',
    };
    expect(sign(body, 1_531_420_618)).toEqual(headers);
    expect((await chat.request(body, headers)).status).toBe(401);
    expect(chat.log).toContain('"reason":"stale"');
  });

  const tampered: readonly [string, (body: string) => [string, Record<string, string>]][] = [
    ['a changed body', (body) => [body.replace('text=help', 'text=list'), sign(body, nowS())]],
    ['another secret', (body) => [body, sign(body, nowS(), `${signingSecret}x`)]],
    ['an old time', (body) => [body, sign(body, nowS() - 310)]],
    ['a time to come', (body) => [body, sign(body, nowS() + 310)]],
    ['an old request under a new time', (body) => [body, { ...sign(body, nowS() - 310), 'x-slack-request-timestamp': String(nowS()) }]],
  ];
  it.each(tampered)('%s', async (_what, change) => {
    const { body, to } = form();
    const [sent, headers] = change(body);
    await refused(sent, headers, 401, to);
  });

  it.each(['x-slack-signature', 'x-slack-request-timestamp'])('one without %s', async (header) => {
    const { body, to } = form();
    const { [header]: _, ...headers } = sign(body, nowS());
    await refused(body, headers, 401, to);
  });

  it('one that was taken already, to the letter', async () => {
    const { body, to } = form();
    const headers = sign(body, nowS());
    expect((await chat.request(body, headers)).status).toBe(200);
    await answered(to);
    expect((await chat.request(body, headers)).status).toBe(401);
    const { to: after, body: next } = form();
    await chat.post(next);
    await answered(after);
    expect(slack.repliesTo(to)).toHaveLength(1);
    expect(chat.log).toContain('"reason":"seen before"');
  });

  it('twenty copies at once: one is taken', async () => {
    const { body, to } = form();
    const headers = sign(body, nowS());
    const got = await Promise.all(Array.from({ length: 20 }, () => chat.request(body, headers)));
    expect(got.map(({ status }) => status).toSorted()).toEqual([200, ...Array.from({ length: 19 }, () => 401)]);
    await answered(to);
    expect(slack.repliesTo(to)).toHaveLength(1);
  });

  it('another content type', async () => {
    const { body, to } = form();
    await refused(body, { ...sign(body, nowS()), 'content-type': 'text/plain' }, 415, to);
  });

  it('another path, another method', async () => {
    const { body, to } = form();
    await refused(body, sign(body, nowS()), 404, to, '/slack/other');
    expect((await chat.request('', {}, '/slack/events', 'GET')).status).toBe(405);
    expect((await chat.request('', {}, '/../etc/passwd', 'GET')).status).toBe(404);
  });

  it('a huge body, said or not, rightly signed', async () => {
    const { body, to } = form('help', { more: 'x'.repeat(600 * 1024) });
    await refused(body, sign(body, nowS()), 413, to);
  });

  it('signed nonsense, and JSON that is none', async () => {
    const { body: good, to } = form();
    const other = JSON.stringify({ type: 'block_actions', actions: [{ action_id: 'theirs' }] });
    const event = JSON.stringify({ type: 'event_callback', event: null });
    for (const body of [
      'payload=%7Bnot',
      'a=b',
      '%%%',
      'payload=null',
      '',
      `payload=${encodeURIComponent(other)}`,
      'command=/other',
      'null',
    ]) {
      expect((await chat.request(body, sign(body, nowS()))).status, body).toBe(400);
    }
    for (const body of ['null', '[]', '{', '"x"', event]) {
      const headers = { ...sign(`${body} `, nowS()), 'content-type': 'application/json' };
      expect((await chat.request(`${body} `, headers)).status, body).toBe(400);
    }
    expect((await chat.post(good)).status).toBe(200);
    await answered(to);
  });

  it('a client that sends one byte and waits holds nobody up', async () => {
    const socket = connect({ port: Number(new URL(chat.url).port), host: '127.0.0.1' });
    socket.on('error', () => undefined);
    socket.write('POST /slack/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{');
    const { body, to } = form();
    expect((await chat.post(body)).ms).toBeLessThan(3_000);
    await answered(to);
    socket.destroy();
  });
});

describe('without Temporal', () => {
  it('healthz says what is missing', async () => {
    const health = async () => await chat.request('', {}, '/healthz', 'GET');
    const { status, text } = await waitUntil('the first round', async () => {
      const now = await health();
      return now.text.includes('"temporal":"starting"') ? undefined : now;
    });
    expect(status).toBe(503);
    expect(JSON.parse(text)).toMatchObject({ ok: false, temporal: expect.stringContaining('127.0.0.1:1') });
  });

  it('a decision is acknowledged in time, and said not to be sent', async () => {
    const { body, to } = form('approve node retract 0123456789ab');
    expect((await chat.post(body)).ms).toBeLessThan(3_000);
    expect(wordsOf((await answered(to)).blocks)).toContain('nothing was sent');
  });

  it('somebody who is not in the people file is refused, and a broken file refuses everybody', async () => {
    const unknown = form('list', { user_id: 'U0MALLORY' });
    await chat.post(unknown.body);
    expect(wordsOf((await answered(unknown.to)).blocks)).toContain('not in the people file');
    chat.people('U0ALICE: [alice\n');
    const broken = form('help');
    await chat.post(broken.body);
    expect(wordsOf((await answered(broken.to)).blocks)).toContain('nobody is known');
    chat.people('U0ALICE: alice\nU0BOB: bob\n');
    const again = form('help');
    await chat.post(again.body);
    expect(wordsOf((await answered(again.to)).blocks)).toContain('/cordon list');
  });
});

it('no secret stands in the log, the process list or an answer; SIGTERM answers what is under way and ends with 0', async () => {
  const { body, to } = form('approve node retract 0123456789ab');
  expect((await chat.post(body)).status).toBe(200);
  const gone = chat.child.exited();
  await chat.child.stop(15_000);
  expect(await gone).toBe(0);
  expect(slack.repliesTo(to)).toHaveLength(1);
  expect(statSync(chat.child.logFile).size).toBeGreaterThan(1_000);
  const said = chat.log + JSON.stringify(slack.replies);
  for (const secret of [slack.token, signingSecret, 'x-slack-signature', '/response/']) expect(said).not.toContain(secret);
  expect(slack.problems).toEqual([]);
});

describe('configuration', () => {
  const env = {
    CORDON_SLACK_BOT_TOKEN: 'xoxb-canary-1',
    CORDON_SLACK_SIGNING_SECRET: 'canary-2',
    CORDON_CHAT_CHANNEL: 'C1',
    CORDON_CHAT_PEOPLE_FILE: '/nonexistent/people.yaml',
  };
  it.each([
    ['CORDON_SLACK_BOT_TOKEN', ''],
    ['CORDON_SLACK_SIGNING_SECRET', ''],
    ['CORDON_CHAT_CHANNEL', ''],
    ['CORDON_CHAT_PEOPLE_FILE', ''],
    ['CORDON_CHAT_CHANNEL', '#incidents'],
    ['CORDON_CHAT_DECISIONS', 'maybe'],
    ['CORDON_CHAT_LISTEN', '3000'],
    ['CORDON_CHAT_LISTEN', '127.0.0.1:70000'],
    ['CORDON_SLACK_API_URL', 'slack'],
  ])('%s=%s ends it before it listens, with exit code 2', async (variable, value) => {
    const run = await cordon(['chat'], { ...env, [variable]: value });
    expect(run.code).toBe(2);
    expect(run.err).toContain(variable);
    expect(run.err).not.toContain('canary');
  });

  it('a people file that is not there ends it too', async () => {
    const run = await cordon(['chat'], env);
    expect(run.code).toBe(2);
    expect(run.err).toContain('people.yaml');
  });
});
