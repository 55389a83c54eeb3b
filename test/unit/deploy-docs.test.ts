import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { configKeys } from '../../src/config-keys.ts';
import { searchAttributes } from '../../src/contract/names.ts';
import { repoRoot, temporalBin } from '../../src/lab/tools.ts';
import { loadTemporalSettings } from '../../src/temporal.ts';
import { cordon } from '../helpers/cli.ts';
import { composeProject, composeVariables } from '../helpers/compose.ts';
import { contextFilter, parseCopy, parseDockerfile } from '../helpers/dockerfile.ts';

// The Dockerfiles and docs/how-to/deploy.md: what they name is there.

const read = (path: string): string => readFileSync(join(repoRoot, path), 'utf8');
const document = read('docs/how-to/deploy.md');
const blocks = (language: string): string[] =>
  [...document.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(([, text = '']) => text);
/** Commands of the shell blocks and of the text, one a line, without what follows `#`, `>` or `=` in front. */
const commands = [
  ...blocks('sh')
    .join('\n')
    .replaceAll(/\s*\\\n\s*/g, ' ')
    .split('\n'),
  ...[...document.matchAll(/`([^`\n]+)`/g)].map(([, text = '']) => text),
]
  .map((line) => line.replace(/\s+[#>].*$/, '').trim())
  .filter((line) => line !== '');
const beginning = (word: string): string[] => commands.filter((line) => line.startsWith(`${word} `));
const { services } = composeProject({ STIGMEM_URL: 'http://stigmem:8765' });
const { version } = z.object({ version: z.string() }).parse(JSON.parse(read('package.json')));

describe.each(['Dockerfile', 'deploy/stigmem/Dockerfile'])('%s', (file) => {
  const stages = parseDockerfile(read(file));
  const visible = contextFilter(read('.dockerignore'));

  test('starts from an exact version, the same in each stage', () => {
    expect(new Set(stages.map(({ from }) => from)).size).toBe(1);
    expect(stages[0]?.from).toMatch(/^(node|python):\d+\.\d+\.\d+-(bookworm-slim|slim-bookworm)$/);
  });

  test('copies only what is there, and let into the build', () => {
    const names = stages.map(({ name }) => name);
    const copies = stages.flatMap(({ instructions }) => instructions).filter(({ word }) => word === 'COPY');
    for (const { from, sources } of copies.map(({ rest }) => parseCopy(rest))) {
      if (from === undefined)
        for (const source of sources) expect([source, existsSync(join(repoRoot, source)) && visible(source)]).toEqual([source, true]);
      else expect(names).toContain(from);
    }
    for (const secret of ['.env', 'secrets/postgres_password', 'node_modules/zod', 'evidence/x', '.git/config', 'src/x.log'])
      expect(visible(secret)).toBe(false);
  });

  test('ends as a user that is not root, with a health check and a volume that the compose file mounts', () => {
    const last = stages.at(-1)?.instructions ?? [];
    const of = (word: string): string => last.findLast((each) => each.word === word)?.rest ?? '';
    const service = services[file === 'Dockerfile' ? 'worker' : 'stigmem'];
    expect(of('USER')).toMatch(/^[1-9]\d*:[1-9]\d*$/);
    expect(service?.user).toBe(of('USER'));
    expect(service?.volumes.map((volume) => volume.split(':')[1])).toContain(of('VOLUME'));
    expect(of('HEALTHCHECK')).toContain('CMD [');
    if (file !== 'Dockerfile') return;
    const health = z.array(z.string()).parse(JSON.parse(/\[.*$/.exec(of('HEALTHCHECK'))?.[0] ?? ''));
    expect(health).toEqual(service?.healthcheck?.test.slice(1));
    for (const { rest } of last.filter(({ word }) => word === 'ENV')) {
      const [name = ''] = rest.split('=');
      expect(['NODE_ENV', ...configKeys.map((key) => key.name)]).toContain(name);
      if (name !== 'NODE_ENV') expect(service?.environment).toHaveProperty(name, rest.slice(name.length + 1));
    }
  });
});

test.each(['secrets', 'temporal-namespace', 'temporal-schema', 'temporal-server'])('deploy/%s.sh is good shell', (name) => {
  execFileSync('sh', ['-n', join(repoRoot, 'deploy', `${name}.sh`)]);
  expect(read(`deploy/${name}.sh`)).toContain('\nset -eu\n');
});

describe('docs/how-to/deploy.md', () => {
  test('every command and option of cordon', async () => {
    const own = [
      ...beginning('cordon'),
      ...beginning('npx cordon').map((line) => line.slice(4)),
      ...['worker', 'chat'].flatMap((service) =>
        beginning(`docker compose exec ${service}`).map((line) => line.slice(21 + service.length)),
      ),
    ];
    expect(own.length).toBeGreaterThan(8);
    for (const line of own) {
      const [, name = '', ...rest] = line.split(/\s+/);
      const help = await cordon([name, '--help']);
      expect(help.code, line).toBe(0);
      for (const flag of rest.filter((word) => word.startsWith('--'))) expect(help.out, line).toContain(flag);
    }
  });

  test('every command and option of temporal', () => {
    const lines = beginning('temporal');
    expect(lines.length).toBeGreaterThan(3);
    for (const line of lines) {
      const parts = line.split(/\s+/);
      const verb = parts.slice(
        1,
        parts.findIndex((word) => word.startsWith('-')),
      );
      const help = [[...verb, '--help'], ['options']].map((args) => execFileSync(temporalBin(), args, { encoding: 'utf8' })).join('\n');
      for (const flag of parts.filter((word) => word.startsWith('--'))) expect(help, line).toContain(flag);
      if (line.includes('search-attribute')) for (const name of Object.values(searchAttributes)) expect(line).toContain(name);
    }
  });

  test('every service, profile, image and file of docker', () => {
    const lines = [...beginning('docker compose'), ...beginning('docker run'), ...beginning('docker build')];
    expect(lines.length).toBeGreaterThan(8);
    const profiles = Object.values(services).flatMap((service) => service.profiles);
    const flags = new Set(
      '--abort-on-container-exit --build --cap-drop --detach --entrypoint --env --file --init --name --no-deps --no-tty --profile --read-only --restart --rm --scale --security-opt --stop-timeout --tag --tmpfs --volume --wait'.split(
        ' ',
      ),
    );
    for (const line of lines) {
      const words = line.split(/\s+/);
      const own = words.slice(0, words.findIndex((word) => word === 'postgresql' || word === 'tar') + 1 || undefined);
      for (const flag of own.filter((word) => word.startsWith('--'))) expect([...flags], line).toContain(flag);
      for (const [, profile = ''] of line.matchAll(/--profile (\S+)/g)) expect(profiles).toContain(profile);
      for (const [, file = ''] of line.matchAll(/--file (\S+\.yml)/g)) expect(existsSync(join(repoRoot, file)), line).toBe(true);
      const named = /docker compose (?:exec|build|run(?: --\S+( node)?)*) ([a-z][\w-]*)/.exec(line)?.[2];
      if (named !== undefined) expect(Object.keys(services), line).toContain(named);
      for (const [, variable = ''] of line.matchAll(/--env (\w+)=/g))
        expect([...configKeys.map(({ name }) => name), 'TEMPORAL_ADDRESS', 'TEMPORAL_NAMESPACE']).toContain(variable);
      for (const [image] of line.matchAll(/\bcordon:\S+/g)) expect(image).toBe(`cordon:${version}`);
      for (const [file] of line.matchAll(/\bbin\/\S+/g)) expect(existsSync(join(repoRoot, file)), line).toBe(true);
    }
  });

  test('every variable is one of ours, of the compose file or of the temporal command', () => {
    const names = new Set([...document.matchAll(/\b((?:CORDON|STIGMEM|TEMPORAL|CLOUD)_[A-Z_]+)\b/g)].map(([, name = '']) => name));
    const ofTemporal = [
      'ADDRESS',
      'NAMESPACE',
      'CONFIG_FILE',
      'PROFILE',
      'TLS',
      'TLS_SERVER_NAME',
      'TLS_SERVER_CA_CERT_PATH',
      'TLS_CLIENT_CERT_PATH',
      'TLS_CLIENT_KEY_PATH',
    ];
    const known = [
      ...configKeys.map(({ name }) => name),
      ...composeVariables().keys(),
      ...composeVariables(read('deploy/cloud.yml')).keys(),
      ...ofTemporal.map((name) => `TEMPORAL_${name}`),
    ];
    expect([...names].filter((name) => !known.includes(name))).toEqual([]);
  });

  test('every port is one the compose file publishes', () => {
    const published = Object.values(services).flatMap(({ ports }) => ports.map((port) => port.replace(/:\d+$/, '')));
    const named = [...document.matchAll(/`(127\.0\.0\.1:\d+)`/g)].map(([, port = '']) => port);
    expect(named.length).toBeGreaterThan(4);
    expect(named.filter((port) => !published.includes(port))).toEqual([]);
  });

  test('every file of the repository', () => {
    const paths = [...document.matchAll(/`((?:deploy|bin|secrets)\/[\w./-]*|docker-compose\.yml|\.env\.example)`/g)].map(
      ([, path = '']) => path,
    );
    const ofCloud = ['temporal_profile.toml', 'temporal_client.pem', 'temporal_client.key'].map((name) => `secrets/${name}`);
    const given = ['secrets/', 'secrets/webhook_url', 'secrets/stigmem_agent_key', ...ofCloud];
    const overlays = [...document.matchAll(/COMPOSE_FILE=([\w./:-]+)/g)].flatMap(([, files = '']) => files.split(':'));
    expect(new Set(overlays)).toEqual(
      new Set(['docker-compose.yml', 'deploy/webhook.yml', 'deploy/agent-key.yml', 'deploy/cloud.yml', 'deploy/mtls.yml']),
    );
    expect(overlays.filter((path) => !existsSync(join(repoRoot, path)))).toEqual([]);
    // What the profiles name is where the overlay puts it.
    const named = [...(blocks('toml').at(-1) ?? '').matchAll(/"\/run\/secrets\/([^"]+)"/g)].map(([, file = '']) => file);
    expect(named).toEqual(['temporal_client.pem', 'temporal_client.key']);
    for (const file of named) expect(read('deploy/mtls.yml')).toContain(`${file}: {`);
    expect(paths.filter((path) => !given.includes(path) && !existsSync(join(repoRoot, path)))).toEqual([]);
  });

  test('each profile file is one that cordon reads', () => {
    const dir = join(repoRoot, '.test', 'deploy-docs');
    mkdirSync(dir, { recursive: true });
    const pem = join(dir, 'some.pem');
    writeFileSync(pem, 'a certificate');
    expect(blocks('toml')).toHaveLength(3);
    for (const [at, text] of blocks('toml').entries()) {
      const file = join(dir, `${at}.toml`);
      writeFileSync(file, text.replaceAll(/"\/run\/secrets\/[^"]*"/g, JSON.stringify(pem)));
      const profile = /\[profile\.(\w+)\]/.exec(text)?.[1] ?? '';
      const { address, namespace, connectionOptions } = loadTemporalSettings({ TEMPORAL_CONFIG_FILE: file, TEMPORAL_PROFILE: profile });
      expect(text).toContain(`address = "${address}"`);
      expect(text).toContain(`namespace = "${namespace}"`);
      expect(connectionOptions.apiKey).toBe(text.includes('api_key') ? '…' : undefined);
      const bytes = new TextEncoder().encode('a certificate');
      expect(connectionOptions.tls).toEqual({
        ...(text.includes('server_name') ? { serverNameOverride: 'temporal.internal' } : {}),
        ...(text.includes('server_ca_cert_path') ? { serverRootCACertificate: bytes } : {}),
        ...(text.includes('client_cert_path') ? { clientCertPair: { crt: bytes, key: bytes } } : {}),
      });
    }
  });
});
