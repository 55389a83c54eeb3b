import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { exitCodes } from '../../src/cli/exit.ts';
import { clean, cut, shellWord, table } from '../../src/cli/text.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import { cordon } from '../helpers/cli.ts';

const canary = 'sk-canary-51ab';
const doc = readFileSync(new URL('../../docs/reference/cli.md', import.meta.url), 'utf8');

describe('the program', () => {
  it('helps an operator: examples first, every command grouped, exit codes last', async () => {
    const run = await cordon(['--help']);
    expect(run.code).toBe(0);
    expect(run.out.indexOf('An incident now:')).toBeLessThan(run.out.indexOf('Usage:'));
    for (const group of ['Start and watch:', 'Decide:', 'When it is stuck:', 'Prove:', 'Exit codes:']) {
      expect(run.out).toContain(group);
    }
    expect(Math.max(...run.out.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  it.each([
    'start',
    'list',
    'show',
    'plan',
    'approve',
    'reject',
    'amend',
    'note',
    'retry',
    'done',
    'skip',
    'close',
    'verify',
    'doctor',
    'worker',
  ])('%s has help, --json, and a section in the reference', async (name) => {
    const run = await cordon([name, '--help']);
    expect(run.code).toBe(0);
    expect(run.out).toContain('--json');
    const flags = [...run.out.matchAll(/^ +(--[a-z-]+)/gm)].map((match) => match[1] ?? '');
    const section = doc.split('\n## ').find((part) => part.split('\n')[0]?.includes(`\`${name}\``)) ?? '';
    expect(section).not.toBe('');
    for (const flag of flags.filter((f) => f !== '--json' && f !== '--help')) expect(section).toContain(flag);
  });

  it('says which version it is', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
    expect(await cordon(['--version'])).toMatchObject({ code: 0, out: version });
  });

  it('has the same exit codes in code, help and reference', async () => {
    const help = (await cordon(['--help'])).out;
    for (const { code, meaning } of Object.values(exitCodes)) {
      expect(help).toContain(`${code}  ${meaning}`);
      expect(doc).toContain(`| ${code} | ${meaning} |`);
    }
  });

  it.each([['frobnicate'], ['show'], ['show', 'a', 'b'], ['list', '--nope']])('exits 2 for wrong use: %s %s', async (...args) => {
    const run = await cordon(args.filter((arg) => typeof arg === 'string'));
    expect(run.code).toBe(2);
    expect(run.err).toContain('cordon --help');
  });

  it('exits 2 for a host worker that is not told where the database is, before anything connects', async () => {
    const run = await cordon(['host-worker']);
    expect(run.code).toBe(2);
    expect(run.err).toContain('STIGMEM_DB_PATH: expected a value: the host worker needs it, got nothing');
  });

  it('exits 4 within 5 s when Temporal does not answer, and says so as JSON too', async () => {
    const run = await cordon(['list', '--json']);
    expect(run.code).toBe(4);
    expect(run.ms).toBeLessThan(5_000);
    expect(run.json()).toMatchObject({ exitCode: 4, error: { kind: 'unreachable' } });
  });

  it('exits 2 for bad configuration before it connects', async () => {
    const run = await cordon(['list'], { CORDON_TASKQUEUE: 'x' });
    expect(run.code).toBe(2);
    expect(run.err).toContain('CORDON_TASKQUEUE');
  });

  it('does not start a worker without a node, or without Temporal', async () => {
    const none = await cordon(['worker']);
    expect([none.code, none.err]).toEqual([2, expect.stringContaining('STIGMEM_URL')]);
    const env = { STIGMEM_URL: 'http://127.0.0.1:1', STIGMEM_ADMIN_KEY: canary };
    expect((await cordon(['worker'], env)).code).toBe(4);
  });

  it('works for approve with a broken or missing node configuration', async () => {
    const env = { STIGMEM_URL: 'nonsense', STIGMEM_ADMIN_KEY_FILE: '/nowhere' };
    const args = ['approve', 'x', '--gate', 'retract', '--digest', `sha256:${'a'.repeat(12)}`, '--by', 'a'];
    expect((await cordon(args, env)).code).toBe(4);
  });

  it('diagnoses without Temporal, and shows no key', async () => {
    const env = { STIGMEM_URL: 'http://127.0.0.1:1', STIGMEM_ADMIN_KEY: canary, CORDON_WEBHOOK_URL: `x${canary}` };
    const run = await cordon(['doctor'], { ...env, CORDON_EVIDENCE_DIR: mkdtempSync(join(tmpdir(), 'cordon-ev-')) });
    expect(run.code).toBe(4);
    expect(run.out).toMatch(/FAIL {2}Temporal: no Temporal server answers at 127\.0\.0\.1:1/);
    expect(run.out).toMatch(/FAIL {2}Stigmem node/);
    expect(run.out).toMatch(/ok {4}evidence folder/);
    expect(run.out + run.err).not.toContain(canary);
  });

  it('verifies an evidence folder, and exits 6 when it does not fit', async () => {
    const root = mkdtempSync(join(tmpdir(), 'cordon-verify-'));
    const store = await EvidenceStore.open(root, 'peer-compromise:p', '2026-11-23T01:00:00Z');
    const good = await cordon(['verify', store.dir, '--head', await store.head(), '--json']);
    expect(good.code).toBe(0);
    expect(good.json()).toMatchObject({ ok: true, entries: 1 });
    const other = await cordon(['verify', store.dir, '--head', `sha256:${'0'.repeat(64)}`]);
    expect(other.code).toBe(6);
    expect(other.out).toContain('DOES NOT VERIFY');
    expect((await cordon(['verify', join(root, 'none')])).code).toBe(6);
  });
});

describe('text', () => {
  it('disarms control characters and direction marks', () => {
    expect(clean('a\u001b[31mb\u202Ec\nd')).toBe('a\uFFFD[31mb\uFFFDc\uFFFDd');
  });

  it('quotes a word for the shell', () => {
    expect(shellWord('peer-compromise:node-1')).toBe('peer-compromise:node-1');
    expect(shellWord("a b'c$(x)")).toBe(String.raw`'a b'\''c$(x)'`);
  });

  it('keeps tables within 80 columns', () => {
    const long = 'x'.repeat(300);
    const text = table(['a', 'b', 'c'], [[long, 'short', long]], 80, [10, 10]);
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(cut(long, 10)).toHaveLength(10);
  });
});
