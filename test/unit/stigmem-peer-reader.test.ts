import { afterEach, describe, expect, test } from 'vitest';
import { addressAllowed } from '../../src/stigmem/address-policy.ts';
import { fingerprintOf, readPeer, type PeerReaderOptions } from '../../src/stigmem/peer-reader.ts';
import { json, startServer, type Handler, type TestServer } from '../helpers/stigmem-http.ts';

const open: TestServer[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close()));
});

const MANIFEST = {
  entity_uri: 'stigmem://peer.test',
  key_id: 'k1',
  public_key: 'KEY2',
  issued_at: '2026-01-01T00:00:00Z',
  expires_at: '2027-01-01T00:00:00Z',
  entities: ['stigmem://peer.test'],
  rotation_events: [],
  signature: 's',
};
const WELL_KNOWN = { node_id: 'stigmem:node:1', node_url: 'http://peer.test', federation_pubkey: 'KEY1' };
const honest: Handler = (asked, response) => json(response, asked.url.endsWith('manifest.json') ? MANIFEST : WELL_KNOWN);

async function peer(handler: Handler): Promise<TestServer> {
  const server = await startServer(handler);
  open.push(server);
  return server;
}

const loopback: PeerReaderOptions = { allowPrivate: ['loopback'] };

describe('addresses', () => {
  test.each([
    '127.0.0.1',
    '127.9.9.9',
    '10.0.0.1',
    '172.16.0.1',
    '192.168.1.1',
    '169.254.169.254',
    '100.64.0.1',
    '0.0.0.0',
    '224.0.0.1',
    '255.255.255.255',
    '240.0.0.1',
    '192.0.2.1',
    '198.18.0.1',
    '::',
    '::1',
    'fe80::1',
    'fe80::1%lo',
    'fc00::1',
    'fd12:3456::1',
    'ff02::1',
    '::ffff:127.0.0.1',
    '::ffff:10.0.0.1',
    '::ffff:7f00:1',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
    '2001:db8::1',
    '2001::1',
    'not an address',
    '',
  ])('%j is no public address', (address) => {
    expect(addressAllowed(address, [])).toBe(false);
  });

  test.each(['93.184.216.34', '8.8.8.8', '2606:4700::1111', '::ffff:8.8.8.8'])('%s is public', (address) => {
    expect(addressAllowed(address, [])).toBe(true);
  });

  test.each([
    ['127.0.0.1', ['loopback'], true],
    ['::1', ['loopback'], true],
    ['10.0.0.1', ['loopback'], false],
    ['10.1.2.3', ['10.0.0.0/8'], true],
    ['172.20.0.1', ['192.168.0.0/16', '172.16.0.0/12'], true],
    ['192.168.1.1', ['10.0.0.0/8'], false],
    ['::ffff:10.1.2.3', ['10.0.0.0/8'], true],
    ['fd00::5', ['fd00::/8'], true],
    ['10.0.0.5', ['10.0.0.5'], true],
    ['10.0.0.6', ['10.0.0.5', 'nonsense', '::/0'], false],
  ])('%s with %j: %s', (address, allow, expected) => {
    expect(addressAllowed(address, allow)).toBe(expected);
  });
});

