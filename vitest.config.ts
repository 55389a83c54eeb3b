import { defineConfig } from 'vitest/config';

/** Tests that start processes of their own take a core each: they run one file at a time. */
const real = { pool: 'forks', fileParallelism: false, testTimeout: 60_000, hookTimeout: 90_000 } as const;

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts', 'test/repo.test.ts'], pool: 'forks', testTimeout: 60_000 } },
      { test: { name: 'workflow', include: ['test/workflow/**/*.test.ts'], ...real } },
      { test: { name: 'replay', include: ['test/replay/**/*.test.ts'], ...real } },
      { test: { name: 'integration', include: ['test/integration/**/*.test.ts'], ...real } },
      { test: { name: 'crash', include: ['test/crash/**/*.test.ts'], ...real, testTimeout: 180_000, hookTimeout: 120_000 } },
      { test: { name: 'browser', include: ['test/browser/**/*.test.ts'], ...real } },
    ],
  },
});
