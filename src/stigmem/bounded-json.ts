import { z } from 'zod';

const MAX_DEPTH = 12;
const MAX_ITEMS = 256;
const MAX_CHARS = 2048;

/**
 * JSON of a stranger, made small before anything looks at it: strings are cut to 2,048 characters, lists and objects
 * to 256 entries; deeper than 12 levels is an error. A cut key no longer matches, which is the safe way to fail.
 */
export const boundedJson = z.unknown().transform((value, context): unknown => {
  if (depthOf(value, MAX_DEPTH) > MAX_DEPTH) {
    context.addIssue({ code: 'custom', message: `at most ${MAX_DEPTH} levels` });
    return z.NEVER;
  }
  return cut(value);
});

/** Depth of nesting, counted no further than one level over `limit`. */
export function depthOf(value: unknown, limit: number): number {
  if (value === null || typeof value !== 'object') return 0;
  if (limit === 0) return 1;
  let deepest = 0;
  for (const child of Object.values(value)) deepest = Math.max(deepest, depthOf(child, limit - 1));
  return deepest + 1;
}

function cut(value: unknown): unknown {
  if (typeof value === 'string') return value.slice(0, MAX_CHARS);
  if (Array.isArray(value)) return value.slice(0, MAX_ITEMS).map(cut);
  if (value === null || typeof value !== 'object') return value;
  const entries = Object.entries(value).slice(0, MAX_ITEMS);
  return Object.fromEntries(entries.map(([name, child]) => [name.slice(0, MAX_CHARS), cut(child)]));
}
