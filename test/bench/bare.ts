import { createServer, request as httpRequest, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Pool } from 'undici';
import type { StigmemNode } from '../../src/lab/stigmem-node.ts';

/** One call that was seen on its way to the node. Times are milliseconds of `performance.now()`. */
export interface SeenCall {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly body: string;
  readonly startedAt: number;
  readonly endedAt: number;
}

/** A pass-through in front of the node that notes every call. */
export interface Recorder {
  readonly url: string;
  readonly calls: SeenCall[];
  stop(): Promise<void>;
}

export async function startRecorder(node: StigmemNode): Promise<Recorder> {
  const calls: SeenCall[] = [];
  const server: Server = createServer((incoming, outgoing) => {
    const startedAt = performance.now();
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const body = Buffer.concat(chunks);
      const { method = 'GET', url: path = '/', headers } = incoming;
      const onward = httpRequest({ host: '127.0.0.1', port: node.port, method, path, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
        answer.on('end', () => calls.push({ method, path, body: body.toString('utf8'), startedAt, endedAt: performance.now() }));
      });
      onward.on('error', () => outgoing.destroy());
      onward.end(body);
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    calls,
    stop: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

/** Plain undici against the node, with as many connections as cordon keeps. Throws unless the answer is a 2xx. */
export class Bare {
  readonly #pool: Pool;
  readonly #key: string;

  constructor(node: StigmemNode) {
    this.#pool = new Pool(node.url, { connections: 16 });
    this.#key = node.adminKey;
  }

  async call({ method, path, body }: Pick<SeenCall, 'method' | 'path' | 'body'>): Promise<unknown> {
    const answer = await this.#pool.request({
      method: method === 'PATCH' || method === 'POST' ? method : 'GET',
      path,
      headers: { authorization: `Bearer ${this.#key}`, ...(body === '' ? {} : { 'content-type': 'application/json' }) },
      body: body === '' ? null : body,
    });
    const text = await answer.body.text();
    if (answer.statusCode > 299) throw new Error(`bare ${method} ${path} answered ${answer.statusCode}: ${text.slice(0, 200)}`);
    return text;
  }

  /** Calls as a script would make them that knows what cordon knows: each one starts when those have ended that had ended before it then. */
  async replay(calls: readonly SeenCall[], reword: (text: string) => string): Promise<number> {
    const began = performance.now();
    const running: { readonly call: SeenCall; readonly done: Promise<unknown> }[] = [];
    for (const call of calls.toSorted((a, b) => a.startedAt - b.startedAt)) {
      await Promise.all(running.filter(({ call: before }) => before.endedAt <= call.startedAt).map(({ done }) => done));
      running.push({ call, done: this.call({ method: call.method, path: reword(call.path), body: reword(call.body) }) });
    }
    await Promise.all(running.map(({ done }) => done));
    return performance.now() - began;
  }

  async close(): Promise<void> {
    await this.#pool.close();
  }
}

/** Runs `work` on every item, `width` at a time, and gives the milliseconds it took. */
export async function paced<T>(items: readonly T[], width: number, work: (item: T) => Promise<unknown>): Promise<number> {
  const queue = [...items];
  const began = performance.now();
  const lane = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: width }, lane));
  return performance.now() - began;
}
