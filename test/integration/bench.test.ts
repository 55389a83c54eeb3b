import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { repoRoot } from '../../src/lab/tools.ts';

const Result = z.object({
  quick: z.literal(true),
  machine: z.object({ cores: z.number(), node: z.string() }),
  figures: z.array(z.object({ group: z.string(), what: z.string(), value: z.number(), ratio: z.number().nullable() })),
});

// That the command works, on a real node and server. Its figures are for a quiet machine and are not judged here.
test('npm run bench prints its table and writes its JSON', { timeout: 600_000 }, async () => {
  const dir = join(repoRoot, '.test', 'bench-quick');
  mkdirSync(dir, { recursive: true });
  const out = join(dir, 'bench.json');
  const { stdout } = await promisify(execFile)('npm', ['run', 'bench', '--', '--quick', '--out', out], { cwd: repoRoot });
  const { figures } = Result.parse(JSON.parse(readFileSync(out, 'utf8')));
  const groups = new Set(figures.map(({ group }) => group));
  expect([...groups].sort()).toEqual(['20 facts', '3000 facts, host worker', 'fence', 'worker']);
  for (const { what } of figures) expect(stdout).toContain(what);
  const compared = figures.filter(({ ratio }) => ratio !== null).map(({ what }) => what);
  expect(compared).toContain('start to fence read back, p50');
  expect(compared).toContain('retractions per second, 4 at a time');
  expect(compared).toContain('replay of the whole history, p50');
});
