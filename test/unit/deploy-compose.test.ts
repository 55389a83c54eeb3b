import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { People } from '../../src/chat/people.ts';
import { configKeys, secretVariables } from '../../src/config-keys.ts';
import { PolicyFile } from '../../src/contract/policy.ts';
import { searchAttributes } from '../../src/contract/names.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { Contacts } from '../../src/notify/contacts.ts';
import { cordon } from '../helpers/cli.ts';
import { composeProject, composeText, composeVariables, startOrder, type ComposeService } from '../helpers/compose.ts';

// docker-compose.yml against the Compose specification, against our own rules, and against what it names.

const read = (path: string): string => readFileSync(join(repoRoot, path), 'utf8');
const project = composeProject({ STIGMEM_URL: 'http://stigmem:8765' });
const { services } = project;
const all = Object.entries(services);
const isJob = ({ restart = '' }: ComposeService): boolean => restart.startsWith('on-failure');
const daemons = all.filter(([, service]) => !isJob(service));
const ours = all.filter(([, { image }]) => image.startsWith('cordon:'));

/** Variables that the images of others take, as their own entry points and configuration templates name them. */
const known: Readonly<Record<string, readonly string[]>> = {
  postgres: ['POSTGRES_USER', 'POSTGRES_PASSWORD_FILE', 'POSTGRES_INITDB_ARGS'],
  'temporalio/server': [
    'DB',
    'DB_PORT',
    'POSTGRES_SEEDS',
    'POSTGRES_USER',
    'DBNAME',
    'VISIBILITY_DBNAME',
    'NUM_HISTORY_SHARDS',
    'DYNAMIC_CONFIG_FILE_PATH',
    'TEMPORAL_ALLOW_NO_AUTH',
    'LOG_LEVEL',
  ],
  'temporalio/admin-tools': ['SQL_HOST', 'SQL_PORT', 'SQL_USER', 'TEMPORAL_ADDRESS', 'TEMPORAL_NAMESPACE'],
  'temporalio/ui': [
    'TEMPORAL_ADDRESS',
    'TEMPORAL_DEFAULT_NAMESPACE',
    'TEMPORAL_UI_PORT',
    'TEMPORAL_DISABLE_NEWS_FETCH',
    'TEMPORAL_WORKFLOW_TERMINATE_DISABLED',
    'TEMPORAL_WORKFLOW_CANCEL_DISABLED',
    'TEMPORAL_BATCH_ACTIONS_DISABLED',
  ],
  'cordon-stigmem': [
    'STIGMEM_DB_PATH',
    'STIGMEM_HOST',
    'STIGMEM_PORT',
    'STIGMEM_NODE_URL',
    'STIGMEM_ENTITY_URI',
    'STIGMEM_FEDERATION_ENABLED',
    'STIGMEM_FEDERATION_INSECURE',
    'STIGMEM_LOCAL_DEV_ALLOW_INSECURE_NON_LOOPBACK',
  ],
  cordon: [...configKeys.map(({ name }) => name), 'TEMPORAL_ADDRESS', 'TEMPORAL_NAMESPACE'],
};

describe('docker-compose.yml and the Compose specification', () => {
  // dclint carries the specification's own JSON schema. Off in .dclintrc.json are only rules about the order and
  // quoting of lines, about a file that is not a project of its own, and the one against naming the image that is built.
  const dclint = join(repoRoot, 'node_modules', 'dclint', 'bin', 'dclint.cjs');
  const Results = z.array(z.object({ messages: z.array(z.object({ line: z.number(), rule: z.string(), message: z.string() })) }));
  const complaints = (path: string): string[] => {
    const args = [dclint, '--formatter', 'json', '--config', join(repoRoot, '.dclintrc.json'), path];
    const { stdout } = spawnSync(process.execPath, args, { cwd: repoRoot, encoding: 'utf8' });
    return Results.parse(JSON.parse(stdout)).flatMap(({ messages }) =>
      messages.map(({ line, rule, message }) => `${line} ${rule}: ${message}`),
    );
  };

  test.each(['docker-compose.yml', 'deploy/webhook.yml', 'deploy/agent-key.yml', 'deploy/cloud.yml', 'deploy/mtls.yml'])(
    '%s is what the specification allows',
    (file) => {
      expect(complaints(join(repoRoot, file))).toEqual([]);
    },
  );

  test.each([
    ['an unknown field', 'restart: unless-stopped', 'restrat: unless-stopped'],
    ['a wrong type', 'init: true', 'init: [yes]'],
    ['a condition that is none', 'condition: service_healthy', 'condition: service_well'],
    ['a port on every address', "'127.0.0.1:8080:8080'", "'8080:8080'"],
    ['an image without a version', 'temporalio/ui:2.55.0', 'temporalio/ui'],
  ])('the check sees %s', (what, good, bad) => {
    const dir = join(repoRoot, '.test', 'deploy-compose');
    mkdirSync(dir, { recursive: true });
    const file = join(dir, `docker-compose.${what.replaceAll(' ', '-')}.yml`);
    expect(composeText).toContain(good);
    writeFileSync(file, composeText.replace(good, bad));
    expect(complaints(file)).not.toEqual([]);
  });
});

