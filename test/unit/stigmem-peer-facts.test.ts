import { afterEach, describe, expect, test } from 'vitest';
import { findCapabilities } from '../../src/stigmem/capabilities.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import { collectQuarantine } from '../../src/stigmem/paging.ts';
import { collectPeerFacts } from '../../src/stigmem/peer-facts.ts';
import { judgePeerFacts, type PeerFactsFindings } from '../../src/stigmem/peer-facts-verdict.ts';
import { json, startServer, type Handler } from '../helpers/stigmem-http.ts';

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.close()));
});

async function client(handler: Handler): Promise<Stigmem> {
  const server = await startServer(handler);
  const stigmem = new Stigmem({ url: server.url, adminKey: 'key' });
  open.push(stigmem, server);
  return stigmem;
}

describe('quarantine', () => {
  const entry = (id: number): unknown => ({
    fact_id: `f${id}`,
    entity: 'e',
    relation: 'r',
    source: 's',
    quarantine_status: 'pending',
    timestamp: 't',
  });

  test('every page is read, and the count agrees', async () => {
    const stigmem = await client(({ url }, response) => {
      const offset = Number(new URL(url, 'http://x').searchParams.get('offset'));
      const items = Array.from({ length: Math.min(1000, 2300 - offset) }, (_, at) => entry(offset + at));
      json(response, { items, total: 2300 });
    });
    const found = await collectQuarantine(stigmem);
    expect(found).toMatchObject({ complete: true, asked: 3 });
    expect(found.items).toHaveLength(2300);
  });

  test('a total that is never reached is said', async () => {
    const stigmem = await client((_asked, response) => json(response, { items: [entry(1)], total: 5 }));
    expect(await collectQuarantine(stigmem)).toMatchObject({
      complete: false,
      why: '1 quarantined facts seen, the node counts 5: the list moved while it was read',
    });
  });
});

test('a node without counts gives what its pages show, and says what that does not prove', async () => {
  const fact = (id: string, sender: string | null): unknown => ({
    id,
    entity: 'e',
    relation: 'r',
    value: { type: 'text', v: 'v' },
    source: 's',
    timestamp: 't',
    scope: 'company',
    confidence: 1,
    received_from: sender,
  });
  const stigmem = await client(({ url }, response) => {
    if (url.startsWith('/v1/facts?') && url.includes('scope=company'))
      return json(response, { facts: [fact('a', 'bad'), fact('b', 'good'), fact('c', null)], cursor: null });
    if (url.startsWith('/v1/facts?')) return json(response, { facts: [], cursor: null });
    if (url.startsWith('/v1/quarantine')) return json(response, { items: [], total: 0 });
    return json(response, { detail: 'Not Found' }, 404);
  });
  const found = await collectPeerFacts(stigmem, { nodeIds: ['bad'] });
  expect(found.items.map(({ id }) => id)).toEqual(['a']);
  expect(found).toMatchObject({ complete: false, why: expect.stringContaining('would not count') });
});

test('a fact that breaks every page that holds it hides only what is older', async () => {
  const fact = (id: string): unknown => ({
    id,
    entity: id,
    relation: 'r',
    value: { type: 'text', v: 'v' },
    source: 's',
    timestamp: 't',
    scope: 'company',
    confidence: 1,
    received_from: 'bad',
  });
  const stigmem = await client(({ url }, response) => {
    const query = new URL(url, 'http://x').searchParams;
    if (url.startsWith('/v1/facts?') && query.get('scope') === 'company') {
      if (Number(query.get('limit')) > 20) return json(response, { detail: 'Internal Server Error' }, 500);
      return json(response, { facts: [fact('newer')], cursor: 'newer' });
    }
    if (url.startsWith('/v1/facts?')) return json(response, { facts: [], cursor: null });
    if (url.startsWith('/v1/quarantine')) return json(response, { items: [], total: 0 });
    return json(response, { detail: 'Not Found' }, 404);
  });
  expect((await collectPeerFacts(stigmem, { nodeIds: ['bad'] })).items.map(({ id }) => id)).toEqual(['newer']);
});

describe('verdict on the facts of a peer', () => {
  const all: PeerFactsFindings = {
    facts: 3,
    receipts: 3,
    receiptsCounted: 3,
    lostOwn: 0,
    lostOthers: 0,
    quarantine: { items: [], complete: true, why: '', asked: 1 },
    otherTenants: 0,
    noArrival: 0,
  };

  test('complete when every receipt was followed', () => {
    expect(judgePeerFacts(all)).toEqual({
      complete: true,
      why: '3 facts of the peer; every one of 3 notes of receipt was followed to its fact',
    });
  });

  test.each([
    [{ receipts: 2 }, '2 of 3 notes of receipt could be listed'],
    [{ receiptsCounted: -1 }, 'would not count'],
    [{ lostOwn: 1 }, "1 facts that were received, perhaps from the peer, can't be read"],
    [{ lostOthers: 4 }, 'by relay'],
    [{ otherTenants: null }, 'whether other tenants hold facts of the peer is unknown'],
    [{ otherTenants: 7 }, '7 facts belong to tenants'],
    [{ quarantine: { ...all.quarantine, complete: false, why: 'the list moved' } }, 'the list moved'],
  ])('%j is a gap', (gap, words) => {
    const verdict = judgePeerFacts({ ...all, ...gap });
    expect(verdict.complete).toBe(false);
    expect(verdict.why).toContain(words);
  });

  test('an arrival that could not be read is said, but the facts are complete', () => {
    expect(judgePeerFacts({ ...all, noArrival: 2 })).toMatchObject({
      complete: true,
      why: expect.stringContaining('2 without a readable time of arrival'),
    });
  });
});

describe('capabilities', () => {
  test('documented routes of newer nodes are recognised whatever their parameters are called', async () => {
    const paths = {
      '/v1/federation/peers/{id}': { get: {}, delete: {}, parameters: [] },
      '/v1/federation/trust-scores/{peer}': { put: {} },
    };
    const stigmem = await client((_asked, response) => json(response, { info: { version: '1.2.3' }, paths }));
    expect(await findCapabilities(stigmem)).toMatchObject({
      deletePeer: true,
      getPeer: true,
      trustScores: true,
      patchPeer: false,
      originPins: false,
      from: 'openapi',
      nodeVersion: '1.2.3',
    });
  });

  test.each([
    ['404', (response: Parameters<typeof json>[0]) => json(response, { detail: 'Not Found' }, 404)],
    ['HTML', (response: Parameters<typeof json>[0]) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>docs</p>')],
  ])('a node without a document (%s) is taken for a 0.9.0a12, and it is said', async (_name, answer) => {
    const stigmem = await client((_asked, response) => answer(response));
    const found = await findCapabilities(stigmem);
    expect(found).toMatchObject({ patchPeer: true, originPins: true, deletePeer: false, trustScores: false, from: 'assumed' });
    expect(found.why).toContain('the routes of 0.9.0a12 are assumed');
    expect(found.nodeVersion).toBeUndefined();
  });

  test.each([401, 500, 503])('%i says nothing about routes and is thrown', async (status) => {
    const stigmem = await client((_asked, response) => json(response, {}, status));
    await expect(findCapabilities(stigmem)).rejects.toMatchObject({ code: 'STIGMEM_HTTP', status });
  });
});
