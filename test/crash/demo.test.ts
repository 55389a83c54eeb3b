import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { repoRoot } from '../../src/lab/tools.ts';

/** What `npm run demo` says of itself, for scripts. */
interface Result {
  readonly outcome: string;
  readonly checks: readonly { readonly what: string; readonly outcome: string; readonly detail: string }[];
  readonly steps: readonly { readonly name: string; readonly outcome: string }[];
  readonly residual: readonly { readonly what: string }[];
  readonly report: string;
}

async function demo(...args: readonly string[]): Promise<Result & { readonly stdout: string }> {
  const file = join(repoRoot, '.test', 'demo.json');
  const command = [join(repoRoot, 'dist', 'src', 'demo', 'main.js'), ...args, '--json', file];
  const { stdout } = await promisify(execFile)(process.execPath, command, { maxBuffer: 16 * 1024 * 1024 });
  const result = JSON.parse(await readFile(file, 'utf8')) as Result;
  expect(result.checks.filter(({ outcome }) => outcome === 'FAILED')).toEqual([]);
  expect(result.outcome).toBe('expelled');
  expect(await readFile(result.report, 'utf8')).toContain('**expelled**');
  return { ...result, stdout };
}

const stays = ({ checks }: Result): string[] => checks.filter(({ outcome }) => outcome === 'residual').map(({ what }) => what);
const outcomesOf = ({ steps }: Result): Record<string, string> => Object.fromEntries(steps.map(({ name, outcome }) => [name, outcome]));

test('the demo runs the main job to its end with a host worker, and hides nothing of what stays', async () => {
  const result = await demo();
  expect(stays(result)).toEqual(['a card made anew tells it']);
  const done = ['fenceInbound', 'fenceOutbound', 'revokeTokens', 'revokeKeys', 'collectFacts', 'undoFacts', 'verifyUndone'];
  for (const name of done) expect(outcomesOf(result)[name], name).toBe('verified');
  expect(result.residual.some(({ what }) => /recall|default query/.test(what))).toBe(false);
  expect(result.residual.some(({ what }) => what.includes('memory cards'))).toBe(true);
  expect(result.stdout).toContain('npx cordon approve');
  expect(result.stdout).toMatch(/Temporal Web UI: http:\/\/127\.0\.0\.1:\d+/);
});

test('the demo over HTTP alone shows what that leaves', async () => {
  const result = await demo('--http-only');
  expect(stays(result)).toEqual(['price of the HTTP fence', 'recall still answers', 'our own fact on the same triple stays hidden']);
  expect(outcomesOf(result)).toMatchObject({ fenceInbound: 'verified', undoFacts: 'verified', verifyUndone: 'unverified' });
  expect(result.residual.some(({ what }) => what.includes('recall'))).toBe(true);
});