describe('each service', () => {
  test.each(all)('%s: no root, no capabilities, read-only, an exact version', (_name, service) => {
    expect(service).toMatchObject({
      read_only: true,
      cap_drop: ['ALL'],
      security_opt: ['no-new-privileges:true'],
      user: expect.stringMatching(/^[1-9]\d*:[1-9]\d*$/),
      image: expect.stringMatching(/^[\w/-]+:\d+\.\d+(\.\d+)?[\w.-]*$/),
      logging: { driver: 'local' },
    });
  });

  test.each(daemons)('%s is started again, and says whether it is well', (_name, { restart, healthcheck }) => {
    expect(restart).toBe('unless-stopped');
    expect(healthcheck?.test[0]).toBe('CMD');
  });

  test('what is published stays on this machine, and no port twice', () => {
    const published = all.flatMap(([, { ports }]) => ports);
    expect(published.length).toBeGreaterThan(0);
    for (const port of published) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/);
    expect(new Set(published.map((port) => port.split(':')[1])).size).toBe(published.length);
  });

  test('depends on services that exist, in a way they can fulfil, without a circle', () => {
    for (const [name, { depends_on: needs }] of all) {
      for (const [needed, { condition, required }] of Object.entries(needs)) {
        const other = services[needed];
        expect(other, `${name} needs ${needed}`).toBeDefined();
        if (other === undefined) continue;
        if (condition === 'service_healthy') expect(other.healthcheck, needed).toBeDefined();
        expect(isJob(other), `${name} waits for ${needed}`).toBe(condition === 'service_completed_successfully');
        // A service behind a profile is not there without it.
        if (required) for (const profile of other.profiles) expect(services[name]?.profiles).toContain(profile);
      }
    }
    expect(startOrder(services).toSorted()).toEqual(Object.keys(services).toSorted());
  });

  test('uses networks, volumes and secrets that are defined, and none is defined in vain', () => {
    const volumes = all.flatMap(([, service]) => service.volumes.map((volume) => volume.split(':')[0] ?? ''));
    expect([...new Set(volumes.filter((name) => !name.startsWith('.')))].toSorted()).toEqual(Object.keys(project.volumes).toSorted());
    expect([...new Set(all.flatMap(([, { networks }]) => networks))].toSorted()).toEqual(Object.keys(project.networks).toSorted());
    expect([...new Set(all.flatMap(([, { secrets }]) => secrets))].toSorted()).toEqual(Object.keys(project.secrets).toSorted());
  });
});

