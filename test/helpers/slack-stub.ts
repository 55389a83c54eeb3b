import { createServer, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { z } from 'zod';
import { blockKitProblems } from './block-kit.ts';

// Slack's Web API as far as chat uses it, since no Slack is at hand: it keeps one channel, refuses what Slack refuses,
// and records every call.

const Metadata = z.object({ event_type: z.string(), event_payload: z.record(z.string(), z.unknown()) });
const Content = z.object({
  text: z.string(),
  blocks: z.array(z.record(z.string(), z.unknown())),
  metadata: Metadata,
});
const Reply = z.object({
  text: z.string(),
  blocks: z.array(z.record(z.string(), z.unknown())).default([]),
  response_type: z.string(),
  replace_original: z.boolean(),
});
export type Reply = z.infer<typeof Reply>;

export interface StubMessage extends z.infer<typeof Content> {
  readonly ts: string;
  readonly bot_id: string;
}

export interface Call {
  readonly method: string;
  readonly at: number;
}

const token = 'xoxb-canary-5b1d';
const botId = 'B0CORDON';
export const channel = 'C0INCIDENTS';

export class SlackStub {
  readonly token = token;
  readonly channel = channel;
  readonly calls: Call[] = [];
  /** In the order they were posted. */
  readonly messages: StubMessage[] = [];
  /** What came to a response_url, by its last part. */
  readonly replies: { readonly to: string; readonly reply: Reply }[] = [];
  /** Answers with this instead, by method. */
  readonly failing = new Map<string, { status: number; body: unknown; headers?: Record<string, string> }>();
  /** What the stub itself found wrong with what it was sent. */
  readonly problems: string[] = [];
  /** Waits this long before it answers a post: two processes then post at once. */
  postDelayMs = 0;
  readonly #server = createServer((request, response) => {
    this.#answer(request).then(
      ({ status, body, headers }) =>
        response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body)),
      (error: unknown) => response.writeHead(500).end(String(error)),
    );
  });
  #last = 0;

  async start(): Promise<void> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  async stop(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }

  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the stub does not listen');
    return `http://127.0.0.1:${address.port}`;
  }

  get apiUrl(): string {
    return `${this.url}/api/`;
  }

  responseUrl(name: string): string {
    return `${this.url}/response/${name}`;
  }

  /** Cards of an incident, oldest first. */
  cards(incident: string): StubMessage[] {
    return this.messages.filter(({ metadata }) => metadata.event_payload['incident'] === incident);
  }

  repliesTo(name: string): Reply[] {
    return this.replies.filter(({ to }) => to === name).map(({ reply }) => reply);
  }

  count(method: string): number {
    return this.calls.filter((call) => call.method === method).length;
  }

  /** Somebody else's message in the channel. */
  foreign(message: Omit<StubMessage, 'ts'>): void {
    this.messages.push({ ...message, ts: this.#ts() });
  }

  #ts(): string {
    const now = Math.max(Date.now(), this.#last + 1);
    this.#last = now;
    return `${Math.floor(now / 1_000)}.${String(now % 1_000).padStart(3, '0')}000`;
  }

  async #answer(request: IncomingMessage): Promise<{ status: number; body: unknown; headers?: Record<string, string> }> {
    const raw = await text(request);
    const path = request.url ?? '';
    if (path.startsWith('/response/')) {
      const reply = Reply.parse(JSON.parse(raw));
      this.#check('response_url', reply);
      this.replies.push({ to: path.slice('/response/'.length), reply });
      return { status: 200, body: { ok: true } };
    }
    const method = path.replace('/api/', '');
    this.calls.push({ method, at: Date.now() });
    const failing = this.failing.get(method);
    if (failing !== undefined) return failing;
    if (request.headers.authorization !== `Bearer ${token}`) return refused('invalid_auth');
    const form = Object.fromEntries(new URLSearchParams(raw));
    if (method === 'auth.test') return done({ bot_id: botId, user_id: 'U0BOT' });
    if (form['channel'] !== channel) return refused('channel_not_found');
    if (method === 'chat.postMessage') return this.#post(form);
    if (method === 'chat.update') return this.#update(form);
    if (method === 'chat.delete') return this.#delete(form);
    if (method === 'conversations.history') return this.#history(form);
    return refused('unknown_method');
  }

  async #post(form: Record<string, string | undefined>) {
    if (this.postDelayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.postDelayMs));
    const content = this.#content('chat.postMessage', form);
    if (content === undefined) return refused('invalid_blocks');
    const ts = this.#ts();
    this.messages.push({ ...content, ts, bot_id: botId });
    return done({ ts, channel });
  }

  #update(form: Record<string, string | undefined>) {
    const at = this.messages.findIndex(({ ts }) => ts === form['ts']);
    const old = this.messages[at];
    if (old === undefined) return refused('message_not_found');
    const content = this.#content('chat.update', form);
    if (content === undefined) return refused('invalid_blocks');
    this.messages[at] = { ...content, ts: old.ts, bot_id: old.bot_id };
    return done({ ts: old.ts, channel });
  }

  #delete(form: Record<string, string | undefined>) {
    const at = this.messages.findIndex(({ ts }) => ts === form['ts']);
    if (at < 0) return refused('message_not_found');
    this.messages.splice(at, 1);
    return done({});
  }

  #history(form: Record<string, string | undefined>) {
    const limit = Number(form['limit'] ?? 100);
    const from = Number(form['cursor'] ?? 0);
    const found = this.messages.filter(({ ts }) => Number(ts) >= Number(form['oldest'] ?? 0)).toReversed();
    const page = found.slice(from, from + limit);
    const shown = form['include_all_metadata'] === 'true' ? page : page.map(({ metadata: _, ...rest }) => rest);
    const more = from + limit < found.length ? { response_metadata: { next_cursor: String(from + limit) } } : {};
    return done({ messages: shown.map((message) => ({ type: 'message', ...message })), ...more });
  }

  #content(method: string, form: Record<string, string | undefined>): z.infer<typeof Content> | undefined {
    const content = Content.parse({
      text: form['text'],
      blocks: JSON.parse(form['blocks'] ?? '[]'),
      metadata: JSON.parse(form['metadata'] ?? 'null'),
    });
    return this.#check(method, content) ? content : undefined;
  }

  #check(method: string, message: { text: string; blocks: readonly unknown[] }): boolean {
    const wrong = blockKitProblems(message);
    this.problems.push(...wrong.map((problem) => `${method}: ${problem}`));
    return wrong.length === 0;
  }
}

const done = (body: object) => ({ status: 200, body: { ok: true, ...body } });
const refused = (error: string) => ({ status: 200, body: { ok: false, error } });

async function text(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) if (Buffer.isBuffer(part)) parts.push(part);
  return Buffer.concat(parts).toString('utf8');
}
