import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { incidentFolderName } from '../../src/evidence/names.ts';
import { waitUntil } from '../../src/lab/processes.ts';
import { freePort, repoRoot } from '../../src/lab/tools.ts';
import { ByHand, untilHealthy } from '../helpers/by-hand.ts';
import { composeProject } from '../helpers/compose.ts';
import { buildImage } from '../helpers/dockerfile.ts';
import { adminTools, built, postgres, temporalServer } from '../helpers/hand-images.ts';
import { hostileScene, type Scene } from '../helpers/hostile-scene.ts';
import { SlackStub } from '../helpers/slack-stub.ts';

// docker-compose.yml, service by service, on a real Temporal server with PostgreSQL: one incident from start to
// outcome, with the database and the server killed in the middle.

const dir = join(repoRoot, '.test', 'postgres');
const slack = new SlackStub();
let scene: Scene;
let hand: ByHand;

beforeAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  scene = await hostileScene('postgres-scene', 30);
  await slack.start();
  execFileSync('sh', [join(repoRoot, 'deploy', 'secrets.sh'), join(dir, 'secrets')]);
  for (const [name, value] of [
    ['stigmem_admin_key', scene.ours.adminKey],
    ['slack_bot_token', slack.token],
    ['slack_signing_secret', 'signing-canary-9d31'],
  ] as const) {
    rmSync(join(dir, 'secrets', name), { force: true });
    writeFileSync(join(dir, 'secrets', name), `${value}\n`);
  }
  // The second time it keeps what is there, and makes it readable for the containers.
  execFileSync('sh', [join(repoRoot, 'deploy', 'secrets.sh'), join(dir, 'secrets')]);

  const ports = new Map<string, number>();
  for (const port of ['5432', '7233', '9464', '9465', '3000', 'worker-2:9464', 'worker-2:9465']) ports.set(port, await freePort());
  const cluster: Record<string, string> = { TEMPORAL_BROADCAST_ADDRESS: '127.0.0.1', BIND_ON_IP: '127.0.0.1' };
  for (const name of [
    'FRONTEND_HTTP',
    'HISTORY_GRPC',
    'MATCHING_GRPC',
    'WORKER_GRPC',
    'FRONTEND_MEMBERSHIP',
    'HISTORY_MEMBERSHIP',
    'MATCHING_MEMBERSHIP',
    'WORKER_MEMBERSHIP',
  ]) {
    cluster[`${name}_PORT`] = String(await freePort());
  }
  const at = (port: number): number => ports.get(String(port)) ?? port;
  const image = buildImage(join(repoRoot, 'Dockerfile'), repoRoot, join(dir, 'image'));
  const { server, sql } = built(repoRoot);
  hand = new ByHand({
    project: composeProject({
      STIGMEM_URL: scene.ours.url,
      CORDON_PEER_ALLOW: 'loopback',
      CORDON_WRITES_PER_HOUR: '1000000',
      CORDON_CHAT_CHANNEL: slack.channel,
    }),
    dir,
    ports,
    images: {
      postgres: postgres(join(dir, 'boxes', 'postgres'), at(5432)),
      'temporalio/server': temporalServer(join(dir, 'boxes', 'server'), server),
      'temporalio/admin-tools': adminTools(join(dir, 'boxes', 'admin-tools'), sql),
      cordon: image,
    },
    env: {
      temporal: { ...cluster, FRONTEND_GRPC_PORT: String(at(7233)) },
      chat: { CORDON_SLACK_API_URL: slack.apiUrl },
    },
  });
}, 900_000);
afterAll(async () => {
  await hand?.down();
  await slack.stop();
  await scene?.stop();
});

const Answer = z.looseObject({ exitCode: z.number() });
/** `docker compose exec worker cordon …`. */
function cordon(...args: string[]) {
  return Answer.parse(JSON.parse(hand.run('worker', ['cordon', ...args, '--json']).out));
}

