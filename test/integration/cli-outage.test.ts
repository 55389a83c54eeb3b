import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http2';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { repoRoot } from '../../src/lab/tools.ts';

// A Temporal server that takes connections and can't serve: its database is away. A real one does that for minutes,
// so a stand-in that answers each call with UNAVAILABLE.

const server = createServer();
let address = '';
beforeAll(async () => {
  server.on('stream', (stream, headers) => {
    const isHello = headers[':path']?.endsWith('/GetSystemInfo') === true;
    stream.on('error', () => undefined);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': isHello ? '0' : '14', 'grpc-message': 'no database' }));
    // An empty message: no flags, length 0.
    stream.end(isHello ? Buffer.alloc(5) : undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const at = server.address();
  if (at === null || typeof at === 'string') throw new Error('the server has no port');
  address = `127.0.0.1:${at.port}`;
});
afterAll(() => {
  server.close();
});

test.each([[['list', '--json']], [['show', 'node-1', '--json']]])(
  'cordon %s says so once, and as JSON, with the exit code for it',
  async (args) => {
    const env = { PATH: process.env['PATH'] ?? '', TEMPORAL_ADDRESS: address, TEMPORAL_CONFIG_FILE: '/nonexistent/temporal.toml' };
    const child = spawn(process.execPath, [join(repoRoot, 'bin', 'cordon.js'), ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
    expect(err).toMatch(/^cordon: no answer within \d+ ms\nnext: check TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE, then: cordon doctor\n$/);
    expect(JSON.parse(out)).toMatchObject({ exitCode: 4 });
    expect(code).toBe(4);
  },
);
