import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createSecureServer, type ClientHttp2Session, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { join } from 'node:path';

// What stands in front of Temporal Cloud or an own cluster: TLS with client certificates, or an API key. The dev
// server speaks neither, so this door does, and passes each call on as it is.

export interface Certificates {
  readonly ca: string;
  readonly serverCert: string;
  readonly serverKey: string;
  readonly clientCert: string;
  readonly clientKey: string;
}

/** A CA, and one certificate each for the server (temporal.test) and a client, made by openssl. Paths. */
export function makeCertificates(dir: string): Certificates {
  mkdirSync(dir, { recursive: true });
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...curve, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=test CA');
  for (const [name, alternative] of [
    ['server', 'DNS:temporal.test'],
    ['client', 'DNS:cordon.test'],
  ] as const) {
    openssl('req', ...curve, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    writeFileSync(join(dir, `${name}.ext`), `subjectAltName=${alternative}\n`);
    const from = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial'];
    openssl('x509', '-req', '-in', `${name}.csr`, ...from, '-out', `${name}.pem`, '-days', '2', '-extfile', `${name}.ext`);
  }
  const at = (name: string): string => join(dir, name);
  return {
    ca: at('ca.pem'),
    serverCert: at('server.pem'),
    serverKey: at('server.key'),
    clientCert: at('client.pem'),
    clientKey: at('client.key'),
  };
}

export interface TlsDoor {
  readonly address: string;
  /** Calls that came in, whoever they were from. */
  readonly calls: number;
  close(): Promise<void>;
}

export interface DoorOptions {
  /** Only clients with a certificate of the same CA. */
  readonly mutual?: boolean;
  /** Only calls with this bearer token. */
  readonly apiKey?: string;
}

/** Opens the door on loopback in front of a Temporal server that speaks plain gRPC at `target`. */
export async function openDoor(target: string, certificates: Certificates, { mutual = false, apiKey }: DoorOptions): Promise<TlsDoor> {
  let calls = 0;
  const upstream = connect(`http://${target}`);
  upstream.on('error', () => undefined);
  const server = createSecureServer({
    cert: readFileSync(certificates.serverCert),
    key: readFileSync(certificates.serverKey),
    ca: readFileSync(certificates.ca),
    requestCert: mutual,
    rejectUnauthorized: mutual,
  });
  const sessions = new Set<{ destroy(): void }>();
  server.on('session', (session) => sessions.add(session));
  server.on('stream', (stream, headers) => {
    calls += 1;
    stream.on('error', () => undefined);
    if (apiKey !== undefined && headers.authorization !== `Bearer ${apiKey}`) {
      stream.respond(
        { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '16', 'grpc-message': 'no such key' },
        { endStream: true },
      );
      return;
    }
    passOn(stream, headers, upstream);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  const at = server.address();
  if (at === null || typeof at === 'string') throw new Error('the door has no port');
  return {
    address: `127.0.0.1:${at.port}`,
    get calls() {
      return calls;
    },
    async close() {
      upstream.destroy();
      for (const session of sessions) session.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function passOn(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, upstream: ClientHttp2Session): void {
  const call = upstream.request({ ...headers, ':scheme': 'http' });
  call.on('error', () => stream.destroy());
  stream.on('close', () => call.close());
  let trailers: Record<string, string> = {};
  call.on('response', ({ ':status': status, ...rest }) => {
    stream.respond({ ':status': status, ...rest }, { waitForTrailers: true });
    call.pipe(stream);
  });
  call.on('trailers', (given: IncomingHttpHeaders) => {
    trailers = Object.fromEntries(Object.entries(given).flatMap(([name, value]) => (typeof value === 'string' ? [[name, value]] : [])));
  });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  stream.pipe(call);
}
