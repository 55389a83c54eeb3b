import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { sha256Id } from '../../src/contract/canonical.ts';
import { postWebhook, WebhookError } from '../../src/notify/webhook.ts';

const secret = 'T0K3N-canary';
const got: { headers: IncomingMessage['headers']; body: string; url: string }[] = [];
let server: Server | undefined;

async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  got.length = 0;
  const started = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      got.push({ headers: request.headers, body: Buffer.concat(parts).toString(), url: request.url ?? '' });
      answer(request, response);
    });
  });
  server = started;
  await new Promise<void>((resolve) => started.listen(0, '127.0.0.1', resolve));
  const { port } = z.object({ port: z.number() }).parse(started.address());
  return `http://127.0.0.1:${port}/hooks/${secret}?k=${secret}`;
}

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

async function failure(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(WebhookError);
  const told = error instanceof Error ? `${error.message} ${error.stack ?? ''} ${JSON.stringify(error)} ${String(error.cause)}` : '';
  expect(told).not.toContain(secret);
  return told;
}

describe('the webhook', () => {
  it('posts once, with a key from effect and body, and gives a receipt without the URL', async () => {
    const url = await serve((_request, response) => void response.writeHead(202).end('taken'));
    const receipt = await postWebhook(url, 'run:communicate:1:notice-peer', { b: 1, a: 'x' });
    expect(got).toHaveLength(1);
    expect(got[0]?.body).toBe('{"a":"x","b":1}');
    expect(receipt).toEqual({ status: 202, bodyHash: sha256Id('{"a":"x","b":1}'), idempotencyKey: got[0]?.headers['idempotency-key'] });
    expect(receipt.idempotencyKey.startsWith('run:communicate:1:notice-peer:')).toBe(true);
    expect(JSON.stringify(receipt)).not.toContain(secret);
    expect((await postWebhook(url, 'run:communicate:1:notice-peer', { a: 'x', b: 1 })).idempotencyKey).toBe(receipt.idempotencyKey);
  });

  it('follows no redirect', async () => {
    const url = await serve((_request, response) => void response.writeHead(307, { location: '/elsewhere' }).end());
    expect(await failure(postWebhook(url, 'k', {}))).toContain('HTTP 307 (redirects are not followed)');
    expect(got).toHaveLength(1);
  });

  it.each([400, 404, 429, 500, 503])('takes HTTP %i for a failure', async (status) => {
    const url = await serve((_request, response) => void response.writeHead(status).end(secret));
    expect(await failure(postWebhook(url, 'k', {}))).toContain(`HTTP ${status}`);
    expect(got).toHaveLength(1);
  });

  it('gives up on one that never answers', async () => {
    const url = await serve(() => undefined);
    expect(await failure(postWebhook(url, 'k', {}, { timeoutMs: 200 }))).toContain('no answer within 200 ms');
  });

  it('names the error of one that is not there, not its address', async () => {
    const url = await serve(() => undefined);
    server?.close();
    server?.closeAllConnections();
    expect(await failure(postWebhook(url, 'k', {}))).toContain('ECONNREFUSED');
  });
});
