import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { httpAnswers, waitUntil } from '../../src/lab/processes.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { freePort, repoRoot } from '../../src/lab/tools.ts';
import { inBox, type Inside } from '../helpers/box.ts';
import { ByHand } from '../helpers/by-hand.ts';
import { composeProject } from '../helpers/compose.ts';
import { buildImage, type Image } from '../helpers/dockerfile.ts';
import { adminTools } from '../helpers/hand-images.ts';
import { SlackStub } from '../helpers/slack-stub.ts';

// The Dockerfile carried out by hand, and what came out run as docker-compose.yml says, on a dev server.
// The same on PostgreSQL, with a whole incident: `npm run test:postgres`.

const dir = join(repoRoot, '.test', 'deploy');
let image: Image;
beforeAll(() => {
  rmSync(dir, { recursive: true, force: true });
  image = buildImage(join(repoRoot, 'Dockerfile'), repoRoot, join(dir, 'image'));
}, 900_000);
afterAll(() => rmSync(join(dir, 'image'), { recursive: true, force: true }));

function run(command: readonly string[], env: Readonly<Record<string, string>> = {}, binds: Inside['binds'] = []) {
  const inside = { command, env: { ...image.env, ...env }, cwd: image.workdir, user: image.user, tmpfs: ['/tmp:mode=1777'], binds };
  const line = inBox(image.box, inside);
  const done = spawnSync(line.command, line.args, { encoding: 'utf8', timeout: 60_000 });
  return { code: done.status, out: done.stdout.trim(), err: done.stderr };
}
const cordon = (...args: string[]) => run([...image.entrypoint, ...args]);
const Report = z.looseObject({ findings: z.array(z.object({ check: z.string(), state: z.string() })) });

