import { Agent, createServer, request as send, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

// What stands between the worker and the world: a door to our node that can act on each request, and a webhook.

/** One request that changes something, at the door to our node. */
export interface AtDoor {
  readonly method: string;
  /** Without query; ids are `{}`. */
  readonly route: string;
}

/** May do what it likes before the request goes in, after the answer came out; `false` lets the caller hang up. */
export interface DoorKeeper {
  readonly before?: (of: AtDoor) => Promise<boolean>;
  /** The request is on its way; its answer is not back. */
  readonly meanwhile?: (of: AtDoor) => void;
  readonly after?: (of: AtDoor) => Promise<boolean>;
  /** The node went away before it answered. */
  readonly lost?: (of: AtDoor) => void;
}

export interface Door {
  readonly url: string;
  /** Where requests go. */
  target: string;
  keeper: DoorKeeper;
  stop(): Promise<void>;
}

const readOnly = /^\/v1\/(recall|lint)$/;

/** Passes everything on to the node; requests that change something are shown to the keeper. */
export async function openDoor(): Promise<Door> {
  const agent = new Agent({ keepAlive: true });
  const server = createServer((request, response) => {
    void pass(request, response).catch(() => response.destroy());
  });
  const pass = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await bytesOf(request);
    const { pathname } = new URL(request.url ?? '/', door.target);
    const of = { method: request.method ?? 'GET', route: pathname.replaceAll(/[0-9a-f-]{36}/g, '{}') };
    const keeper = of.method === 'GET' || readOnly.test(of.route) ? {} : door.keeper;
    if (keeper.before && !(await keeper.before(of))) return void response.destroy();
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      const { host: _, ...headers } = request.headers;
      const { hostname, port } = new URL(door.target);
      const onward = send({ hostname, port, method: of.method, path: request.url, headers, agent }, resolve);
      onward.once('error', reject);
      onward.end(body);
    });
    answered.catch(() => undefined);
    keeper.meanwhile?.(of);
    const [answer, answerBody] = await answered
      .then(async (got) => [got, await bytesOf(got)] as const)
      .catch((error: unknown) => {
        keeper.lost?.(of);
        throw error;
      });
    if (keeper.after && !(await keeper.after(of))) return void response.destroy();
    const { 'transfer-encoding': _, connection: __, ...headers } = answer.headers;
    response.writeHead(answer.statusCode ?? 502, { ...headers, 'content-length': answerBody.length }).end(answerBody);
  };
  const door: Door = {
    url: await listen(server),
    target: 'http://127.0.0.1:9',
    keeper: {},
    async stop() {
      agent.destroy();
      await shut(server);
    },
  };
  return door;
}

/** What a webhook's receiver was sent. */
export interface Delivery {
  readonly key: string;
  readonly body: string;
}

export interface Receiver {
  readonly url: string;
  readonly deliveries: Delivery[];
  stop(): Promise<void>;
}

export async function openReceiver(): Promise<Receiver> {
  const deliveries: Delivery[] = [];
  const server = createServer((request, response) => {
    void bytesOf(request).then((body) => {
      deliveries.push({ key: String(request.headers['idempotency-key']), body: body.toString('utf8') });
      response.writeHead(200).end();
    });
  });
  return { url: await listen(server), deliveries, stop: () => shut(server) };
}

async function bytesOf(stream: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream as AsyncIterable<Buffer>) parts.push(part);
  return Buffer.concat(parts);
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function shut(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((closed) => server.close(closed));
}
