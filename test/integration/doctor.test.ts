import { NativeConnection, Worker } from '@temporalio/worker';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startNodeProxy, type NodeProxy } from '../../src/lab/node-proxy.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { freePort, temporalBin } from '../../src/lab/tools.ts';
import { connectTemporal, loadTemporalSettings, type TemporalSession } from '../../src/temporal.ts';
import { doctorSays, findingAbout, type Finding, type Report } from '../helpers/doctor.ts';

// Each thing the doctor looks at, well and unwell, on real parts.

const dir = mkdtempSync(join(tmpdir(), 'cordon-doctor-'));
let temporal: TemporalServer;
let session: TemporalSession;
let node: StigmemNode;
let proxy: NodeProxy;
let env: Record<string, string>;
let slowest = 0;

beforeAll(async () => {
  [temporal, node] = await Promise.all([
    startTemporal({ dir: join(dir, 'temporal') }),
    startStigmemNode({ name: 'ours', dir: join(dir, 'ours') }),
  ]);
  proxy = await startNodeProxy({ target: node.url });
  mkdirSync(join(dir, 'evidence'));
  env = {
    TEMPORAL_ADDRESS: temporal.address,
    STIGMEM_URL: proxy.url,
    STIGMEM_ADMIN_KEY: node.adminKey,
    CORDON_EVIDENCE_DIR: join(dir, 'evidence'),
  };
  session = await connectTemporal(loadTemporalSettings({ ...env, TEMPORAL_CONFIG_FILE: '/nonexistent/temporal.toml' }));
}, 120_000);

afterAll(async () => {
  await session?.close();
  await proxy?.stop();
  await Promise.allSettled([temporal?.stop(), node?.stop()]);
});

async function examine(over: Record<string, string> = {}): Promise<Report> {
  const { ms, report, shown } = await doctorSays({ ...env, ...over });
  slowest = Math.max(slowest, ms);
  expect(shown).not.toContain(node.adminKey);
  return report;
}

const finding = async (check: string, over: Record<string, string> = {}): Promise<Finding> => findingAbout(await examine(over), check);

/** Does what a finding says, as a person would: the command in a shell, against this server. */
function doAsTold(mend: string | undefined): void {
  const command = mend?.replace(/^.*?(temporal operator )/, `'${temporalBin()}' operator `) ?? 'false';
  execFileSync('sh', ['-c', `${command.split(';')[0]} --address ${temporal.address}${command.includes(' remove ') ? ' --yes' : ''}`], {
    env: { HOME: dir, PATH: process.env['PATH'] ?? '' },
  });
}

