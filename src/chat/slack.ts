import { webApi, type types } from '@slack/bolt';
import { z } from 'zod';

const callMs = 10_000;
const pageSize = 200;

/** Slack did not do what it was asked. The message holds no token, no address and nothing that was sent. */
export class SlackError extends Error {
  override readonly name = 'SlackError';
  /** Slack's own word for it, `message_not_found` for instance; empty when it did not answer. */
  readonly code: string;
  /** Seconds, where Slack said to come back later. */
  readonly retryAfterS: number | undefined;
  constructor(method: string, code: string, why: string, retryAfterS?: number) {
    super(`${method}: ${why}`);
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

const Message = z.object({
  ts: z.string().regex(/^[0-9]{1,12}\.[0-9]{1,12}$/),
  bot_id: z.string().optional(),
  metadata: z.object({ event_type: z.string(), event_payload: z.record(z.string(), z.unknown()).default({}) }).optional(),
});
export type Message = z.infer<typeof Message>;
const History = z.object({
  messages: z.array(z.unknown()).default([]),
  response_metadata: z.object({ next_cursor: z.string().optional() }).optional(),
});
const Posted = z.object({ ts: Message.shape.ts });
const Self = z.object({ bot_id: z.string().min(1) });

export interface Content {
  readonly text: string;
  readonly blocks: types.KnownBlock[];
  readonly metadata: types.MessageMetadata;
}

/**
 * Answers never take longer than this, and no redirect is followed: a token goes along. Held by its timer: an
 * AbortSignal.timeout that only AbortSignal.any refers to is collected, and then never fires (Node 20).
 */
export function boundedFetch(ms = callMs): webApi.FetchFunction {
  return (url, init = {}) => {
    const deadline = new AbortController();
    setTimeout(() => deadline.abort(new DOMException(`no answer within ${ms} ms`, 'TimeoutError')), ms).unref();
    const signal = init.signal === undefined ? deadline.signal : AbortSignal.any([init.signal, deadline.signal]);
    return fetch(url, { ...init, signal, redirect: 'error' });
  };
}

/** What chat does in its one channel. Each call is tried once: the watch comes round again. */
export class Channel {
  readonly #client: webApi.WebClient;
  readonly #channel: string;
  #botId: string | undefined;

  constructor({ token, apiUrl, channel, logger }: { token: string; apiUrl: string | undefined; channel: string; logger: webApi.Logger }) {
    this.#channel = channel;
    this.#client = new webApi.WebClient(token, {
      ...(apiUrl === undefined ? {} : { slackApiUrl: apiUrl }),
      logger,
      fetch: boundedFetch(),
      retryConfig: { retries: 0 },
      rejectRateLimitedCalls: true,
      allowAbsoluteUrls: false,
    });
  }

  async post(content: Content): Promise<string> {
    const plain = { mrkdwn: false, link_names: false, unfurl_links: false, unfurl_media: false };
    const answer = await this.#call('chat.postMessage', { channel: this.#channel, ...content, ...plain });
    return parsed('chat.postMessage', Posted, answer).ts;
  }

  async update(ts: string, content: Content): Promise<void> {
    await this.#call('chat.update', { channel: this.#channel, ts, ...content, link_names: false });
  }

  async remove(ts: string): Promise<void> {
    await this.#call('chat.delete', { channel: this.#channel, ts });
  }

  /** This app's own messages since then, oldest first; at most so many pages back. */
  async ownSince(oldestMs: number, maxPages: number): Promise<Message[]> {
    const botId = await this.#self();
    const found: Message[] = [];
    let cursor: string | undefined;
    for (let page = 0; page < maxPages; page += 1) {
      const answer = await this.#call('conversations.history', {
        channel: this.#channel,
        oldest: (oldestMs / 1_000).toFixed(6),
        limit: pageSize,
        include_all_metadata: true,
        ...(cursor === undefined ? {} : { cursor }),
      });
      const { messages, response_metadata: next } = parsed('conversations.history', History, answer);
      // Others' messages may look like anything; another app may even give its own our kind of metadata.
      found.push(...messages.flatMap((raw) => Message.safeParse(raw).data ?? []).filter((message) => message.bot_id === botId));
      cursor = next?.next_cursor;
      if (cursor === undefined || cursor === '') break;
    }
    return found.toSorted((a, b) => (a.ts < b.ts ? -1 : 1));
  }

  async #self(): Promise<string> {
    this.#botId ??= parsed('auth.test', Self, await this.#call('auth.test', {})).bot_id;
    return this.#botId;
  }

  async #call(method: string, options: Record<string, unknown>): Promise<unknown> {
    try {
      return await this.#client.apiCall(method, options);
    } catch (error) {
      throw slackError(method, error);
    }
  }
}

function parsed<T>(method: string, schema: z.ZodType<T>, answer: unknown): T {
  const result = schema.safeParse(answer);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new SlackError(method, '', `answered in another shape: ${issue?.path.map(String).join('.') ?? ''}: ${issue?.message ?? ''}`);
}

function slackError(method: string, error: unknown): SlackError {
  if (error instanceof webApi.WebAPIPlatformError) {
    const code = error.data.error.slice(0, 100);
    return new SlackError(method, code, code);
  }
  if (error instanceof webApi.WebAPIRateLimitedError) return new SlackError(method, 'ratelimited', 'rate limited', error.retryAfter);
  if (error instanceof webApi.WebAPIHTTPError) return new SlackError(method, '', `HTTP ${error.statusCode}`);
  if (error instanceof webApi.WebAPIRequestError) return new SlackError(method, '', `no answer (${causeOf(error.original)})`);
  return new SlackError(method, '', 'failed');
}

/** A bare error code: messages of HTTP clients may name the address. */
function causeOf(error: Error): string {
  const at = error.cause instanceof Error ? error.cause : error;
  const code = 'code' in at && typeof at.code === 'string' ? at.code : at.name;
  return /^\w{1,60}$/.test(code) ? code : 'the request failed';
}
