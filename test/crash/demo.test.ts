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

test('the demo runs the main job to its end, and hides nothing of what stays', async () => {
  const file = join(repoRoot, '.test', 'demo.json');
  const { stdout } = await promisify(execFile)(process.execPath, [join(repoRoot, 'dist', 'src', 'demo', 'main.js'), '--json', file], {
    maxBuffer: 16 * 1024 * 1024,
  });
  const result = JSON.parse(await readFile(file, 'utf8')) as Result;
  expect(result.checks.filter(({ outcome }) => outcome === 'FAILED')).toEqual([]);
  expect(result.outcome).toBe('expelled');
  expect(result.checks.filter(({ outcome }) => outcome === 'residual').map(({ what }) => what)).toEqual([
    'price of the HTTP fence',
    'recall still answers',
    'our own fact on the same triple stays hidden',
  ]);
  const outcomeOf = new Map(result.steps.map(({ name, outcome }) => [name, outcome]));
  expect(outcomeOf.get('fenceInbound')).toBe('verified');
  expect(outcomeOf.get('undoFacts')).toBe('verified');
  expect(outcomeOf.get('verifyUndone')).toBe('unverified');
  expect(result.residual.some(({ what }) => what.includes('recall'))).toBe(true);
  expect(await readFile(result.report, 'utf8')).toContain('**expelled**');
  expect(stdout).toContain('npx cordon approve');
  expect(stdout).toMatch(/Temporal Web UI: http:\/\/127\.0\.0\.1:\d+/);
});
