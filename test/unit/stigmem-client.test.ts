import { afterEach, describe, expect, test } from 'vitest';
import { Stigmem } from '../../src/stigmem/client.ts';
import {
  StigmemHttpError,
  StigmemIdentityError,
  StigmemNetworkError,
  StigmemSchemaError,
  StigmemTimeoutError,
  StigmemTooLargeError,
} from '../../src/stigmem/errors.ts';
import type { StigmemOptions } from '../../src/stigmem/requests.ts';
import { json, startServer, type Handler, type TestServer } from '../helpers/stigmem-http.ts';

const KEY = 'k'.repeat(20) + '-admin-secret';
const AGENT_KEY = 'agent-secret-' + 'a'.repeat(20);
const open: { close(): Promise<void> }[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.close()));
});

async function node(handler: Handler, options: Partial<StigmemOptions> = {}): Promise<{ client: Stigmem; server: TestServer }> {
  const server = await startServer(handler);
  const client = new Stigmem({ url: server.url, adminKey: KEY, timeoutMs: 2_000, ...options });
  open.push(client, server);
  return { client, server };
}

async function failure<E extends Error>(promise: Promise<unknown>, kind: new (...args: never[]) => E): Promise<E> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(kind);
  if (!(error instanceof kind)) throw new Error('not the expected error');
  return error;
}

describe('what is sent', () => {
  test('bearer key, query and encoded ids, with no dot segments folded', async () => {
    const { client, server } = await node((_asked, response) => json(response, { detail: 'no' }, 404));
    for (const id of ['a/b?c#d', '..', 'x\ud800y', '%2e']) await failure(client.fact(id), StigmemHttpError);
    await failure(client.rejectQuarantined('..', 'bad & worse'), StigmemHttpError);
    expect(server.asked.map(({ url }) => url)).toEqual([
      '/v1/facts/a%2Fb%3Fc%23d',
      '/v1/facts/..',
      '/v1/facts/x%EF%BF%BDy',
      '/v1/facts/%252e',
      '/v1/quarantine/../reject?reason=bad+%26+worse',
    ]);
    expect(server.asked[0]?.authorization).toBe(`Bearer ${KEY}`);
  });

  test('the questions of an ordinary agent carry the agent key, the others the admin key, public documents none', async () => {
    const { client, server } = await node((_asked, response) => json(response, { detail: 'no' }, 404), { agentKey: AGENT_KEY });
    const asAgent = [
      client.card('stigmem://x/y', 'local'),
      client.recall({ query: 'x', scope: 'local' }),
      client.agentFactsPage(),
      client.synthesize('local'),
    ];
    await Promise.allSettled(asAgent);
    expect(server.asked.map(({ authorization }) => authorization)).toEqual(asAgent.map(() => `Bearer ${AGENT_KEY}`));
    await Promise.allSettled([client.wellKnown(), client.manifest()]);
    await Promise.allSettled([client.factsPage(), client.peers()]);
    expect(server.asked.slice(4).map(({ authorization }) => authorization)).toEqual([
      undefined,
      undefined,
      `Bearer ${KEY}`,
      `Bearer ${KEY}`,
    ]);
  });

  test('one call is one request, whatever the answer', async () => {
    const { client, server } = await node((_asked, response) => json(response, {}, 503));
    await failure(client.peers(), StigmemHttpError);
    expect(server.asked).toHaveLength(1);
  });

  test('a path prefix of the node stays in front', async () => {
    const server = await startServer((_asked, response) => json(response, { node_id: 'n' }));
    const client = new Stigmem({ url: `${server.url}/stigmem/`, adminKey: KEY });
    open.push(client, server);
    await client.wellKnown();
    expect(server.asked[0]?.url).toBe('/stigmem/.well-known/stigmem');
  });

  test.each(['two words', '', 'line\nbreak', 'späß'])('a key that can be no header is refused, and not repeated: %j', (adminKey) => {
    expect(() => new Stigmem({ url: 'http://127.0.0.1:1', adminKey })).toThrow(
      new TypeError('adminKey: expected printable ASCII without spaces'),
    );
  });

  test.each(['ftp://127.0.0.1', 'http://user:pass@127.0.0.1'])('a URL that is no plain http address is refused: %s', (url) => {
    expect(() => new Stigmem({ url, adminKey: KEY })).toThrow(TypeError);
  });
});

