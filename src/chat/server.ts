import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { z } from 'zod';
import { actions } from './card.ts';
import type { SignatureCheck } from './signature.ts';

/** Slack's largest are clicks: they carry the message that was clicked. */
const maxBodyBytes = 512 * 1024;
const contentTypes = ['application/x-www-form-urlencoded', 'application/json'];

/** What Slack may have to say to us: a command, a click on one of our buttons, a check of the address or the certificate. */
const Clicked = z.looseObject({
  type: z.literal('block_actions'),
  actions: z.array(z.looseObject({ action_id: z.enum(actions) })).length(1),
});
const Form = z.union([
  z.object({ command: z.literal('/cordon') }),
  z.object({ ssl_check: z.literal('1') }),
  z.object({ payload: z.string().transform(jsonOf).pipe(Clicked) }),
]);
const Json = z.looseObject({ type: z.literal('url_verification'), challenge: z.string() });

export interface Health {
  readonly ok: boolean;
  readonly temporal: string;
  readonly slack: string;
}

export interface ServerParts {
  readonly signatures: SignatureCheck;
  /** Bolt's own listener: parses, and calls what is registered. It finds the body in `rawBody`. */
  readonly bolt: RequestListener;
  readonly health: () => Health;
  readonly log: Logger;
}

/** The one door: `POST /slack/events` for everything from Slack, `GET /healthz`. Only what Slack signed gets to Bolt. */
export function chatServer(parts: ServerParts): Server {
  const limits = { requestTimeout: 10_000, headersTimeout: 5_000, maxHeaderSize: 16 * 1024 };
  return createServer(limits, (request, response) => {
    serve(parts, request, response).catch((error: unknown) => {
      parts.log.error({ reason: error instanceof Error ? error.message : String(error) }, 'a request failed');
      if (!response.headersSent) end(response, 500);
      else response.destroy();
    });
  });
}

async function serve({ signatures, bolt, health, log }: ServerParts, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = (request.url ?? '').split('?')[0];
  if (path === '/healthz') return healthz(health(), request, response);
  const refuse = (status: number, reason: string) => {
    log.warn({ status, reason, from: request.socket.remoteAddress }, 'request refused');
    end(response, status);
  };
  if (path !== '/slack/events') return refuse(404, 'no such path');
  if (request.method !== 'POST') return refuse(405, 'no POST');
  const type = (request.headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
  if (!contentTypes.includes(type)) return refuse(415, 'neither a form nor JSON');
  const body = await bodyOf(request);
  if (body === undefined) {
    refuse(413, `more than ${maxBodyBytes} bytes`);
    // Thrown away as it comes, so that the answer is read; the server's own time limit ends it.
    request.resume();
    return;
  }
  const signed = { timestamp: one(request, 'x-slack-request-timestamp'), signature: one(request, 'x-slack-signature'), body };
  const refused = signatures.take(signed, Date.now());
  if (refused !== undefined) return refuse(401, refused);
  // Bolt would wait for an acknowledgement of what nothing here takes, and a body of `null` would end the process.
  if (!isForUs(type, body.toString('utf8'))) return refuse(400, 'neither a command nor a click of cordon');
  // Bolt compares the whole header: a charset after it would make it read a form as JSON.
  request.headers['content-type'] = type;
  bolt(Object.assign(request, { rawBody: body }), response);
}

function isForUs(type: string, body: string): boolean {
  if (type === 'application/json') return Json.safeParse(jsonOf(body)).success;
  return Form.safeParse(Object.fromEntries(new URLSearchParams(body))).success;
}

/** Undefined for what is no JSON: no schema takes that. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function healthz(now: Health, { method }: IncomingMessage, response: ServerResponse): void {
  if (method !== 'GET' && method !== 'HEAD') return end(response, 405);
  response.writeHead(now.ok ? 200 : 503, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(`${JSON.stringify(now)}\n`);
}

/** The body, or undefined when it is larger than anything Slack sends. */
async function bodyOf(request: IncomingMessage): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request.iterator({ destroyOnReturn: false })) {
    if (!Buffer.isBuffer(part)) continue;
    size += part.length;
    if (size > maxBodyBytes) return undefined;
    parts.push(part);
  }
  return Buffer.concat(parts, size);
}

function one({ headers }: IncomingMessage, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' ? value : undefined;
}

function end(response: ServerResponse, status: number): void {
  response.writeHead(status, { connection: 'close' }).end();
}
