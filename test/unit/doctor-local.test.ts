import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { repoRoot } from '../../src/lab/tools.ts';
import { doctorSays, findingAbout, Report, type Finding } from '../helpers/doctor.ts';

// What the doctor looks at on this machine, well and unwell. No Temporal server answers here.

const dir = mkdtempSync(join(tmpdir(), 'cordon-doctor-local-'));
mkdirSync(join(dir, 'evidence'));
const env = { TEMPORAL_ADDRESS: '127.0.0.1:1', CORDON_EVIDENCE_DIR: join(dir, 'evidence') };

async function finding(check: string, over: Record<string, string> = {}): Promise<Finding> {
  const { report } = await doctorSays({ ...env, ...over });
  return findingAbout(report, check);
}

test('an evidence folder that is writable is left as it was, and one that will be made is not made', async () => {
  expect(await finding('evidence folder')).toMatchObject({ state: 'ok', found: expect.stringMatching(/is writable, \d+ MiB free/) });
  expect(readdirSync(join(dir, 'evidence'))).toEqual([]);
  const later = join(dir, 'a', 'b');
  expect(await finding('evidence folder', { CORDON_EVIDENCE_DIR: later })).toMatchObject({
    state: 'ok',
    found: expect.stringContaining('will be made'),
  });
  expect(readdirSync(dir)).not.toContain('a');
  const file = join(dir, 'a-file');
  writeFileSync(file, '');
  expect(await finding('evidence folder', { CORDON_EVIDENCE_DIR: file })).toMatchObject({ state: 'fail' });
});

test.each([
  ['read-only', 'size=2g,ro', 'fail', 'read-only'],
  ['full', 'size=1m', 'fail', 'steps would park'],
  ['nearly full', 'size=200m', 'warn', '200 MiB free'],
  ['roomy', 'size=2g', 'ok', '2048 MiB free'],
])('an evidence folder on a %s disk', async (_what, options, state, words) => {
  const { findings } = Report.parse(JSON.parse(await onDisk(options)));
  expect(findings.find(({ check }) => check === 'evidence folder')).toMatchObject({ state, found: expect.stringContaining(words) });
});

test('policy and contacts: good, bad, none', async () => {
  const good = { policy: join(dir, 'policy.yaml'), contacts: join(dir, 'contacts.yaml') };
  writeFileSync(good.policy, 'sensitiveScopes: [company]\n');
  writeFileSync(good.contacts, '{}\n');
  const bad = join(dir, 'bad.yaml');
  writeFileSync(bad, 'nonsense: [1\n');
  expect(await finding('policy file')).toMatchObject({ state: 'ok' });
  expect(await finding('contacts file')).toMatchObject({ state: 'warn' });
  for (const [check, variable] of [
    ['policy file', 'CORDON_POLICY_FILE'],
    ['contacts file', 'CORDON_CONTACTS_FILE'],
  ] as const) {
    expect(await finding(check, { [variable]: bad })).toMatchObject({ state: 'fail', found: expect.stringContaining('bad.yaml') });
    expect(await finding(check, { [variable]: join(dir, 'nowhere') })).toMatchObject({
      state: 'fail',
      found: expect.stringContaining('ENOENT'),
    });
  }
});

test('chat: not configured, half configured, a refused token, a bad and an empty people file, and well', async () => {
  const token = 'xoxb-c4n4ry-token';
  const slack = createServer((request, response) => {
    const isKnown = request.headers.authorization === `Bearer ${token}`;
    const answer = isKnown ? { ok: true, team: 'ops', user: 'cordon' } : { ok: false, error: 'invalid_auth' };
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => slack.listen(0, '127.0.0.1', resolve));
  const address = slack.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const people = join(dir, 'people.yaml');
  writeFileSync(people, 'U0123ABCD: alice\n');
  const well = {
    CORDON_SLACK_BOT_TOKEN: token,
    CORDON_SLACK_SIGNING_SECRET: 'c4n4ry-signing-secret',
    CORDON_CHAT_CHANNEL: 'C0123ABCD',
    CORDON_CHAT_PEOPLE_FILE: people,
    CORDON_SLACK_API_URL: `http://127.0.0.1:${port}/api/`,
  };
  const { report } = await doctorSays(env);
  expect(report.findings.map(({ check }) => check)).not.toContain('chat');
  const found = await finding('chat', well);
  expect(found).toMatchObject({ state: 'ok', found: 'Slack knows the bot as cordon of ops; 1 people in the people file' });
  const { CORDON_SLACK_SIGNING_SECRET: _left, ...half } = well;
  expect(await finding('chat', half)).toMatchObject({ state: 'fail', found: expect.stringContaining('CORDON_SLACK_SIGNING_SECRET') });
  const refused = await finding('chat', { ...well, CORDON_SLACK_BOT_TOKEN: 'xoxb-another-c4n4ry' });
  expect(refused).toMatchObject({ state: 'fail', found: 'Slack refuses the bot token: invalid_auth' });
  expect(JSON.stringify([found, refused])).not.toContain('c4n4ry');
  writeFileSync(people, 'alice: U0123ABCD\n');
  expect(await finding('chat', well)).toMatchObject({ state: 'fail', found: expect.stringContaining('people.yaml') });
  writeFileSync(people, '');
  expect(await finding('chat', well)).toMatchObject({ state: 'warn', found: expect.stringContaining('nobody can decide') });
  slack.close();
});

/** The built command, with its evidence on a disk of its own. */
function onDisk(options: string): Promise<string> {
  const script = `mount -t tmpfs -o ${options} tmpfs "$1"; exec "$2" "$3" doctor --json`;
  const mount = mkdtempSync(join(dir, 'disk-'));
  const child = [mount, process.execPath, join(repoRoot, 'bin', 'cordon.js')];
  return new Promise((resolve, reject) => {
    execFile(
      'unshare',
      ['-Urm', 'sh', '-ec', script, 'sh', ...child],
      { env: { ...env, PATH: process.env['PATH'] ?? '', HOME: dir, CORDON_EVIDENCE_DIR: mount } },
      (error, stdout, stderr) => (stdout === '' ? reject(new Error(stderr, { cause: error })) : resolve(stdout)),
    );
  });
}
