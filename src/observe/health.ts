import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { splitListen } from './listen.ts';

/** Why the worker is not healthy, or undefined. */
export type Unhealthy = () => Promise<string | undefined>;

/** Serves `GET /healthz`: 200 `{"ok":true}`, or 503 with the reason. Nothing else is there. */
export async function serveHealth(listen: string, unhealthy: Unhealthy): Promise<{ port: number; stop: () => Promise<void> }> {
  const server = createServer((request, response) => {
    const answer = (status: number, body: object): void => {
      response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
      response.end(request.method === 'HEAD' ? undefined : `${JSON.stringify(body)}\n`);
    };
    const isKnown = request.url?.split('?')[0] === '/healthz' && (request.method === 'GET' || request.method === 'HEAD');
    if (!isKnown) return answer(404, { error: 'only GET /healthz is here' });
    unhealthy().then(
      (why) => answer(why === undefined ? 200 : 503, why === undefined ? { ok: true } : { ok: false, why }),
      (error: unknown) => answer(503, { ok: false, why: error instanceof Error ? error.message : String(error) }),
    );
  });
  await listening(server, listen);
  const address = server.address();
  return { port: isPort(address) ? address.port : 0, stop: () => closed(server) };
}

function isPort(address: AddressInfo | string | null): address is AddressInfo {
  return typeof address === 'object' && address !== null;
}

function listening(server: Server, listen: string): Promise<void> {
  const { host, port } = splitListen(listen);
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
