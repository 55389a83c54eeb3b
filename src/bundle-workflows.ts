import { bundleWorkflowCode, type Logger, type WorkflowBundleWithSourceMap } from '@temporalio/worker';
import { join } from 'node:path';
import { checkoutDir, payloadConverterPath } from './paths.ts';

/** Loaded once for all incidents of a worker. They keep no state; a copy of them for each would be a megabyte. */
const shared = ['canonical', 'duration', 'failures', 'names', 'policy', 'schemas', 'steps', 'telemetry'] as const;
const isShared = /[\\/](zod|@noble[\\/]hashes|src[\\/]contract)[\\/]/;

const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';

/** Options of {@link bundleWorkflows}. */
export interface BundleOptions {
  /** Holds `workflows/` and `src/contract/`, as TypeScript or as built, like this file. */
  readonly dir: string;
  readonly payloadConverter?: string;
  readonly logger?: Logger;
}

/** The workflow code as a worker loads it: in one file, with the door before the SDK. */
export function bundleWorkflows({
  dir,
  payloadConverter = payloadConverterPath(),
  logger,
}: BundleOptions): Promise<WorkflowBundleWithSourceMap> {
  return bundleWorkflowCode({
    workflowsPath: join(dir, 'workflows', `index.${extension}`),
    payloadConverterPath: payloadConverter,
    workflowInterceptorModules: [join(dir, 'workflows', `door.${extension}`)],
    preloadModules: shared.map((name) => join(dir, 'src', 'contract', `${name}.${extension}`)),
    // The SDK freezes all that it preloads, as deep as it can see, and a schema of zod fills itself in at first use:
    // what is frozen at its top already, the SDK leaves as it is below.
    webpackConfigHook: (config) => {
      const loader = join(checkoutDir(), 'dist', 'src', 'freeze-exports.js');
      config.module = { ...config.module, rules: [...(config.module?.rules ?? []), { test: isShared, use: loader }] };
      return config;
    },
    ...(logger ? { logger } : {}),
  });
}
