import { afterEach, expect, test } from 'vitest';
import { startNodeProxy, type Fault, type NodeProxy, type NodeProxyOptions } from '../../src/lab/node-proxy.ts';
import { startServer, type TestServer } from '../helpers/stigmem-http.ts';

let node: TestServer;
let proxy: NodeProxy;
afterEach(async () => {
  await proxy.stop();
  await node.close();
});

const bytes = Buffer.from([0, 255, 10, 13, 0xc3, 0x28, ...Buffer.alloc(200_000, 7)]);

async function start(options: Partial<NodeProxyOptions> = {}): Promise<void> {
  node = await startServer((_asked, response) => {
    response.sendDate = false;
    response.writeHead(201, ['X-Odd-CASE', 'one', 'X-Odd-CASE', 'two', 'content-type', 'application/octet-stream']);
    response.end(bytes);
  });
  proxy = await startNodeProxy({ target: node.url, ...options });
}

const ask = () => fetch(`${proxy.url}/a%2Fb?c=%20d`, { method: 'POST', body: 'bödy', headers: { authorization: 'Bearer k' } });
const faulty = async (fault: Fault) => {
  await start({ onRequest: () => fault });
  return ask();
};

test('hands requests and answers on byte for byte, and logs them', async () => {
  const seen: unknown[] = [];
  await start({
    onAnswered: ({ path, count }, status) => {
      seen.push([path, count, status, node.asked.length]);
    },
  });
  const answer = await ask();
  expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true);
  expect([answer.status, answer.headers.get('x-odd-case'), answer.headers.get('date')]).toEqual([201, 'one, two', null]);
  expect(node.asked).toEqual([{ method: 'POST', url: '/a%2Fb?c=%20d', authorization: 'Bearer k', body: 'bödy' }]);
  expect(seen).toEqual([['/a%2Fb?c=%20d', 1, 201, 1]]);
  expect(proxy.log).toMatchObject([{ method: 'POST', path: '/a%2Fb?c=%20d', count: 1, status: 201 }]);
});

test.each(['refuse', 'lost'] as const)('%s: the connection breaks; only what was lost has reached the node', async (kind) => {
  await expect(faulty({ kind })).rejects.toThrow('fetch failed');
  expect(node.asked).toHaveLength(kind === 'lost' ? 1 : 0);
});

test('an answer in the node’s place never reaches the node, however long it is', async () => {
  const chunk = Buffer.alloc(65_536, 32);
  const body = function* () {
    for (let n = 0; n < 100; n += 1) yield chunk;
  };
  const answer = await faulty({ kind: 'answer', status: 429, headers: ['retry-after', '3'], body });
  expect([answer.status, answer.headers.get('retry-after'), (await answer.arrayBuffer()).byteLength]).toEqual([429, '3', 6_553_600]);
  expect(node.asked).toHaveLength(0);
});

test('cut: the head and the first half come, then a reset', async () => {
  const answer = await faulty({ kind: 'cut', keep: 0.5 });
  expect(answer.status).toBe(201);
  await expect(answer.arrayBuffer()).rejects.toThrow('terminated');
  expect(node.asked).toHaveLength(1);
});

test('rewrite changes what the node said', async () => {
  const answer = await faulty({
    kind: 'rewrite',
    rewrite: (was) => ({ ...was, status: 502, headers: [], body: Buffer.from('<h1>no</h1>') }),
  });
  expect([answer.status, await answer.text()]).toEqual([502, '<h1>no</h1>']);
  expect(proxy.log[0]).toMatchObject({ status: 201, fault: 'rewrite' });
});

test('down refuses connections, up takes them on the same port again', async () => {
  await start();
  await proxy.down();
  await expect(ask()).rejects.toMatchObject({ cause: { code: 'ECONNREFUSED' } });
  await proxy.up();
  expect((await ask()).status).toBe(201);
});
