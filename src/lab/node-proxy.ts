import { createServer, request as send, Agent, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/** What a client asked, before anything was done about it. */
export interface ProxyRequest {
  readonly method: string;
  /** Path and query as they came over the wire. */
  readonly path: string;
  readonly body: Buffer;
  /** Which request of the proxy's life this is, from 1. */
  readonly count: number;
}

/** A whole answer; headers as a flat list of names and values, in order. */
export interface ProxyAnswer {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: Buffer;
}

/**
 * What goes wrong with one request. With the first four the node never sees it (`elsewhere`: another
 * one does); with the last four the node has done what was asked, and only the answer suffers.
 */
export type Fault =
  | { readonly kind: 'refuse' }
  | { readonly kind: 'silence' }
  | {
      readonly kind: 'answer';
      readonly status: number;
      readonly headers?: readonly string[];
      readonly body?: string | Buffer | (() => Iterable<Buffer>);
    }
  | { readonly kind: 'elsewhere'; readonly target: string }
  | { readonly kind: 'delay'; readonly ms: number }
  | { readonly kind: 'lost' }
  | { readonly kind: 'lateSilence' }
  | { readonly kind: 'cut'; readonly keep: number }
  | { readonly kind: 'rewrite'; readonly rewrite: (answer: ProxyAnswer) => ProxyAnswer };

/** One line of the proxy's log: `status` is what the node said, undefined where it was not asked. */
export interface ProxyLogLine extends ProxyRequest {
  readonly at: number;
  status?: number;
  fault?: Fault['kind'];
}

type Decide = (request: ProxyRequest) => Fault | undefined | Promise<Fault | undefined>;

export interface NodeProxyOptions {
  /** `http://127.0.0.1:<port>` of the real node. */
  readonly target: string;
  /** What the node is asked for a path; by default the same. Hooks and log have the path as it came. */
  readonly toNode?: (path: string) => string;
  /** Before the request reaches the node. What it returns happens instead of, or to, the answer. */
  readonly onRequest?: Decide;
  /** After the node answered, before the client gets anything. */
  readonly onAnswered?: (request: ProxyRequest, status: number) => void | Promise<void>;
}

export interface NodeProxy {
  readonly url: string;
  readonly log: readonly ProxyLogLine[];
  /** Settable while it runs; undefined: everything passes. */
  onRequest: Decide | undefined;
  onAnswered: NodeProxyOptions['onAnswered'];
  /** Stops listening and drops what is open: connections are refused until `up`. */
  down(): Promise<void>;
  /** Listens again, on the same port. */
  up(): Promise<void>;
  stop(): Promise<void>;
}

/** A proxy on an ephemeral loopback port that hands everything on byte for byte, but for the faults it is told of. */
export async function startNodeProxy(options: NodeProxyOptions): Promise<NodeProxy> {
  // A kept connection that the node closes at the wrong moment would be a fault nobody asked for.
  const agent = new Agent({ keepAlive: false });
  const log: ProxyLogLine[] = [];
  const hooks = { onRequest: options.onRequest, onAnswered: options.onAnswered };

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const line: ProxyLogLine = {
      method: request.method ?? '',
      path: request.url ?? '',
      body: await whole(request),
      count: log.length + 1,
      at: Date.now(),
    };
    log.push(line);
    const fault = await hooks.onRequest?.(line);
    if (fault !== undefined) line.fault = fault.kind;
    if (fault?.kind === 'refuse') return reset(response);
    if (fault?.kind === 'silence') return;
    if (fault?.kind === 'answer') return answerWith(response, fault);
    if (fault?.kind === 'delay') await new Promise((resolve) => setTimeout(resolve, fault.ms));
    const target = new URL(fault?.kind === 'elsewhere' ? fault.target : options.target);
    const path = options.toNode?.(line.path) ?? line.path;
    const answer = await ask(target, agent, request.rawHeaders, { ...line, path });
    line.status = answer.status;
    await hooks.onAnswered?.(line, answer.status);
    if (fault?.kind === 'lost') return reset(response);
    if (fault?.kind === 'lateSilence') return;
    if (fault?.kind === 'cut') return cutShort(response, answer, fault.keep);
    const { status, headers, body } = fault?.kind === 'rewrite' ? fault.rewrite(answer) : answer;
    response.sendDate = false;
    response.writeHead(status, [...headers]).end(body);
  };

  let server: Server | undefined;
  let port = 0;
  const down = async (): Promise<void> => {
    const listening = server;
    server = undefined;
    if (listening === undefined) return;
    await new Promise<void>((resolve) => {
      listening.close(() => resolve());
      listening.closeAllConnections();
    });
  };
  const up = async (): Promise<void> => {
    if (server !== undefined) return;
    const listening = createServer((request, response) => {
      // A client that went away, a node that is gone: to the client both are a connection that broke.
      serve(request, response).catch(() => reset(response));
    });
    server = listening;
    await new Promise<void>((resolve, reject) => {
      listening.once('error', reject);
      listening.listen(port, '127.0.0.1', resolve);
    });
    port = addressOf(listening).port;
  };
  await up();
  return Object.assign(hooks, {
    url: `http://127.0.0.1:${port}`,
    log,
    down,
    up,
    async stop() {
      await down();
      agent.destroy();
    },
  });
}

function addressOf(server: Server): AddressInfo {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy does not listen on a port');
  return address;
}

/** The node's whole answer to the same request, with the client's own headers. */
function ask(target: URL, agent: Agent, headers: readonly string[], { method, path, body }: ProxyRequest): Promise<ProxyAnswer> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = target;
    const asked = send({ hostname, port, method, path, agent, headers: [...headers] }, (answer) => {
      whole(answer).then((bytes) => resolve({ status: answer.statusCode ?? 0, headers: answer.rawHeaders, body: bytes }), reject);
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

async function whole(stream: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) if (chunk instanceof Buffer) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** RST, as a crashed machine or a firewall leaves a connection. */
function reset(response: ServerResponse): void {
  response.socket?.resetAndDestroy();
}

async function answerWith(
  response: ServerResponse,
  { status, headers = [], body = '' }: Extract<Fault, { kind: 'answer' }>,
): Promise<void> {
  response.writeHead(status, [...headers]);
  if (typeof body !== 'function') {
    response.end(body);
    return;
  }
  // The client stops reading where it has had enough: that is no failure of the proxy.
  await pipeline(Readable.from(body()), response).catch(() => undefined);
}

/** The true head, `keep` of the body (0 to 1), then a reset: a little later, since an RST takes back what the kernel still holds. */
function cutShort(response: ServerResponse, { status, headers, body }: ProxyAnswer, keep: number): void {
  response.sendDate = false;
  response.writeHead(status, [...headers]);
  response.write(body.subarray(0, Math.floor(body.length * keep)), () => setTimeout(() => reset(response), 20));
}