const Waiting = z.looseObject({ kind: z.string(), gate: z.string().optional(), digest: z.string().optional() });
const Shown = z.looseObject({
  status: z.looseObject({
    phase: z.string(),
    state: z.string(),
    outcome: z.string().nullable(),
    waitingFor: z.array(Waiting),
    refused: z.unknown(),
  }),
});
const until = (what: string, fits: (status: z.infer<typeof Shown>['status']) => boolean) =>
  waitUntil(
    what,
    async () => {
      const { status } = Shown.parse(cordon('show', 'peer-compromise'));
      return fits(status) ? status : undefined;
    },
    { timeoutMs: 180_000, everyMs: 1_000 },
  );
async function digestOf(gate: string): Promise<string> {
  const open = (status: z.infer<typeof Shown>['status']) => status.waitingFor.find((waiting) => waiting.gate === gate)?.digest;
  return open(await until(`gate ${gate}`, (status) => open(status) !== undefined)) ?? '';
}
/** Approved again until it is answered: a decision is an update with its own id, so it counts once. */
const approve = (gate: string, digest: string) =>
  waitUntil(
    `the approval of ${gate}`,
    async () => cordon('approve', 'peer-compromise', '--gate', gate, '--digest', digest, '--by', 'alice').exitCode === 0,
    {
      timeoutMs: 90_000,
      everyMs: 1_000,
    },
  );
const restart = (name: string) =>
  waitUntil(`${name} again`, async () => hand.start(name).then(() => true), { timeoutMs: 90_000, everyMs: 1_000 });

const databases = ['temporal', 'temporal_visibility'] as const;
/** A command of PostgreSQL's in its container, as docs/how-to/deploy.md has it but for the socket. */
function inPostgres(command: string, ...args: string[]) {
  const password = readFileSync(join(dir, 'secrets', 'postgres_password'), 'utf8').trim();
  return hand.run('postgresql', ['env', `PGPASSWORD=${password}`, command, '--host=127.0.0.1', '--username=temporal', ...args]);
}
const dumpOf = (name: string) => `/var/lib/postgresql/data/${name}.dump`;

test('the schema job makes both databases, and a second run changes nothing', { timeout: 300_000 }, async () => {
  await hand.up(['postgresql', 'temporal-schema']);
  const version = () => {
    const asked = ['--tuples-only', '--command', 'select curr_version from schema_version'];
    return databases.map((name) => inPostgres('psql', `--dbname=${name}`, ...asked).output.trim());
  };
  const before = version();
  expect(before).toEqual([expect.stringMatching(/^1\.\d+$/), expect.stringMatching(/^1\.\d+$/)]);
  expect(hand.run('temporal-schema')).toMatchObject({ code: 0, output: expect.stringContaining('both databases are up to date') });
  expect(version()).toEqual(before);
});

test(
  'the server, its namespace job, two workers and the chat become healthy, and doctor has nothing to mend',
  { timeout: 300_000 },
  async () => {
    await hand.up(['temporal', 'temporal-namespace', 'worker', 'worker-2', 'chat']);
    expect(hand.run('temporal-namespace')).toMatchObject({ code: 0, output: expect.stringContaining('keeps closed runs 720h') });
    const Report = z.looseObject({ findings: z.array(z.object({ check: z.string(), state: z.string(), found: z.string() })) });
    // Its own time limits are short: on a machine this busy it may have to look again.
    const report = await waitUntil(
      'doctor to have nothing to mend',
      async () => {
        const found = Report.parse(cordon('doctor'));
        return found.findings.every(({ state }) => state !== 'fail') && found;
      },
      { timeoutMs: 90_000, everyMs: 1_000 },
    );
    for (const check of ['Temporal', 'namespace', 'search attributes', 'worker', 'admin key', 'evidence folder']) {
      expect(report.findings.find((finding) => finding.check === check)).toMatchObject({ state: 'ok' });
    }
  },
);

