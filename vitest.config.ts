import { defineConfig } from 'vitest/config';

/** Tests that start servers and nodes: they wait more than they work, so two files go side by side. */
const real = { pool: 'forks', maxWorkers: 2, testTimeout: 90_000, hookTimeout: 120_000 } as const;
/** Those that kill processes, or play the whole story, have the machine for themselves. */
const alone = { ...real, fileParallelism: false, maxWorkers: 1 } as const;

export default defineConfig({
  test: {
    projects: [
      {
        test: { name: 'unit', include: ['test/unit/**/*.test.ts', 'test/repo.test.ts'], pool: 'forks', maxWorkers: 2, testTimeout: 60_000 },
      },
      { test: { name: 'workflow', include: ['test/workflow/**/*.test.ts'], ...real } },
      { test: { name: 'replay', include: ['test/replay/**/*.test.ts'], ...alone } },
      { test: { name: 'integration', include: ['test/integration/**/*.test.ts'], ...real } },
      { test: { name: 'faults', include: ['test/faults/*.test.ts'], ...real, testTimeout: 600_000, hookTimeout: 300_000 } },
      // Every fault at every route: `npm run faults`, not part of `npm test`.
      { test: { name: 'faults-full', include: ['test/faults/full/*.test.ts'], ...alone, testTimeout: 2_400_000, maxConcurrency: 5 } },
      // Needs Go and PostgreSQL: `npm run test:postgres`, not part of `npm test`.
      { test: { name: 'postgres', include: ['test/postgres/**/*.test.ts'], ...alone, testTimeout: 180_000 } },
      { test: { name: 'crash', include: ['test/crash/**/*.test.ts'], ...alone, testTimeout: 180_000 } },
    ],
  },
});