describe('the image', () => {
  test('has the program and what it needs to run, nothing else', () => {
    const app = join(image.box.files, 'app');
    expect(readdirSync(app).toSorted()).toEqual(['LICENSE', 'bin', 'dist', 'node_modules', 'package.json']);
    const packages = readdirSync(join(app, 'node_modules'));
    for (const name of ['typescript', 'vitest', 'dclint', 'oxlint']) expect(packages).not.toContain(name);
    expect(readdirSync(join(app, 'node_modules', '@temporalio', 'core-bridge', 'releases'))).toHaveLength(1);
    const size = spawnSync('du', ['-sm', app], { encoding: 'utf8' }).stdout;
    expect(Number.parseInt(size, 10)).toBeLessThan(200);
  });

  test('runs without root, rights or a place to write but its volume and /tmp', () => {
    const script = 'id -u; grep -E "CapEff|CapBnd|NoNewPrivs" /proc/self/status; touch /tmp/x && echo wrote; touch /app/x /usr/x /etc/x /x';
    const lines = run(['sh', '-c', script])
      .out.split('\n')
      .map((line) => line.replaceAll(/\s+/g, ' '));
    expect(lines).toEqual(['1000', 'CapEff: 0000000000000000', 'CapBnd: 0000000000000000', 'NoNewPrivs: 1', 'wrote']);
  });

  test('cordon --version is the version of the package', () => {
    const { version } = z.object({ version: z.string() }).parse(JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')));
    expect(cordon('--version')).toMatchObject({ code: 0, out: version });
  });

  test('cordon doctor answers where no Temporal is', () => {
    const { code, out } = cordon('doctor', '--json');
    expect(code).toBe(4);
    expect(Report.parse(JSON.parse(out)).findings.find(({ check }) => check === 'Temporal')?.state).toBe('fail');
  });

  test('its own command is the worker, which says what it misses', () => {
    const { code, err } = run([...image.entrypoint, ...image.command]);
    expect(code).toBe(2);
    expect(err).toContain('STIGMEM_URL');
  });

  test('its health check fails where no worker is', () => {
    expect(run(image.healthcheck)).toMatchObject({ code: 1, out: expect.stringContaining('no answer on port 9465') });
  });
});

describe('the services of docker-compose.yml, on a dev server', () => {
  const slack = new SlackStub();
  let server: TemporalServer;
  let node: StigmemNode;
  let hand: ByHand;
  let madeFirst = '';
  let madeThen = '';
  let temporalEnv: Record<string, string>;

  beforeAll(async () => {
    const secrets = join(dir, 'secrets');
    const makeSecrets = () => execFileSync('sh', [join(repoRoot, 'deploy', 'secrets.sh'), secrets], { encoding: 'utf8' });
    madeFirst = makeSecrets();
    node = await startStigmemNode({ name: 'ours', dir: join(dir, 'node') });
    for (const [name, value] of Object.entries({
      stigmem_admin_key: node.adminKey,
      slack_bot_token: slack.token,
      slack_signing_secret: 'sign',
    })) {
      rmSync(join(secrets, name), { force: true });
      writeFileSync(join(secrets, name), `${value}\n`);
    }
    madeThen = makeSecrets();
    server = await startTemporal({ dir: join(dir, 'temporal') });
    await slack.start();
    const ports = new Map([['7233', server.port]]);
    for (const port of ['9464', '9465', '3000', 'worker-2:9464', 'worker-2:9465']) ports.set(port, await freePort());
    temporalEnv = { TEMPORAL_ADDRESS: server.address, TEMPORAL_NAMESPACE: 'cordon' };
    hand = new ByHand({
      project: composeProject({ STIGMEM_URL: node.url, CORDON_CHAT_CHANNEL: slack.channel }),
      dir,
      ports,
      images: { cordon: image, 'temporalio/admin-tools': adminTools(join(dir, 'boxes', 'admin-tools')) },
      env: { chat: { CORDON_SLACK_API_URL: slack.apiUrl } },
    });
  });
  afterAll(async () => {
    await hand?.down();
    await slack.stop();
    await server?.stop();
    await node?.stop();
  });
  /** The `temporal` command, in the box of the namespace job. */
  const temporal = (...args: string[]): string => hand.run('temporal-namespace', ['temporal', ...args, '--namespace', 'cordon']).output;

  test('deploy/secrets.sh names what is missing, makes what it can, and keeps what is there', () => {
    expect(madeFirst).toContain('postgres_password: made');
    expect(madeFirst).toContain('slack_bot_token: missing');
    expect(madeThen).toBe('');
    expect(readFileSync(join(dir, 'secrets', 'slack_bot_token'), 'utf8').trim()).toBe(slack.token);
    expect(readFileSync(join(dir, 'secrets', 'postgres_password'), 'utf8')).toMatch(/^[0-9a-f]{64}$/);
  });

  test('the namespace job makes it with retention and search attributes, again and again', () => {
    for (const time of ['first', 'second']) {
      const { code, output } = hand.run('temporal-namespace');
      expect(output, time).toContain('namespace: cordon keeps closed runs 720h');
      expect(code).toBe(0);
    }
    expect(temporal('operator', 'namespace', 'describe')).toMatch(/WorkflowExecutionRetentionTtl\s+720h0m0s/);
    expect(temporal('operator', 'search-attribute', 'list')).toMatch(/CordonWaitingFor\s+Keyword/);
  });

  test('the namespace job gives up on a server that is not there, and says on what', () => {
    const words = ['env', 'TRIES=2', 'TEMPORAL_ADDRESS=127.0.0.1:1', '/bin/sh', '/deploy/temporal-namespace.sh'];
    expect(hand.run('temporal-namespace', words)).toMatchObject({
      code: 1,
      output: expect.stringContaining('namespace: making it failed 2 times'),
    });
  });

  test(
    'two workers and the chat become healthy, serve what they should, and doctor has nothing to mend',
    { timeout: 300_000 },
    async () => {
      await hand.up(['worker', 'worker-2', 'chat']);
      const answer = await fetch(`http://127.0.0.1:${hand.port(3000)}/slack/events`, { method: 'POST', body: '{}' });
      expect([401, 415]).toContain(answer.status);
      expect(await httpAnswers(`http://127.0.0.1:${hand.port(9464, 'worker-2')}/metrics`)).toBe(true);
      const { findings } = Report.parse(JSON.parse(hand.run('worker', ['cordon', 'doctor', '--json']).out));
      expect(findings.filter(({ state }) => state === 'fail')).toEqual([]);
      for (const check of ['Temporal', 'namespace', 'search attributes', 'worker', 'admin key', 'evidence folder']) {
        expect(findings).toContainEqual(expect.objectContaining({ check, state: 'ok' }));
      }
    },
  );

  test('an incident reaches the node through them', async () => {
    expect(hand.run('worker', ['cordon', 'start', 'stigmem:node:nobody', '--reported-by', 'alice']).code).toBe(0);
    await waitUntil('the incident to say that the node has no such peer', async () =>
      temporal('workflow', 'show', '--workflow-id', 'peer-compromise:stigmem:node:nobody').includes("none of the node's 0 peers"),
    );
  });

  test('bin/replay-open.js says whether a build may take over what is open', async () => {
    const parked = 'peer-compromise:stigmem:node:parked';
    await node.stop();
    hand.run('worker', ['cordon', 'start', 'stigmem:node:parked', '--reported-by', 'alice']);
    await waitUntil('the incident to have a history', async () =>
      temporal('workflow', 'show', '--workflow-id', parked).includes('ActivityTaskScheduled'),
    );
    const replay = (binds: Inside['binds'] = []) => run(['node', 'bin/replay-open.js'], temporalEnv, binds);
    const good = replay();
    expect(good.out).toMatch(/^ok {4}PeerCompromise peer-compromise:stigmem:node:parked/m);
    expect(good).toMatchObject({ code: 0, out: expect.stringContaining('this build can take them over') });

    // A build that calls its first activity by another name.
    const [, first = ''] =
      /"activityType":\s*\{\s*"name":\s*"(\w+)"/.exec(temporal('workflow', 'show', '--workflow-id', parked, '--output', 'json')) ?? [];
    const bundle = readFileSync(join(image.box.files, 'app', 'dist', 'workflow-bundle.js'), 'utf8');
    expect(first).not.toBe('');
    expect(bundle).toContain(first);
    mkdirSync(join(dir, 'other'), { recursive: true });
    const other = join(dir, 'other', 'workflow-bundle.js');
    writeFileSync(other, bundle.replaceAll(first, `${first}Otherwise`));
    const bad = replay([{ from: other, to: '/app/dist/workflow-bundle.js', readOnly: true }]);
    expect(bad).toMatchObject({ code: 1, out: expect.stringContaining('do not start this build while they are open') });
  });

  test('SIGTERM ends them well; then they are not healthy', async () => {
    for (const name of ['chat', 'worker', 'worker-2']) {
      const running = hand.process(name);
      const gone = running.exited();
      await running.stop(30_000);
      expect(await gone, name).toBe(0);
      expect(hand.isHealthy(name)).toBe(false);
    }
  });
});