describe('Temporal', () => {
  test('a namespace that is not there, then short retention, then no search attributes: each is well once done as told', async () => {
    const over = { TEMPORAL_NAMESPACE: 'new-one' };
    const { findings, exitCode } = await examine(over);
    expect(exitCode).toBe(1);
    expect(findings.filter(({ check }) => check === 'worker' || check === 'search attributes')).toEqual([]);
    const missing = findings.find(({ check }) => check === 'namespace');
    expect(missing).toMatchObject({ state: 'fail', found: 'new-one is not there' });
    doAsTold(missing?.mend);
    // The server learns of a namespace within seconds.
    await expect.poll(async () => (await finding('namespace', over)).state, { timeout: 30_000, interval: 1_000 }).toBe('ok');
    // Another part of the server learns of it by itself.
    await expect
      .poll(() => finding('search attributes', over), { timeout: 30_000, interval: 1_000 })
      .toMatchObject({ state: 'warn', found: expect.stringContaining('CordonPeer') });
    const attributes = await finding('search attributes', over);
    doAsTold(attributes.mend);
    await expect.poll(async () => (await finding('search attributes', over)).state, { timeout: 30_000, interval: 1_000 }).toBe('ok');

    const short = await finding('namespace');
    expect(short).toMatchObject({
      state: 'warn',
      found: 'default, closed runs are kept 1 days: shorter than an incident with its watch may take',
    });
    doAsTold(short.mend);
    await expect
      .poll(async () => (await finding('namespace')).found, { timeout: 30_000, interval: 1_000 })
      .toBe('default, closed runs are kept 30 days');
  }, 120_000);

  test('a search attribute of another type', async () => {
    expect(await finding('search attributes')).toMatchObject({ state: 'ok' });
    const args = ['operator', 'namespace', 'create', '--namespace', 'typed', '--retention', '30d', '--address', temporal.address];
    execFileSync(temporalBin(), args, { env: { HOME: dir, PATH: '' } });
    const create = [
      'operator',
      'search-attribute',
      'create',
      '--namespace',
      'typed',
      '--name',
      'CordonPeer',
      '--type',
      'Text',
      '--address',
      temporal.address,
    ];
    await expect.poll(() => succeeds(temporalBin(), create), { timeout: 30_000, interval: 1_000 }).toBe(true);
    const over = { TEMPORAL_NAMESPACE: 'typed' };
    await expect
      .poll(async () => (await finding('search attributes', over)).found, { timeout: 30_000, interval: 1_000 })
      .toContain('not of type Keyword: CordonPeer');
  }, 90_000);

  test('workers: none, one with its build, two builds at once; a host worker or none', async () => {
    const queues = { CORDON_TASK_QUEUE: 'doctor-queue', CORDON_HOST_TASK_QUEUE: 'doctor-host' };
    expect(await finding('worker', queues)).toMatchObject({ state: 'fail', mend: 'cordon worker' });
    expect(await finding('host worker', queues)).toMatchObject({ state: 'warn', found: expect.stringContaining('steps by hand') });
    const connection = await NativeConnection.connect({ address: temporal.address });
    // Two workers of one queue can't share a connection.
    const another = await NativeConnection.connect({ address: temporal.address });
    const common = { workflowsPath: fileURLToPath(new URL('../helpers/stub-incident.ts', import.meta.url)) };
    const first = await Worker.create({ ...common, connection, taskQueue: 'doctor-queue', buildId: 'build-a', identity: 'first@test' });
    const second = await Worker.create({
      ...common,
      connection: another,
      taskQueue: 'doctor-queue',
      buildId: 'build-b',
      identity: 'second@test',
    });
    const host = await Worker.create({ connection, taskQueue: 'doctor-host', activities: { nothing: () => Promise.resolve() } });
    await Promise.all([
      first.runUntil(async () => {
        await expect
          .poll(() => finding('worker', queues), { timeout: 20_000 })
          .toMatchObject({ state: 'ok', found: expect.stringContaining('build-a') });
        await second.runUntil(async () => {
          await expect
            .poll(() => finding('worker', queues), { timeout: 20_000 })
            .toMatchObject({ state: 'warn', found: expect.stringContaining('2 builds at once') });
        });
      }),
      host.runUntil(async () => {
        await expect.poll(() => finding('host worker', queues), { timeout: 20_000 }).toMatchObject({ state: 'ok' });
      }),
    ]);
    await Promise.all([connection.close(), another.close()]);
  }, 120_000);

  test('an open incident whose workflow task fails again and again, and none', async () => {
    expect(await finding('workflow tasks')).toMatchObject({ state: 'ok', found: expect.stringMatching(/^none fails; \d+ open/) });
    const connection = await NativeConnection.connect({ address: temporal.address });
    const workflowsPath = fileURLToPath(new URL('../helpers/failing-incident.ts', import.meta.url));
    const worker = await Worker.create({ connection, taskQueue: 'doctor-failing', workflowsPath });
    const handle = await session.client.workflow.start('PeerCompromise', { taskQueue: 'doctor-failing', workflowId: 'stuck', args: [] });
    await worker.runUntil(async () => {
      await expect
        .poll(() => finding('workflow tasks'), { timeout: 45_000, interval: 500 })
        .toMatchObject({ state: 'fail', found: expect.stringContaining('stuck (attempt ') });
    });
    await handle.terminate('over');
    await connection.close();
    await expect.poll(() => finding('workflow tasks'), { timeout: 20_000 }).toMatchObject({ state: 'ok' });
  }, 120_000);
});