describe('answers that are errors', () => {
  test.each([
    [401, 'GET /v1/federation/peers: expected success, came 401 Unauthorized: bad key'],
    [403, 'GET /v1/federation/peers: expected success, came 403 Forbidden: bad key'],
    [429, 'GET /v1/federation/peers: expected success, came 429 Too Many Requests: bad key'],
    [500, 'GET /v1/federation/peers: expected success, came 500 Internal Server Error: bad key'],
  ])("%i gives status and the node's detail", async (status, message) => {
    const { client } = await node((_asked, response) => json(response, { detail: 'bad key' }, status));
    const error = await failure(client.peers(), StigmemHttpError);
    expect(error).toMatchObject({ code: 'STIGMEM_HTTP', status, method: 'GET', path: '/v1/federation/peers', detail: 'bad key', message });
  });

  test('a structured detail is kept as JSON and cut to 300 characters', async () => {
    const { client } = await node((_asked, response) => json(response, { detail: [{ loc: ['x'], msg: 'y'.repeat(400) }] }, 422));
    const error = await failure(client.peers(), StigmemHttpError);
    expect(error.detail).toMatch(/^\[\{"loc":\["x"\],"msg":"y+…$/);
    expect(error.detail).toHaveLength(300);
  });

  test('502 with HTML gives its words without tags or control characters', async () => {
    const html = '<html><script>alert(1)</script><h1>Bad\u001b[31m Gateway</h1></html>';
    const { client } = await node((_asked, response) => response.writeHead(502, { 'content-type': 'text/html' }).end(html));
    expect((await failure(client.peers(), StigmemHttpError)).message).toBe(
      'GET /v1/federation/peers: expected success, came 502 Bad Gateway: Bad [31m Gateway',
    );
  });

  test.each([
    ['120', 120_000],
    ['0', 0],
    ['-5', null],
    ['1.5', null],
    ['soon', null],
    ['Mon, 01 Jan 2001 00:00:00 GMT', 0],
  ])('Retry-After %s reads as %s ms', async (value, expected) => {
    const { client } = await node((_asked, response) => json(response, {}, 429, { 'retry-after': value }));
    expect((await failure(client.peers(), StigmemHttpError)).retryAfterMs).toBe(expected);
  });

  test('Retry-After as a future HTTP date reads as the time until then', async () => {
    const { client } = await node((_asked, response) =>
      json(response, {}, 429, { 'retry-after': new Date(Date.now() + 60_000).toUTCString() }),
    );
    const { retryAfterMs } = await failure(client.peers(), StigmemHttpError);
    expect(retryAfterMs).toBeGreaterThan(55_000);
    expect(retryAfterMs).toBeLessThanOrEqual(60_000);
  });

  test('no Retry-After is null', async () => {
    const { client } = await node((_asked, response) => json(response, {}, 429));
    expect((await failure(client.peers(), StigmemHttpError)).retryAfterMs).toBeNull();
  });

  test('a redirect is an error and is not followed', async () => {
    const { client, server } = await node((_asked, response) => response.writeHead(307, { location: '/elsewhere' }).end());
    const error = await failure(client.peers(), StigmemHttpError);
    expect(error.message).toBe('GET /v1/federation/peers: expected success, came 307 Temporary Redirect: redirect refused (to /elsewhere)');
    expect(server.asked.map(({ url }) => url)).toEqual(['/v1/federation/peers']);
  });
});

describe('answers that are not what the node is known to send', () => {
  const send =
    (body: string, type = 'application/json'): Handler =>
    (_asked, response) => {
      response.writeHead(200, { 'content-type': type }).end(body);
    };

  test.each([
    [
      'half a JSON',
      send('{"peers":[{"peer_id":"a"'),
      { field: 'body', expected: 'application/json', came: '24 characters that are not complete: {"peers":[{"peer_id":"a"' },
    ],
    ['nothing', send(''), { field: 'body', expected: 'application/json', came: 'an empty body' }],
    [
      'HTML with 200',
      send('<h1>hi</h1>', 'text/html'),
      { field: 'content-type', expected: 'application/json', came: 'text/html: <h1>hi</h1>' },
    ],
    ['no list', send('{"peers":{"a":1}}'), { field: 'peers', expected: 'array', came: 'an object with a' }],
    ['a field gone', send('{"peers":[{"node_id":"n"}]}'), { field: 'peers.0.peer_id', expected: 'string', came: 'nothing' }],
    ['a field of another type', send('{"peers":[{"peer_id":7}]}'), { field: 'peers.0.peer_id', expected: 'string', came: 'number 7' }],
    ['another shape altogether', send('[1,2]'), { field: 'body', expected: 'object', came: 'a list of 2' }],
  ])('%s is a schema error in words, and no HTTP error', async (_name, handler, expected) => {
    const { client } = await node(handler);
    const error = await failure(client.peers(), StigmemSchemaError);
    expect(error).toMatchObject({ code: 'STIGMEM_SCHEMA', ...expected });
    expect(error).not.toBeInstanceOf(StigmemHttpError);
  });

  test('an excerpt of the body is never longer than 200 characters', async () => {
    const { client } = await node(send(`{"x":"${'y'.repeat(5000)}`));
    expect((await failure(client.peers(), StigmemSchemaError)).came).toHaveLength(200);
  });

  test('unknown fields are kept, absent nullable ones read as null', async () => {
    const { client } = await node(send('{"peers":[{"peer_id":"p","node_id":"n","node_url":"u","status":"active","novel":[1]}]}'));
    expect(await client.peers()).toEqual([
      expect.objectContaining({ peer_id: 'p', novel: [1], ingest_tenant: null, allowed_scopes: [], established_at: null }),
    ]);
  });
});

describe('no answer', () => {
  test('nobody listens', async () => {
    const server = await startServer(() => undefined);
    await server.close();
    const client = new Stigmem({ url: server.url, adminKey: KEY });
    open.push(client);
    const error = await failure(client.peers(), StigmemNetworkError);
    expect(error).toMatchObject({
      code: 'STIGMEM_NETWORK',
      errno: 'ECONNREFUSED',
      message:
        'GET /v1/federation/peers: expected an answer, came none: the connection was refused, so nothing listens there (ECONNREFUSED)',
    });
  });

  test('the connection is cut in the middle of the body', async () => {
    const { client } = await node((_asked, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' }).write('{"peers":');
      response.destroy();
    });
    await failure(client.peers(), StigmemNetworkError);
  });

  test.each([
    ['no headers', (): void => undefined],
    [
      'a body that never ends',
      (_asked: unknown, response: Parameters<Handler>[1]): void =>
        void response.writeHead(200, { 'content-type': 'application/json' }).write('{'),
    ],
  ])('%s: the whole call ends at timeoutMs', async (_name, handler) => {
    const { client } = await node(handler, { timeoutMs: 60 });
    expect(await failure(client.peers(), StigmemTimeoutError)).toMatchObject({
      code: 'STIGMEM_TIMEOUT',
      timeoutMs: 60,
      message: 'GET /v1/federation/peers: expected a complete answer within 60 ms, came none',
    });
  });

  test("the caller's signal ends the call with the caller's own reason", async () => {
    const controller = new AbortController();
    const reason = new Error('cancelled by the workflow');
    const { client } = await node(() => controller.abort(reason));
    await expect(client.peers(controller.signal)).rejects.toBe(reason);
  });

  test('an answer over maxBytes is given up', async () => {
    const { client } = await node((_asked, response) => json(response, { peers: 'x'.repeat(10_000) }), { maxBytes: 5_000 });
    expect(await failure(client.peers(), StigmemTooLargeError)).toMatchObject({ code: 'STIGMEM_TOO_LARGE', maxBytes: 5_000 });
  });
});

describe('secrets', () => {
  const jwt = 'eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl';
  test.each([
    [
      'as JSON detail',
      (response: Parameters<typeof json>[0]) => json(response, { detail: `no: Bearer ${KEY}, ${AGENT_KEY}, ${jwt}` }, 401),
    ],
    ['as HTML', (response: Parameters<typeof json>[0]) => response.writeHead(500).end(`<p>${KEY} ${AGENT_KEY} bearer ${jwt}</p>`)],
    [
      'as a redirect',
      (response: Parameters<typeof json>[0]) => response.writeHead(302, { location: `/?k=${KEY}&a=${AGENT_KEY}&t=${jwt}` }).end(),
    ],
    [
      'as broken JSON',
      (response: Parameters<typeof json>[0]) =>
        response.writeHead(200, { 'content-type': 'application/json' }).end(`{"k":"${KEY} ${AGENT_KEY} ${jwt}`),
    ],
    ['as a value of the wrong type', (response: Parameters<typeof json>[0]) => json(response, { peers: `${KEY} ${AGENT_KEY} ${jwt}` })],
    ['as a field name', (response: Parameters<typeof json>[0]) => json(response, { peers: { [KEY]: 1, [AGENT_KEY]: 2, [jwt]: 3 } })],
  ])('a server that echoes keys %s finds them redacted', async (_name, answer) => {
    const { client } = await node((_asked, response) => answer(response), { agentKey: AGENT_KEY });
    const error = await failure(client.peers(), Error);
    const everything = JSON.stringify([error, error.message, error.stack, Object.entries(error)]);
    for (const secret of [KEY, AGENT_KEY, jwt]) expect(everything).not.toContain(secret);
    expect(error.message).toContain('[redacted]');
  });
});

describe('the bound node', () => {
  test('another node_id at the address is an identity error', async () => {
    const { client } = await node((_asked, response) => json(response, { node_id: 'other' }));
    client.expectNodeId('ours');
    expect(await failure(client.assertSameNode(), StigmemIdentityError)).toMatchObject({
      code: 'STIGMEM_IDENTITY',
      expectedNodeId: 'ours',
      nodeId: 'other',
    });
  });

  test('the same node_id passes and gives the document', async () => {
    const { client } = await node((_asked, response) => json(response, { node_id: 'ours', federation_pubkey: 'k' }));
    client.expectNodeId('ours');
    expect(await client.assertSameNode()).toMatchObject({ node_id: 'ours', federation_pubkey: 'k', entity_uri: null });
  });
});
