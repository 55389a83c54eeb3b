import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { configKeys } from '../../src/config-keys.ts';
import { ConfigError, parseCliConfig, parseHostConfig, parseNodeConfig, parseWorkerConfig, type Env } from '../../src/config.ts';

const canary = 'sk-canary-7f3a91';
const node = { STIGMEM_URL: 'http://127.0.0.1:8801/', STIGMEM_ADMIN_KEY: canary };

function issuesOf(parse: (env: Env) => unknown, env: Env) {
  try {
    parse(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.issues;
    throw error;
  }
  return [];
}

describe('config', () => {
  it('gives the worker typed values and defaults', () => {
    expect(parseWorkerConfig({ ...node, CORDON_PEER_ALLOW: 'loopback, 10.0.0.0/8,peer.example' })).toMatchObject({
      node: { url: 'http://127.0.0.1:8801', adminKey: canary },
      taskQueue: 'stigmem-runbooks',
      hostTaskQueue: 'stigmem-host',
      evidenceDir: './evidence',
      peerAllow: ['loopback', '10.0.0.0/8', 'peer.example'],
      concurrency: 4,
      writesPerHour: 1_000,
      writeHeadroom: 0.1,
      agentKey: undefined,
    });
  });

  it('lets the CLI run without a node, a key or a readable key file', () => {
    const env = { STIGMEM_ADMIN_KEY_FILE: '/nowhere/key', CORDON_CONCURRENCY: 'many' };
    expect(parseCliConfig(env).taskQueue).toBe('stigmem-runbooks');
    expect(parseNodeConfig({})).toBeUndefined();
    expect(parseNodeConfig({ STIGMEM_URL: 'http://127.0.0.1:1' })).toBeUndefined();
  });

  it('treats an empty variable as not set', () => {
    expect(parseCliConfig({ CORDON_TASK_QUEUE: '', CORDON_EVIDENCE_DIR: '' }).evidenceDir).toBe('./evidence');
  });

  it.each([
    ['CORDON_CONCURRENCY', '0', 'a whole number from 1 to 64', '"0"'],
    ['CORDON_CONCURRENCY', '4.5', 'a whole number from 1 to 64', '"4.5"'],
    ['CORDON_WRITE_HEADROOM', '10%', 'a share from 0 to 0.9', '"10%"'],
    ['CORDON_LOG_LEVEL', 'loud', 'fatal, error, warn', '"loud"'],
    ['CORDON_PEER_ALLOW', 'http://x', 'a comma list', '"http://x"'],
    ['CORDON_TASK_QUEUE', 'a b', 'a task queue name', '"a b"'],
    ['STIGMEM_URL', 'ftp://x', 'an http or https URL', '"ftp://x"'],
    ['STIGMEM_URL', `http://root:${canary}@h/?k=${canary}`, 'an http or https URL', '"http://…@h/?…"'],
    ['STIGMEM_ADMIN_KEY', `${canary} with spaces`, 'a key', 'not shown'],
    ['CORDON_WEBHOOK_URL', `hooks/${canary}`, 'an http or https URL', 'not shown'],
  ])('names %s=%s, what was expected and what came', (variable, value, expected, got) => {
    const issues = issuesOf(parseWorkerConfig, { ...node, [variable]: value });
    expect(issues).toHaveLength(1);
    expect(issues[0]?.variable).toBe(variable);
    expect(issues[0]?.expected).toContain(expected);
    expect(issues[0]?.got).toContain(got);
    expect(JSON.stringify(issues)).not.toContain(canary);
  });

  it('refuses an unknown variable under our prefix, whoever reads', () => {
    const env = { CORDON_TASKQUEUE: 'x', OTHER_THING: 'y', STIGMEM_UNRELATED: 'z' };
    expect(issuesOf(parseCliConfig, env).map((i) => i.variable)).toEqual(['CORDON_TASKQUEUE']);
    expect(issuesOf(parseWorkerConfig, { ...node, ...env }).map((i) => i.variable)).toEqual(['CORDON_TASKQUEUE']);
  });

  it('says what the worker misses', () => {
    expect(issuesOf(parseWorkerConfig, {})[0]?.variable).toBe('STIGMEM_URL');
    const second = issuesOf(parseWorkerConfig, { STIGMEM_URL: node.STIGMEM_URL });
    expect(second[0]?.variable).toBe('STIGMEM_ADMIN_KEY or STIGMEM_ADMIN_KEY_FILE');
  });

  it('reads a key from a file, and refuses two sources or a file that is no key', () => {
    const folder = mkdtempSync(join(tmpdir(), 'cordon-config-'));
    const file = join(folder, 'key');
    writeFileSync(file, `${canary}\n`);
    const url = { STIGMEM_URL: node.STIGMEM_URL };
    expect(parseNodeConfig({ ...url, STIGMEM_ADMIN_KEY_FILE: file })?.adminKey).toBe(canary);
    expect(issuesOf(parseNodeConfig, { ...node, STIGMEM_ADMIN_KEY_FILE: file })[0]?.got).toBe('both');
    expect(issuesOf(parseNodeConfig, { ...url, STIGMEM_ADMIN_KEY_FILE: `${file}.no` })[0]?.got).toContain('ENOENT');
    writeFileSync(file, `${canary}\nand more\n`);
    const issues = issuesOf(parseNodeConfig, { ...url, STIGMEM_ADMIN_KEY_FILE: file });
    expect(issues[0]?.expected).toContain('one key');
    expect(JSON.stringify(issues)).not.toContain(canary);
  });

  it('reads the webhook from a file, which must hold a URL', () => {
    const file = join(mkdtempSync(join(tmpdir(), 'cordon-config-')), 'webhook');
    const hook = `https://hooks.example/${canary}`;
    writeFileSync(file, `${hook}\n`);
    const env = { ...node, CORDON_WEBHOOK_URL_FILE: file };
    expect(parseWorkerConfig(env).webhookUrl).toBe(hook);
    expect(issuesOf(parseWorkerConfig, { ...env, CORDON_WEBHOOK_URL: hook })[0]?.got).toBe('both');
    writeFileSync(file, canary);
    const issues = issuesOf(parseWorkerConfig, env);
    expect(issues).toMatchObject([{ variable: 'CORDON_WEBHOOK_URL_FILE', expected: 'a file with one http or https URL and nothing else' }]);
    expect(JSON.stringify(issues)).not.toContain(canary);
  });

  describe('of the host worker', () => {
    const dsn = `postgresql://cordon:${canary}@127.0.0.1:5432/stigmem`;

    it('is what the node reads itself, with an absolute path, and none of the keys', () => {
      const env = {
        STIGMEM_DB_PATH: 'stigmem.db',
        STIGMEM_TRUST_MODE: 'strict',
        STIGMEM_QUARANTINE_GARDEN_ID: 'g',
        CORDON_SNAPSHOT_DIR: 'copies',
      };
      const { database, trust, snapshot } = parseHostConfig({ ...env, CORDON_AGENT_KEY: canary, PATH: '/bin' });
      expect(database).toMatchObject({ kind: 'sqlite', path: expect.stringMatching(/\/stigmem\.db$/) });
      expect(trust).toEqual({ mode: 'strict', quarantineGarden: 'g' });
      expect(isAbsolute(snapshot?.dir ?? '')).toBe(true);
      expect(snapshot?.env).toMatchObject({ PATH: '/bin', STIGMEM_DB_PATH: expect.stringMatching(/^\/.*stigmem\.db$/) });
      expect(JSON.stringify(snapshot)).not.toContain(canary);
      expect(parseHostConfig({ STIGMEM_STORAGE_BACKEND: 'postgres', STIGMEM_PG_DSN: dsn }).database).toEqual({
        kind: 'postgres',
        dsn,
        schema: 'public',
      });
    });

    it.each([
      [{}, 'STIGMEM_DB_PATH', 'a value: the host worker needs it', 'nothing'],
      [{ STIGMEM_STORAGE_BACKEND: 'postgres' }, 'STIGMEM_PG_DSN or STIGMEM_PG_DSN_FILE', 'a value', 'nothing'],
      [{ STIGMEM_STORAGE_BACKEND: 'libsql' }, 'STIGMEM_STORAGE_BACKEND', 'sqlite or postgres', '"libsql"'],
      [{ STIGMEM_STORAGE_BACKEND: 'postgres', STIGMEM_PG_DSN: `host=x password=${canary}` }, 'STIGMEM_PG_DSN', 'a URL', 'not shown'],
      [{ STIGMEM_DB_PATH: 'x', STIGMEM_PG_SCHEMA: 'a;b' }, 'STIGMEM_PG_SCHEMA', 'a lower-case name', '"a;b"'],
    ])('names what is wrong in %o', (env, variable, expected, got) => {
      const issues = issuesOf(parseHostConfig, env);
      expect(issues).toMatchObject([{ variable, expected: expect.stringContaining(expected), got: expect.stringContaining(got) }]);
      expect(JSON.stringify(issues)).not.toContain(canary);
    });

    it('is no business of a worker beside the node', () => {
      expect(issuesOf(parseWorkerConfig, { ...node, STIGMEM_STORAGE_BACKEND: 'libsql', STIGMEM_PG_DSN: 'host=x' })).toEqual([]);
    });
  });

  it('is what docs/reference/config.md shows', () => {
    const rows = configKeys.map((k) => `| \`${k.name}\` | ${k.default === '' ? '' : `\`${k.default}\``} | ${k.description} |`);
    const doc = readFileSync(new URL('../../docs/reference/config.md', import.meta.url), 'utf8');
    const inDoc = doc.split('\n').filter((line) => /^\| `(STIGMEM|CORDON)_/.test(line));
    expect(inDoc).toEqual(rows);
  });
});
