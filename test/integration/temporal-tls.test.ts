import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { managedProcess } from '../../src/lab/processes.ts';
import { startTemporal, type TemporalServer } from '../../src/lab/temporal-server.ts';
import { repoRoot, temporalBin } from '../../src/lab/tools.ts';
import { cordon } from '../helpers/cli.ts';
import { makeCertificates, openDoor, type Certificates, type DoorOptions, type TlsDoor } from '../helpers/tls-door.ts';

// Temporal Cloud and secured clusters: the profile file of the `temporal` command opens them for cordon too.

const dir = join(repoRoot, '.test', 'temporal-tls');
const apiKey = 'tls-canary-key-8c1d';
let server: TemporalServer;
let certificates: Certificates;
const doors: TlsDoor[] = [];

beforeAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  certificates = makeCertificates(join(dir, 'certificates'));
  server = await startTemporal({ dir: join(dir, 'temporal') });
});
afterAll(async () => {
  for (const door of doors) await door.close();
  await server?.stop();
});

async function door(options: DoorOptions): Promise<TlsDoor> {
  const opened = await openDoor(server.address, certificates, options);
  doors.push(opened);
  return opened;
}

/** A profile as docs/how-to/deploy.md writes it; the environment that names it and nothing else. */
function profile(
  name: string,
  { address }: TlsDoor,
  more: readonly string[],
  tls: Readonly<Record<string, string>>,
): Record<string, string> {
  const file = join(dir, `${name}.toml`);
  const lines = ['[profile.prod]', `address = "${address}"`, 'namespace = "default"', ...more, '[profile.prod.tls]'];
  const trust = { server_name: 'temporal.test', server_ca_cert_path: certificates.ca, ...tls };
  writeFileSync(file, [...lines, ...Object.entries(trust).map(([key, value]) => `${key} = "${value}"`), ''].join('\n'));
  return { TEMPORAL_CONFIG_FILE: file, TEMPORAL_PROFILE: 'prod' };
}
const mutual = () => ({ client_cert_path: certificates.clientCert, client_key_path: certificates.clientKey });

const bare = (env: Readonly<Record<string, string>>): Record<string, string> => ({ PATH: process.env['PATH'] ?? '', HOME: dir, ...env });
// Not the synchronous one: the door is in this process.
const temporal = async (env: Readonly<Record<string, string>>): Promise<string> => {
  const { stdout } = await promisify(execFile)(temporalBin(), ['operator', 'namespace', 'describe', '-n', 'default'], { env: bare(env) });
  return stdout;
};

async function temporalLine(env: Record<string, string>): Promise<string> {
  // The helper's own address would win over the profile's.
  const run = await cordon(['doctor'], { ...env, TEMPORAL_ADDRESS: undefined });
  return run.out.split('\n').find((line) => / Temporal: /.test(line)) ?? run.out;
}

async function workerRuns(name: string, env: Readonly<Record<string, string>>): Promise<void> {
  const logFile = join(dir, `${name}.log`);
  const worker = managedProcess({
    name,
    command: process.execPath,
    args: [join(repoRoot, 'bin', 'cordon.js'), 'worker'],
    cwd: dir,
    env: bare({ ...env, STIGMEM_URL: 'http://127.0.0.1:1', STIGMEM_ADMIN_KEY: 'none', CORDON_TASK_QUEUE: name }),
    logFile,
    ready: async () => {
      const run = await cordon(['doctor'], { ...env, TEMPORAL_ADDRESS: undefined, CORDON_TASK_QUEUE: name });
      return /ok\s+worker: /.test(run.out);
    },
  });
  await worker.start();
  await worker.stop(15_000);
  expect(readFileSync(logFile, 'utf8')).not.toContain(apiKey);
}

describe('mTLS from the profile file', () => {
  test('opens the same door for temporal, cordon and its worker', async () => {
    const secured = await door({ mutual: true });
    const env = profile('mutual', secured, [], mutual());
    expect(await temporal(env)).toContain('default');
    expect(await temporalLine(env)).toMatch(/^ok /);
    await workerRuns('mutual', env);
    expect(secured.calls).toBeGreaterThan(5);
  });

  test('without the client certificate, or with a server nobody vouches for, nothing connects', async () => {
    const secured = await door({ mutual: true });
    await expect(temporal(profile('bare', secured, [], {}))).rejects.toThrow();
    expect(await temporalLine(profile('bare', secured, [], {}))).toMatch(/^FAIL /);
    expect(await temporalLine(profile('other', secured, [], { ...mutual(), server_name: 'elsewhere.test' }))).toMatch(/^FAIL /);
    expect(secured.calls).toBe(0);
  });

  test('the TEMPORAL_TLS_* variables do the same', async () => {
    const secured = await door({ mutual: true });
    const env = {
      TEMPORAL_CONFIG_FILE: join(dir, 'none.toml'),
      TEMPORAL_TLS: 'true',
      TEMPORAL_TLS_SERVER_NAME: 'temporal.test',
      TEMPORAL_TLS_SERVER_CA_CERT_PATH: certificates.ca,
      TEMPORAL_TLS_CLIENT_CERT_PATH: certificates.clientCert,
      TEMPORAL_TLS_CLIENT_KEY_PATH: certificates.clientKey,
    };
    const run = await cordon(['doctor'], { ...env, TEMPORAL_ADDRESS: secured.address });
    expect(run.out).toContain(`Temporal: ${secured.address}`);
    expect(run.code).not.toBe(4);
    expect(secured.calls).toBeGreaterThan(0);
  });
});

describe('an API key from the profile file', () => {
  test('goes with each call, of the worker too, and into no log', async () => {
    const secured = await door({ apiKey });
    const env = profile('key', secured, [`api_key = "${apiKey}"`], {});
    expect(await temporal(env)).toContain('default');
    expect(await temporalLine(env)).toMatch(/^ok /);
    await workerRuns('key', env);
  });

  test('a wrong one is refused, and not shown', async () => {
    const secured = await door({ apiKey });
    const run = await cordon(['doctor'], {
      ...profile('wrong', secured, ['api_key = "wrong-canary-1f"'], {}),
      TEMPORAL_ADDRESS: undefined,
    });
    expect(run.code).not.toBe(0);
    expect(run.out).toMatch(/FAIL/);
    expect(`${run.out}${run.err}`).not.toContain('wrong-canary-1f');
  });
});
