import { Client, Connection } from '@temporalio/client';
import { MockActivityEnvironment } from '@temporalio/testing';
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { communicateActivities } from '../../activities/communicate.ts';
import type { Deps } from '../../activities/deps.ts';
import { toApplicationFailure } from '../../activities/failures.ts';
import type { IncidentRef, StepResult } from '../../src/contract/steps.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import { verifyFolder } from '../../src/evidence/verify.ts';
import { Stigmem } from '../../src/stigmem/client.ts';

const secret = 'hook-canary';
let server: Server;
let base = '';
let hookStatus = 200;
let answersAs = 'node-ours';
let posts: { key: string; body: { kind: string; notice?: string; text: string } }[] = [];
let dir = '';
let planId = '';
let contactsFile = '';

const peerRow = (id: string, scopes: string[], status = 'active') => ({
  peer_id: `row-${id}`,
  node_id: id,
  node_url: `http://${id}.test`,
  status,
  allowed_scopes: scopes,
});
const peers = [
  peerRow('node-peer', ['company']),
  peerRow('node-down', ['company', 'public']),
  peerRow('node-public', ['public']),
  peerRow('node-gone', ['company'], 'revoked'),
];

beforeAll(async () => {
  server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      if (request.url === '/v1/federation/peers')
        return response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ peers }));
      if (request.url === '/.well-known/stigmem')
        return response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ node_id: answersAs, node_url: base }));
      posts.push({ key: String(request.headers['idempotency-key']), body: JSON.parse(Buffer.concat(parts).toString()) });
      return response.writeHead(hookStatus).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${z.object({ port: z.number() }).parse(server.address()).port}`;
});
afterAll(() => server.close());

beforeEach(async () => {
  posts = [];
  answersAs = 'node-ours';
  hookStatus = 200;
  dir = mkdtempSync(join(tmpdir(), 'communicate-'));
  contactsFile = join(dir, 'contacts.yaml');
  writeFileSync(
    contactsFile,
    'peers: { node-peer: { name: Peer desk, contact: desk@peer.test } }\ndownstream: { node-down: { name: Down desk, contact: desk@down.test } }\nagents: { "stigmem://home/": { name: Owner, contact: owner@home.test } }\n',
  );
  const fact = (id: string, scope: string, action: string) => ({
    id,
    entity: 'stigmem://secret/e',
    relation: 'r',
    scope,
    action,
    way: 'http',
    rule: 'secret-rule',
    reason: 'x',
    evidence: [],
    contentHash: 'h',
    ours: '',
  });
  async function* plan() {
    yield* [fact('fact-1', 'company', 'retract'), fact('fact-2', 'public', 'keep')];
  }
  const sealed = await (
    await store()
  ).seal({ key: 'plan', kind: 'plan', name: 'plan', phase: 'investigate', round: 1, at: ref().at }, plan());
  planId = sealed.id;
});

const ref = (mode: IncidentRef['mode'] = 'live', at = '2026-11-23T03:00:00.000Z'): IncidentRef => ({
  incident: 'peer-compromise:node-peer',
  firstRun: '01a20666-34f1-73c3-bc5a-3f756122d75e',
  mode,
  phase: 'communicate',
  round: 1,
  at,
  nodeId: 'node-ours',
});
const store = () => EvidenceStore.open(dir, ref().incident, ref().at);
const facts = () => ({
  peer: {
    nodeId: 'node-peer',
    url: 'http://node-peer.test',
    entityUri: '',
    peerIds: ['row-node-peer'],
    nodeIds: ['node-peer'],
    allowedScopes: ['company'],
  },
  alerts: [],
  steps: [{ name: 'fenceInbound', outcome: 'verified', way: 'http', at: ref().at, detail: 'd' }] as const,
  firstBad: null,
  plan: { counts: {}, evidenceId: planId, total: 2 },
  coverage: [],
  residual: [],
});

function activities(change: Partial<Deps> = {}) {
  // No activity of this phase speaks to Temporal: nothing connects.
  const temporal = new Client({ connection: Connection.lazy({ address: '127.0.0.1:1' }) });
  const deps: Deps = {
    temporal,
    node: new Stigmem({ url: base, adminKey: 'key' }),
    nodeUrl: base,
    evidenceDir: dir,
    policyFile: undefined,
    contactsFile,
    webhookUrl: undefined,
    peerAllow: [],
    concurrency: 1,
    writesPerHour: 1_000,
    writeHeadroom: 0.1,
    hostTaskQueue: 'stigmem-host',
    ...change,
  };
  return communicateActivities(deps);
}
const hooked = () => activities({ webhookUrl: `${base}/hook?k=${secret}` });
const run = <T>(act: () => Promise<T>): Promise<T> => new MockActivityEnvironment().run(act);
const filesOf = async () => readdirSync(join((await store()).dir, 'files')).toSorted();
const read = async (name: string) => readFileSync(join((await store()).dir, 'files', name), 'utf8');

async function isSound(result: StepResult): Promise<void> {
  expect(await verifyFolder((await store()).dir, { expectHead: result.evidence.head })).toMatchObject({ ok: true });
}

describe('without a webhook', () => {
  it('writes the notice and asks a person to send it, by name and contact', async () => {
    const result = await run(() => activities().notifyPeer({ ref: ref(), facts: facts() }));
    expect(result).toMatchObject({
      outcome: 'unverified',
      way: 'manual',
      manual: { how: 'Send files/notice-peer-01a20666-r1.md to Peer desk <desk@peer.test>.' },
    });
    expect(await read('notice-peer-01a20666-r1.md')).toContain('fact `fact-1`');
    await isSound(result);
  });

  it('reads back only what can be: that the file is as it was sealed', async () => {
    await run(() => activities().notifyPeer({ ref: ref(), facts: facts() }));
    const back = await run(() => activities().notifyPeer({ ref: ref(), facts: facts(), readBack: true }));
    expect(back).toMatchObject({ outcome: 'verified', way: 'manual' });
    expect(back.detail).toContain("rests on the person's word alone");
    writeFileSync(join((await store()).dir, 'files', 'notice-peer-01a20666-r1.md'), 'changed');
    expect(await run(() => activities().notifyPeer({ ref: ref(), facts: facts(), readBack: true }))).toMatchObject({
      outcome: 'unverified',
    });
  });

  it('tells whom to look up when no contact is known', async () => {
    const result = await run(() => activities({ contactsFile: undefined }).notifyPeer({ ref: ref(), facts: facts() }));
    expect(result.manual?.how).toContain('Look up the operator of the peer "http://node-peer.test", node id "node-peer"');
  });

  it('writes to each active peer that can pull an affected scope, and says what it rests on', async () => {
    const result = await run(() => activities().notifyDownstream({ ref: ref(), facts: facts() }));
    expect(await filesOf()).toHaveLength(1);
    expect(result.manual?.how).toContain('Down desk <desk@down.test>');
    expect(result.coverage).toMatchObject([{ seen: 1, complete: false }]);
    await run(() => activities().notifyDownstream({ ref: ref('live', '2026-11-23T04:00:00.000Z'), facts: { ...facts(), plan: null } }));
    expect(await filesOf()).toHaveLength(2);
  });

  it('tells nobody when another node answers: its peers are other people', async () => {
    answersAs = 'node-other';
    await expect(run(() => activities().notifyDownstream({ ref: ref(), facts: facts() }))).rejects.toThrow('node-other');
    expect(existsSync(join((await store()).dir, 'files'))).toBe(false);
  });

  it('addresses every owner of local agents, since callers are not knowable', async () => {
    const result = await run(() => activities().notifyLocal({ ref: ref(), facts: facts() }));
    expect(result.manual?.how).toContain('Owner <owner@home.test>');
    expect(result.coverage?.[0]?.why).toContain('recall_audit_log');
    const text = await read('notice-local-01a20666-r1.md');
    expect(text).not.toContain('stigmem://secret');
    expect(text).not.toContain('secret-rule');
  });

  it('names who recalled in the affected scopes, where the host worker listed it', async () => {
    const recaller = (caller: string, scope: string) => ({
      kind: 'recaller',
      recaller: { caller, scope, times: 4, first: '2026-11-23T01:00:00Z', last: '2026-11-23T01:30:00Z' },
    });
    async function* listing() {
      yield { kind: 'listing', counted: 0, localSources: [] };
      yield recaller('stigmem://home.test/agent/pay', 'company');
      yield recaller('stigmem://home.test/agent/elsewhere', 'a-scope-of-no-bad-fact');
    }
    const { firstRun, round, at } = ref();
    const key = `${firstRun}:investigate:${round}:listFacts`;
    await (await store()).seal({ key, kind: 'facts', name: 'listFacts', phase: 'investigate', round, at }, listing());
    const result = await run(() => activities().notifyLocal({ ref: ref(), facts: facts() }));
    expect(result.coverage).toMatchObject([{ seen: 1, complete: false }]);
    const text = await read('notice-local-01a20666-r1.md');
    expect(text).toContain('`stigmem://home.test/agent/pay`: 4 times in `company`, last `2026-11-23T01:30:00Z`');
    expect(text).not.toContain('elsewhere');
  });
});

