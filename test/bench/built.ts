import { join } from 'node:path';
import { repoRoot } from '../../src/lab/tools.ts';

/** The converter that the shipped worker loads: by its path, so the benchmarks' own build does not hold it. */
export const payloadConverter = join(repoRoot, 'dist', 'src', 'payload-converter.js');
