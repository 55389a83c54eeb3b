import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { z } from 'zod';

export interface Asked {
  readonly method: string;
  /** As it came over the wire: nothing decoded, nothing folded. */
  readonly url: string;
  readonly authorization: string | undefined;
  readonly body: string;
}

export interface TestServer {
  readonly url: string;
  readonly port: number;
  readonly asked: Asked[];
  close(): Promise<void>;
}

export type Handler = (asked: Asked, response: ServerResponse, request: IncomingMessage) => unknown;

/** A real HTTP server on an ephemeral loopback port. */
export async function startServer(handler: Handler): Promise<TestServer> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const call = {
        method: request.method ?? '',
        url: request.url ?? '',
        authorization: request.headers.authorization,
        body: Buffer.concat(chunks).toString('utf8'),
      };
      asked.push(call);
      handler(call, response, request);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = z.object({ port: z.number() }).parse(server.address());
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    asked,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

/** Ends the response with JSON. */
export function json(response: ServerResponse, body: unknown, status = 200, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
}