describe('with a webhook', () => {
  it('is verified once the webhook took it, and posts nothing twice', async () => {
    const result = await run(() => hooked().notifyPeer({ ref: ref(), facts: facts() }));
    expect(result).toMatchObject({ outcome: 'verified', way: 'http' });
    expect(posts).toHaveLength(1);
    expect(posts[0]?.key).toMatch(/^01a20666-34f1-73c3-bc5a-3f756122d75e:communicate:1:notice-peer:[0-9a-f]{12}$/);
    expect(posts[0]?.body.text).toBe(await read('notice-peer-01a20666-r1.md'));
    expect(await run(() => hooked().notifyPeer({ ref: ref('live', '2026-11-23T05:00:00.000Z'), facts: facts() }))).toMatchObject({
      outcome: 'verified',
    });
    expect(posts).toHaveLength(1);
    await isSound(result);
    const entries = await (await store()).entries();
    const sealed = await Promise.all(entries.map(async ({ sha256 }) => (await (await store()).read(`sha256:${sha256}`)).toString()));
    expect(sealed.join('\n') + JSON.stringify(entries)).not.toContain(secret);
  });

  it('fails to be retried while it is down, with every notice kept', async () => {
    hookStatus = 503;
    const error = await run(() => hooked().notifyPeer({ ref: ref(), facts: facts() })).then(() => undefined, toApplicationFailure);
    expect(error).toMatchObject({ type: 'WebhookUnavailable', nonRetryable: false });
    expect(String(error)).not.toContain(secret);
    expect(await filesOf()).toEqual(['notice-peer-01a20666-r1.md']);
    hookStatus = 200;
    expect(await run(() => hooked().notifyPeer({ ref: ref(), facts: facts() }))).toMatchObject({ outcome: 'verified' });
    expect(new Set(posts.map(({ key }) => key)).size).toBe(1);
  });

  it('still asks for a person when it knows no contact', async () => {
    const result = await run(() =>
      activities({ webhookUrl: `${base}/hook`, contactsFile: undefined }).notifyPeer({ ref: ref(), facts: facts() }),
    );
    expect(posts).toHaveLength(1);
    expect(result).toMatchObject({ outcome: 'unverified', way: 'manual' });
  });

  it('posts nothing in a drill, and marks the file in name and first line', async () => {
    const result = await run(() => hooked().notifyPeer({ ref: ref('drill'), facts: facts() }));
    expect(posts).toHaveLength(0);
    expect(await filesOf()).toEqual(['DRILL-notice-peer-01a20666-r1.md']);
    expect((await read('DRILL-notice-peer-01a20666-r1.md')).split('\n')[0]).toContain('DRILL');
    expect(result.outcome).toBe('unverified');
    expect(result.manual).toBeUndefined();
  });

  it('reminds of a gate with what is needed to decide it', async () => {
    const asked = {
      ref: ref(),
      gate: 'retract',
      why: 'waiting',
      opening: 2,
      digest: `sha256:${'a'.repeat(64)}`,
      summary: 'retract 2',
      have: 0,
      need: 2,
    } as const;
    const told = await run(() => hooked().remind(asked));
    expect(told.evidence.head).toMatch(/^sha256:/);
    expect(posts[0]?.body).toMatchObject({ kind: 'reminder', text: expect.stringContaining('0 of 2 approvals') });
    expect(posts[0]?.body.text).toContain('--gate retract --digest sha256:aaaaaaaaaaaa --by <you>');
    await run(() => activities().remind(asked));
    expect(posts).toHaveLength(1);
  });
});

it('names the field of a contacts file that is wrong, and is not retried', async () => {
  writeFileSync(contactsFile, 'peers: 7');
  const error = await run(() => activities().notifyPeer({ ref: ref(), facts: facts() })).then(() => undefined, toApplicationFailure);
  expect(error).toMatchObject({ type: 'ConfigInvalid', nonRetryable: true });
  expect(String(error)).toContain('peers: expected record, got 7');
});
