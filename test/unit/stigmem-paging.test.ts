import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { Stigmem } from '../../src/stigmem/client.ts';
import { parseCsv } from '../../src/stigmem/csv.ts';
import { AuditExport } from '../../src/stigmem/wire.ts';
import { collectFederationAudit } from '../../src/stigmem/federation-audit.ts';
import { collectAudit } from '../../src/stigmem/paging.ts';
import { sweep } from '../../src/stigmem/sweep.ts';
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

interface Event {
  readonly id: string;
  readonly peer_id: string;
  readonly event_type: string;
  readonly detail: unknown;
  readonly ts: string;
}

/** The node's own SQL (routes/federation/audit_conflicts.py, get_audit_log): id > cursor under a time order. */
function auditOf(events: readonly Event[]): Handler {
  return ({ url }, response) => {
    const query = new URL(url, 'http://x').searchParams;
    const limit = Number(query.get('limit'));
    const rows = events
      .filter((event) => (query.get('event_type') ?? event.event_type) === event.event_type)
      .filter((event) => (query.get('peer_id') ?? event.peer_id) === event.peer_id)
      .filter((event) => event.id > (query.get('cursor') ?? ''))
      .sort((a, b) => (a.ts < b.ts ? 1 : -1));
    const page = rows.slice(0, limit);
    json(response, { entries: page, cursor: rows.length > limit ? page.at(-1)?.id : null, has_more: rows.length > limit });
  };
}

function events(count: number, fill: Partial<Event>): Event[] {
  return Array.from({ length: count }, (_, at) => ({
    id: randomUUID(),
    peer_id: 'row-1',
    event_type: 'replay_attempt',
    detail: null,
    ts: new Date(1_700_000_000_000 + at * 1000).toISOString(),
    ...fill,
  }));
}

describe('federation audit', () => {
  test('a small audit is one page', async () => {
    const found = await collectFederationAudit(await client(auditOf(events(10, {}))));
    expect(found).toMatchObject({ complete: true, why: 'the whole audit is 10 events, one page', asked: 1 });
    expect(found.items).toHaveLength(10);
  });

  test('a large audit of small kinds is shown complete by event type', async () => {
    const all = [...events(400, {}), ...events(450, { event_type: 'rejected_token' }), ...events(300, { event_type: 'scope_violation' })];
    const found = await collectFederationAudit(await client(auditOf(all)));
    expect(found.complete).toBe(true);
    expect(new Set(found.items.map(({ id }) => id))).toEqual(new Set(all.map(({ id }) => id)));
    expect(found.items.map(({ ts }) => ts)).toEqual(
      found.items
        .map(({ ts }) => ts)
        .sort()
        .reverse(),
    );
  });

  test('a kind that floods is shown complete for the peer when its names each close', async () => {
    const all = [...events(2000, { peer_id: 'other' }), ...events(300, {}), ...events(20, { peer_id: 'stigmem:node:1' })];
    const found = await collectFederationAudit(await client(auditOf(all)), { peerIds: ['row-1', 'stigmem:node:1'] });
    expect(found).toMatchObject({ complete: true });
    expect(found.items).toHaveLength(320);
  });

  test("a flood under the peer's own name is swept and said, with an estimate", async () => {
    const all = events(4000, {});
    const found = await collectFederationAudit(await client(auditOf(all)), { peerIds: ['row-1'] });
    expect(found.complete).toBe(false);
    // 500 is what a single page shows; ids above X bring older ones into sight.
    expect(found.items.length).toBeGreaterThan(900);
    const about = Number(/seen of about (\d+)/.exec(found.why)?.[1]);
    expect(about).toBeGreaterThan(2500);
    expect(about).toBeLessThan(6000);
  });

  test("events that name the peer only in their detail are the peer's; a longer name is not", async () => {
    const all = [
      ...events(1, { peer_id: 'stigmem://peer.test', detail: { node_id: 'stigmem:node:1' } }),
      ...events(1, { peer_id: 'x', detail: { iss: 'stigmem:node:12' } }),
    ];
    const found = await collectFederationAudit(await client(auditOf(all)), { peerIds: ['stigmem:node:1'] });
    expect(found.items.map(({ peer_id }) => peer_id)).toEqual(['stigmem://peer.test']);
  });

  test('onPage hears of every page, and the signal stops between two', async () => {
    const stigmem = await client(auditOf(events(600, {})));
    const heard: number[] = [];
    const controller = new AbortController();
    const onPage = ({ asked }: { asked: number }): void => {
      heard.push(asked);
      if (asked === 3) controller.abort(new Error('enough'));
    };
    await expect(collectFederationAudit(stigmem, { onPage, signal: controller.signal })).rejects.toThrow('enough');
    expect(heard).toEqual([1, 2, 3]);
  });
});

describe('sweep', () => {
  test('a sweep of a query that fits one page asks once', async () => {
    let asked = 0;
    const found = new Map<string, { id: string }>();
    const swept = await sweep(async () => {
      asked += 1;
      return { rows: [{ id: 'a' }], last: true };
    }, found);
    expect([swept, asked, found.size]).toEqual([{ closed: true, estimate: null }, 1, 1]);
  });

  test('a query that is never last ends all the same', async () => {
    let asked = 0;
    const swept = await sweep(async () => {
      asked += 1;
      return { rows: [], last: false };
    }, new Map());
    expect(swept).toEqual({ closed: false, estimate: null });
    expect(asked).toBeLessThan(60);
  });
});