describe('the node', () => {
  test('there, silent, not there, and something else', async () => {
    expect(await finding('Stigmem node')).toMatchObject({ state: 'ok' });
    proxy.onRequest = () => ({ kind: 'silence' });
    expect(await finding('Stigmem node')).toMatchObject({ state: 'fail', mend: expect.stringContaining('STIGMEM_URL') });
    proxy.onRequest = () => ({ kind: 'answer', status: 200, body: '<html>' });
    expect(await finding('Stigmem node')).toMatchObject({ state: 'fail', found: expect.stringContaining('not as a Stigmem node does') });
    proxy.onRequest = () => ({ kind: 'answer', status: 502, body: 'bad gateway' });
    expect(await finding('Stigmem node')).toMatchObject({ state: 'fail', found: expect.stringContaining('502') });
    proxy.onRequest = undefined;
    expect(await finding('Stigmem node', { STIGMEM_URL: `http://127.0.0.1:${await freePort()}` })).toMatchObject({ state: 'fail' });
  });

  test.each([
    [60_000, 'warn'],
    [-60_000, 'warn'],
    [1_000, 'ok'],
  ])('a clock %d ms from ours: %s', async (skewMs, state) => {
    proxy.onRequest = () => ({
      kind: 'rewrite',
      rewrite: (answer) => {
        const headers = answer.headers.filter((_text, i) => answer.headers[i - (i % 2)]?.toLowerCase() !== 'date');
        return { ...answer, headers: [...headers, 'date', new Date(Date.now() + skewMs).toUTCString()] };
      },
    });
    expect(await finding('Stigmem node')).toMatchObject({ state });
    proxy.onRequest = undefined;
  });

  test('an admin key with all it needs, a wrong one, and one without each right; nothing is changed by asking', async () => {
    // The node tries a key against each it knows, at some cost: when it is slow the doctor says so, and is asked again.
    const keyIs = (state: string, found: string | RegExp, key = node.adminKey) =>
      expect
        .poll(() => finding('admin key', { STIGMEM_ADMIN_KEY: key }), { timeout: 45_000 })
        .toMatchObject({ state, found: expect.stringMatching(found) });
    const before = await counted();
    await keyIs('ok', 'may federate, admin:federation, write, admin');
    expect(await counted()).toEqual(before);
    await keyIs('fail', '401', 'sk-not-the-key-at-all');
    const all = ['admin', 'write', 'read', 'federate', 'admin:federation'];
    for (const without of ['admin', 'write', 'admin:federation']) {
      const entity = `stigmem://ours.test/agent/without-${without.replace(':', '-')}`;
      const key = await node.issueKey({ entityUri: entity, permissions: ['read'] });
      const permissions = JSON.stringify(all.filter((permission) => permission !== without));
      await node.exec(`UPDATE api_keys SET permissions = '${permissions}' WHERE entity_uri = '${entity}'`);
      await keyIs('fail', new RegExp(`^has no permission ${without}: [^;]*$`), key);
    }
    await keyIs('fail', '403', await node.issueKey({ entityUri: 'stigmem://ours.test/agent/reads', permissions: ['read'] }));
  }, 240_000);

  async function counted(): Promise<unknown> {
    const tables = ['peers', 'facts', 'federation_audit', 'api_keys'];
    return await Promise.all(tables.map((table) => node.sql(`SELECT COUNT(*) AS n FROM ${table}`)));
  }
});

test('answers within 5 s although Temporal and the node take connections and say nothing', async () => {
  const silent = await new Promise<Server>((resolve) => {
    const server = createServer(() => undefined).listen(0, '127.0.0.1', () => resolve(server));
  });
  const address = silent.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const { findings } = await examine({ TEMPORAL_ADDRESS: `127.0.0.1:${port}`, STIGMEM_URL: `http://127.0.0.1:${port}` });
  expect(findings.filter(({ state }) => state === 'fail').map(({ check }) => check)).toEqual(['Temporal', 'Stigmem node', 'admin key']);
  silent.close();
  expect(slowest).toBeGreaterThan(1_000);
  expect(slowest).toBeLessThan(5_000);
});

function succeeds(command: string, args: readonly string[]): boolean {
  try {
    execFileSync(command, args, { env: { HOME: dir, PATH: '' }, stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