test(
  'an incident comes to its outcome although PostgreSQL, the server and a worker are killed: each effect once',
  { timeout: 600_000 },
  async () => {
    expect(cordon('start', scene.peer.nodeId, '--alert', 'peer_replay_burst', '--reported-by', 'alice').exitCode).toBe(0);
    const retract = await digestOf('retract');
    for (const name of databases)
      expect(inPostgres('pg_dump', '--format=custom', `--file=${dumpOf(name)}`, name)).toMatchObject({ code: 0, output: '' });
    const fences = await scene.ours.sql("SELECT id FROM federation_audit WHERE event_type = 'peer_policy_updated'");

    await hand.process('postgresql').kill();
    await waitUntil('the server to miss its database', async () => cordon('list').exitCode !== 0, { timeoutMs: 60_000 });
    await restart('postgresql');
    await untilHealthy(hand, 'temporal');
    await approve('retract', retract);
    await hand.process('temporal').kill();
    await hand.process('worker').kill();
    await waitUntil('the second worker to see that the server is gone', async () => !hand.isHealthy('temporal'), { timeoutMs: 30_000 });
    await restart('temporal');
    await until('phase rotate', ({ phase }) => phase === 'rotate');
    await restart('worker');

    expect(cordon('close', 'peer-compromise', '--outcome', 'expelled', '--reason', 'it turned', '--by', 'alice').exitCode).toBe(0);
    await approve('close', await digestOf('close'));
    const closed = await until('the outcome', ({ state }) => state === 'closed');
    expect(closed.outcome).toBe('expelled');

    // Contained once, and nothing was fenced again after the kills.
    expect(await scene.ours.sql("SELECT id FROM federation_audit WHERE event_type = 'peer_policy_updated'")).toEqual(fences);
    const doubled = await scene.ours.sql(
      'SELECT entity FROM facts WHERE confidence = 0 AND received_from IS NULL GROUP BY entity, relation, scope HAVING COUNT(*) > 1',
    );
    expect(doubled).toEqual([]);
    const [folder = ''] = readdirSync(join(dir, 'volumes', 'evidence')).filter((name) => !name.startsWith('.'));
    expect(folder).toBe(incidentFolderName(`peer-compromise:${scene.peer.nodeId}`));
    expect(cordon('verify', `/var/lib/cordon/evidence/${folder}`)).toMatchObject({ exitCode: 0 });
  },
);

test('a backup of both databases brings the incident back to where it stood', { timeout: 300_000 }, async () => {
  for (const name of ['chat', 'worker', 'worker-2', 'temporal']) await hand.process(name).stop(25_000);
  const options = ['--dbname=postgres', '--clean', '--create', '--if-exists'];
  for (const name of databases) expect(inPostgres('pg_restore', ...options, dumpOf(name))).toMatchObject({ code: 0, output: '' });
  for (const name of ['temporal', 'worker', 'worker-2', 'chat']) await restart(name);
  const { phase, state } = await until('gate retract', ({ waitingFor }) => waitingFor.some(({ gate }) => gate === 'retract'));
  expect({ phase, state }).toEqual({ phase: 'retract', state: 'waiting' });
  // What was undone after the backup is not undone twice.
  await approve('retract', await digestOf('retract'));
  await until('phase rotate', (status) => status.phase === 'rotate');
  const doubled = await scene.ours.sql(
    'SELECT entity FROM facts WHERE confidence = 0 AND received_from IS NULL GROUP BY entity, relation, scope HAVING COUNT(*) > 1',
  );
  expect(doubled).toEqual([]);
});

test('no secret is in a log, in the evidence or in an argument', () => {
  const secrets = readdirSync(join(dir, 'secrets')).map((name) => readFileSync(join(dir, 'secrets', name), 'utf8').trim());
  expect(secrets).toHaveLength(4);
  for (const secret of secrets) {
    const found = spawnSync('grep', ['-rlF', '--', secret, join(dir, 'logs'), join(dir, 'volumes', 'evidence')], { encoding: 'utf8' });
    expect(found.stdout).toBe('');
    // As any user of the machine would see them.
    expect(execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' })).not.toContain(secret);
  }
});

test('SIGTERM ends the chat and both workers well', { timeout: 60_000 }, async () => {
  for (const name of ['chat', 'worker', 'worker-2']) {
    const running = hand.process(name);
    const gone = running.exited();
    await running.stop(25_000);
    expect(await gone, name).toBe(0);
  }
});
