import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { Dashboard, dashboardFile } from '../helpers/dashboard.ts';

// That it asks only for metrics that exist is checked against a real scrape: test/integration/observe.test.ts.

const text = readFileSync(dashboardFile, 'utf8');
const { panels, templating, __inputs } = Dashboard.parse(JSON.parse(text));

test('panels have ids of their own and do not lie on each other', () => {
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_unused, i) => `${x + (i % w)},${y + Math.floor(i / w)}`),
  );
  expect(new Set(cells).size).toBe(cells.length);
  expect(panels.every(({ gridPos: { x, w } }) => x + w <= 24)).toBe(true);
});

test('every variable it uses is one it declares', () => {
  const declared = new Set([...templating.list.map(({ name }) => name), ...__inputs.map(({ name }) => name)]);
  const used = [...text.matchAll(/\$\{?([A-Za-z]\w*)/g)].map(([, name = '']) => name);
  expect(new Set(used)).toEqual(declared);
});

test('says nothing of who made it, or where', () => {
  expect(text).not.toMatch(/"id": null|localhost|https?:/);
});