describe('audit', () => {
  const HEAD =
    'id,fact_id,event_type,principal_entity_uri,principal_oidc_sub,source,attested_key_id,attested_key_entity_uri,attested_key_description,fact_entity,fact_relation,fact_value_type,fact_value_v,fact_scope,ts\r\n';
  const csv = (response: Parameters<typeof json>[0], body: string): void =>
    void response.writeHead(200, { 'content-type': 'text/csv; charset=utf-8' }).end(body);
  const row = (id: string, ts: string): string => `${id},,admin_action,stigmem://a,,s,,,,,,,,,${ts}\r\n`;

  test('an export below its limit is the whole log; a value with commas, quotes and line breaks survives', async () => {
    const line = 'e1,f1,fact_write,stigmem://a,,s,,,,ent,rel,text,"a, ""b""\r\nc",local,2026-01-01\r\n';
    const stigmem = await client((_asked, response) => csv(response, HEAD + line + row('e2', '2026-01-02')));
    const found = await collectAudit(stigmem);
    expect(found).toMatchObject({ complete: true, asked: 1 });
    expect(found.items).toEqual([
      expect.objectContaining({ id: 'e2', fact_id: null, event_type: 'admin_action', entity_uri: 'stigmem://a' }),
      expect.objectContaining({ id: 'e1', fact_id: 'f1', fact_value_v: 'a, "b"\r\nc', fact_scope: 'local' }),
    ]);
  });

  const full = (): string =>
    HEAD + Array.from({ length: 50_000 }, (_, at) => row(`e${at}`, `2026-${String(at).padStart(6, '0')}`)).join('');

  test('a full export is joined with the newest pages down to where they meet', async () => {
    const page = (id: string, ts: string): unknown => ({ id, fact_id: 'f', event_type: 'fact_write', source: 's', ts });
    const stigmem = await client(({ url }, response) => {
      if (url.startsWith('/v1/audit/export')) return csv(response, full());
      if (!url.includes('cursor')) return json(response, { entries: [page('new', '2027')], cursor: 'c' });
      return json(response, { entries: [page('e49999', '2026-049999')], cursor: 'd' });
    });
    const found = await collectAudit(stigmem);
    expect(found).toMatchObject({ complete: true, asked: 3 });
    expect(found.items).toHaveLength(50_001);
    expect(found.items[0]?.id).toBe('new');
  });

  test('a full export whose newer pages fail with 500 is said to be incomplete', async () => {
    const stigmem = await client(({ url }, response) =>
      url.startsWith('/v1/audit/export') ? csv(response, full()) : json(response, {}, 500),
    );
    expect(await collectAudit(stigmem)).toMatchObject({ complete: false, why: expect.stringContaining('answers with 500') });
  });

  test('a node without an export is read by page', async () => {
    const stigmem = await client(({ url }, response) =>
      url.startsWith('/v1/audit/export')
        ? json(response, { detail: 'Not Found' }, 404)
        : json(response, {
            entries: [{ id: url.includes('cursor') ? 'old' : 'new', fact_id: 'f', event_type: 'x', source: 's', ts: '1' }],
            cursor: url.includes('cursor') ? null : 'c',
          }),
    );
    expect(await collectAudit(stigmem)).toMatchObject({ complete: true, asked: 3, items: [{ id: 'new' }, { id: 'old' }] });
  });

  test('an export cut inside a quoted field is an error, not a shorter log', async () => {
    const stigmem = await client((_asked, response) => csv(response, `${HEAD}e1,f,x,"open`));
    await expect(collectAudit(stigmem)).rejects.toMatchObject({ code: 'STIGMEM_SCHEMA', field: 'body' });
  });
});

test.each([
  [
    'a,b\r\n1,2\r\n',
    [
      ['a', 'b'],
      ['1', '2'],
    ],
  ],
  ['a,"b""c,\n"\r\n', [['a', 'b"c,\n']]],
  ['a,\n', [['a', '']]],
  ['a,"b', null],
  ['a,b\r\n1,', null],
  ['a,b\r\n1,2', null],
])('CSV %j', (text, rows) => {
  expect(parseCsv(text)).toEqual(rows);
});

const header = ['id', 'fact_id', 'event_type', 'principal_entity_uri', 'principal_oidc_sub', 'source', 'attested_key_id', 'ts'];

test.each([
  ['no columns that we know', [['{"hello":["world"']], /expected a first row with id, fact_id/],
  ['a row that was cut', [header, ['e1', 'f1']], /expected 8 fields/],
])('an audit export with %s is none', (_, rows, message) => {
  expect(() => AuditExport.parse(rows)).toThrow(message);
});

test('an audit export names events as the pages do', () => {
  const [event] = AuditExport.parse([
    header,
    ['e1', '', 'api_key_created', 'stigmem://home.test/admin', '', 'x', '', '2026-11-23T01:00:00Z'],
  ]);
  expect(event).toMatchObject({ id: 'e1', fact_id: null, entity_uri: 'stigmem://home.test/admin', oidc_sub: null });
});