describe('what it names exists', () => {
  test.each(all)('%s: every variable', (name, { image, environment, entrypoint = [] }) => {
    // A script of ours in front of the image takes variables of its own.
    const script = entrypoint.find((word) => word.startsWith('/deploy/'));
    const taken = script === undefined ? [] : [...read(script.slice(1)).matchAll(/\$\{?([A-Z][A-Z_]+)/g)].map(([, variable]) => variable);
    const key =
      name === 'stigmem-key'
        ? [...read('deploy/stigmem/key.py').matchAll(/environ\[["'](\w+)["']\]/g)].map(([, variable]) => variable)
        : [];
    const allowed = [...(known[image.split(':')[0] ?? ''] ?? []), ...taken, ...key];
    expect(Object.keys(environment).filter((variable) => !allowed.includes(variable))).toEqual([]);
  });

  test('every secret is read from its file, and none stands in the environment', () => {
    for (const [name, { environment, secrets }] of all) {
      const files = Object.values(environment).flatMap((value) =>
        value.startsWith('/run/secrets/') ? [value.slice('/run/secrets/'.length)] : [],
      );
      expect(files.toSorted(), name).toEqual(secrets.toSorted());
      for (const variable of Object.keys(environment)) {
        expect(secretVariables.has(variable), `${name} ${variable}`).toBe(false);
        if (!variable.endsWith('_FILE')) expect(variable).not.toMatch(/PASSWORD|SECRET|TOKEN|KEY$/);
      }
    }
    for (const [name, { file }] of Object.entries(project.secrets)) {
      expect(file).toBe(`./secrets/${name}`);
      expect(read('deploy/secrets.sh')).toContain(name);
    }
  });

  test('every file and folder', () => {
    for (const [name, { volumes, environment, entrypoint = [], command = [], build }] of all) {
      const mounts = volumes.map((volume) => volume.split(':'));
      for (const [from = '', to = '', how] of mounts.filter(([source]) => source?.startsWith('.'))) {
        expect(existsSync(join(repoRoot, from)), `${name}: ${from}`).toBe(true);
        expect(how).toBe('ro');
        const inside = [...Object.values(environment), ...entrypoint, ...command].filter((value) => value.startsWith(`${to}/`));
        for (const path of inside) expect(existsSync(join(repoRoot, from, path.slice(to.length))), `${name}: ${path}`).toBe(true);
      }
      if (build !== undefined) expect(existsSync(join(repoRoot, build.context, build.dockerfile))).toBe(true);
    }
  });

  test('the files of deploy/config are good', () => {
    expect(PolicyFile.safeParse(parse(read('deploy/config/policy.yaml'))).error).toBeUndefined();
    expect(Contacts.safeParse(parse(read('deploy/config/contacts.yaml'))).error).toBeUndefined();
    expect(People.safeParse(parse(read('deploy/config/people.yaml')) ?? {}).error).toBeUndefined();
  });

  test('every command of cordon', async () => {
    const help = (await cordon(['--help'])).out;
    for (const [name, { command = [] }] of ours) expect(help, name).toMatch(new RegExp(`^ {2}${command[0]} `, 'm'));
  });

  test('every port: published, listened on, asked for health and called by name are the same', () => {
    for (const [name, { ports, environment, healthcheck }] of all) {
      const listens = Object.entries(environment).flatMap(([variable, value]) =>
        /(_LISTEN|_PORT|^PORT)$/.test(variable) ? [Number(value.split(':').at(-1))] : [],
      );
      const own = name === 'temporal' ? [7233] : name === 'postgresql' ? [5432] : listens;
      for (const port of ports) expect(own, `${name} ${port}`).toContain(Number(port.split(':')[2]));
      const asked = healthcheck?.test.flatMap((word) => [...word.matchAll(/(?:^|:)(\d{4,5})\b/g)].map(([, port]) => Number(port))) ?? [];
      for (const port of asked) expect(own, `${name} health`).toContain(port);
      for (const value of Object.values(environment)) {
        const [, host = '', port = ''] = /^(?:http:\/\/)?([a-z][a-z-]*):(\d+)$/.exec(value) ?? [];
        if (host !== '') expect({ temporal: '7233', stigmem: '8765' }[host], `${name}: ${value}`).toBe(port);
      }
      if (environment['SQL_HOST'] !== undefined) expect(environment).toMatchObject({ SQL_HOST: 'postgresql', SQL_PORT: '5432' });
    }
  });

  test('the search attributes are those the incidents set', () => {
    const wanted = services['temporal-namespace']?.environment['SEARCH_ATTRIBUTES'];
    expect(wanted?.split(' ')).toEqual(Object.values(searchAttributes));
  });

  test('.env.example has every variable, with the default of the compose file', () => {
    const example = new Map(
      [...read('.env.example').matchAll(/^(# )?([A-Z_]+)=(.*)$/gm)].map(([, off, name = '', value = '']) => [name, { off, value }]),
    );
    const variables = composeVariables();
    expect([...example.keys()].toSorted()).toEqual([...variables.keys()].toSorted());
    const defaults = new Map(configKeys.map((key) => [key.name, key.default]));
    for (const [name, { off, value }] of example) {
      const inside = variables.get(name);
      if (off !== undefined) expect(value, name).toBe(inside === '' ? (defaults.get(name) ?? '') : inside);
    }
    expect(() => composeProject({})).toThrow('STIGMEM_URL: set it in .env');
  });

  test('the image has the version of the package', () => {
    const { version } = JSON.parse(read('package.json'));
    for (const [name, { image }] of ours) expect(image, name).toBe(`cordon:${version}`);
  });

  test.each(['deploy/webhook.yml', 'deploy/agent-key.yml', 'deploy/cloud.yml', 'deploy/mtls.yml'])(
    '%s adds to services that are there what they can read',
    (file) => {
      const Added = z.strictObject({ environment: z.record(z.string(), z.string()).default({}), secrets: z.array(z.string()) });
      const Extra = z.looseObject({
        services: z.record(z.string(), Added),
        secrets: z.record(z.string(), z.strictObject({ file: z.string() })),
      });
      const extra = Extra.parse(parse(read(file), { merge: true }));
      for (const [name, { environment, secrets }] of Object.entries(extra.services)) {
        expect(ours.map(([own]) => own)).toContain(name);
        for (const variable of Object.keys(environment))
          expect([...(known['cordon'] ?? []), 'TEMPORAL_CONFIG_FILE', 'TEMPORAL_PROFILE']).toContain(variable);
        const files = Object.values(environment).filter((value) => value.startsWith('/run/secrets/'));
        // What a profile file names stands there, not in a variable.
        if (file !== 'deploy/mtls.yml') expect(files).toEqual(secrets.map((secret) => `/run/secrets/${secret}`));
        for (const secret of secrets) expect(extra.secrets[secret]?.file).toContain('./secrets/');
      }
      for (const name of composeVariables(read(file)).keys()) expect(read('docs/how-to/deploy.md')).toContain(`\`${name}\``);
    },
  );
});