describe('reading a peer', () => {
  test('both documents, with the fingerprints of both keys', async () => {
    const server = await peer(honest);
    const reading = await readPeer(server.url, loopback);
    expect(reading).toMatchObject({
      wellKnown: WELL_KNOWN,
      manifest: MANIFEST,
      fingerprint: fingerprintOf('KEY1'),
      manifestFingerprint: fingerprintOf('KEY2'),
      errors: [],
    });
    expect(server.asked.map(({ url, authorization }) => [url, authorization])).toEqual([
      ['/.well-known/stigmem', undefined],
      ['/.well-known/stigmem-manifest.json', undefined],
    ]);
  });

  test('the fingerprint is over the text of the key', () => {
    expect(fingerprintOf('abc')).toBe('sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  });

  test.each([
    ['http://127.0.0.1:{port}', '127.0.0.1'],
    ['http://2130706433:{port}', '127.0.0.1'],
    ['http://0x7f.1:{port}', '127.0.0.1'],
    ['http://[::ffff:127.0.0.1]:{port}', '::ffff:7f00:1'],
    ['http://[::1]:{port}', '::1'],
  ])('%s is refused without a connection', async (pattern, address) => {
    const server = await peer(honest);
    const { errors } = await readPeer(pattern.replace('{port}', String(server.port)));
    expect(errors).toEqual([expect.stringContaining(`is at ${address}, which is not a public address`)]);
    expect(server.asked).toEqual([]);
  });

  test('a name is refused if only one of its addresses is private', async () => {
    const server = await peer(honest);
    const resolve = async (): Promise<{ address: string; family: number }[]> => [
      { address: '8.8.8.8', family: 4 },
      { address: '127.0.0.1', family: 4 },
    ];
    const { errors } = await readPeer(`http://evil.test:${server.port}`, { resolve });
    expect(errors).toEqual(['refused: evil.test is at 127.0.0.1, which is not a public address']);
    expect(server.asked).toEqual([]);
  });

  test('the name is resolved once, and the connection goes to the checked address', async () => {
    const server = await peer(honest);
    let lookups = 0;
    const resolve = async (): Promise<{ address: string; family: number }[]> => {
      lookups += 1;
      return [{ address: lookups === 1 ? '127.0.0.1' : '10.255.255.1', family: 4 }];
    };
    const reading = await readPeer(`http://rebind.test:${server.port}`, { ...loopback, resolve });
    expect(reading.errors).toEqual([]);
    expect(lookups).toBe(1);
    expect(server.asked).toHaveLength(2);
  });

  test('a host that is named outright may be private', async () => {
    const server = await peer(honest);
    const resolve = async (): Promise<{ address: string; family: number }[]> => [{ address: '127.0.0.1', family: 4 }];
    expect((await readPeer(`http://lan.test:${server.port}`, { allowPrivate: ['lan.test'], resolve })).errors).toEqual([]);
    expect((await readPeer(`http://other.test:${server.port}`, { allowPrivate: ['lan.test'], resolve })).errors).toHaveLength(1);
  });

  test.each([
    ['file:///etc/passwd', 'refused: file: is neither http nor https'],
    ['gopher://x.test/', 'refused: gopher: is neither http nor https'],
    ['http://user:pass@127.0.0.1/', 'refused: the URL holds a user name or password'],
    ['no url', 'the peer has no usable URL'],
  ])('%s is refused', async (url, error) => {
    expect(await readPeer(url, loopback)).toEqual({ errors: [error] });
  });

  test('a name that has no address is an error, not an exception', async () => {
    const resolve = async (): Promise<never> => Promise.reject(Object.assign(new Error('x'), { code: 'ENOTFOUND' }));
    expect(await readPeer('http://gone.test', { resolve })).toEqual({ errors: ['gone.test: ENOTFOUND'] });
  });

  test('one document that fails leaves the other', async () => {
    const server = await peer((asked, response) =>
      asked.url.endsWith('manifest.json') ? json(response, { detail: 'none' }, 404) : json(response, WELL_KNOWN),
    );
    const reading = await readPeer(server.url, loopback);
    expect(reading.wellKnown?.node_id).toBe('stigmem:node:1');
    expect(reading.manifest).toBeUndefined();
    expect(reading.errors).toEqual([
      '/.well-known/stigmem-manifest.json: GET /.well-known/stigmem-manifest.json: expected success, came 404 Not Found: none',
    ]);
  });

  test('redirects are not followed', async () => {
    const server = await peer((_asked, response) => response.writeHead(302, { location: 'http://169.254.169.254/' }).end());
    expect((await readPeer(server.url, loopback)).errors).toEqual([
      expect.stringContaining('redirect refused'),
      expect.stringContaining('redirect refused'),
    ]);
    expect(server.asked).toHaveLength(2);
  });

  test('more than 256 KB is given up', async () => {
    const server = await peer((_asked, response) => json(response, { ...WELL_KNOWN, pad: 'x'.repeat(300 * 1024) }));
    const reading = await readPeer(server.url, loopback);
    expect(reading.wellKnown).toBeUndefined();
    expect(reading.errors[0]).toContain('at most 262144 bytes, came a longer one');
  });

  test('a body that trickles ends with the time for everything', async () => {
    const server = await peer((_asked, response) => void response.writeHead(200, { 'content-type': 'application/json' }).write('{'));
    const reading = await readPeer(server.url, { ...loopback, timeoutMs: 80 });
    expect(reading.errors).toEqual([
      '/.well-known/stigmem: no complete answer in time',
      '/.well-known/stigmem-manifest.json: no complete answer in time',
    ]);
  });

  test('a resolver that never answers ends with the time for everything', async () => {
    const reading = await readPeer('http://slow.test', { timeoutMs: 50, resolve: () => new Promise(() => undefined) });
    expect(reading).toEqual({ errors: ['slow.test: no answer in time'] });
  });

  test('deep nesting is an error; long strings, lists and objects are cut', async () => {
    const deep = await peer((_asked, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).end(`{"node_id":"n","x":${'['.repeat(5000)}${']'.repeat(5000)}}`);
    });
    expect((await readPeer(deep.url, loopback)).errors[0]).toContain('at most 12 levels');
    const long = await peer((asked, response) =>
      json(
        response,
        asked.url.endsWith('manifest.json')
          ? { ...MANIFEST, entities: ['e'.repeat(9000), ...Array.from({ length: 998 }, () => 'e')] }
          : { ...WELL_KNOWN, federation_pubkey: 'p'.repeat(9000) },
      ),
    );
    const { wellKnown, manifest } = await readPeer(long.url, loopback);
    expect(wellKnown?.federation_pubkey).toHaveLength(2048);
    expect(manifest?.entities).toHaveLength(256);
    expect(manifest?.entities[0]).toHaveLength(2048);
  });

  test("the caller's signal is the only thing that throws", async () => {
    const controller = new AbortController();
    const reason = new Error('cancelled');
    const server = await peer(() => controller.abort(reason));
    await expect(readPeer(server.url, { ...loopback, signal: controller.signal })).rejects.toBe(reason);
  });
});
