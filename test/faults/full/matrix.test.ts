import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Reference } from '../checks.ts';
import { faultKinds } from '../kinds.ts';
import { everywhere, openStage, reference, type Outcome, type Stage } from '../stage.ts';

let stage: Stage;
let untouched: Reference;
const outcomes: Outcome[] = [];

beforeAll(async () => {
  stage = await openStage('faults-full', 5);
  untouched = await reference(stage);
}, 600_000);
afterAll(async () => {
  console.table(outcomes.map(({ wrong, ...row }) => ({ ...row, wrong: wrong.length })));
  await stage?.stop();
});

// Each fault at every route of every activity, in a whole incident: waiting, most of the time, so several at once.
test.concurrent.for(faultKinds.map((kind) => [kind.name, kind] as const))('%s', async ([, kind], { expect: expectHere }) => {
  const outcome = await everywhere(stage, kind, untouched);
  outcomes.push(outcome);
  // As they come: a run of half an hour that is ended early has still shown something.
  writeFileSync(join(stage.template.scene.dir, 'matrix.json'), JSON.stringify(outcomes, null, 1));
  expectHere(outcome.wrong).toEqual([]);
  expectHere(outcome.cells).toBeGreaterThan(60);
});

test('the reference went through every phase', () => {
  expect(untouched.outcome).toBe('dismissed');
  expect(untouched.cells.length).toBeGreaterThan(60);
});
