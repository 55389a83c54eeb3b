import { bundleWorkflowCode } from '@temporalio/worker';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bundlePath, checkoutDir, payloadConverterPath } from './paths.ts';

// Bundled once, when cordon is built: a worker that starts at three in the morning does not wait for webpack.
const { code } = await bundleWorkflowCode({
  workflowsPath: join(checkoutDir(), 'dist', 'workflows', 'index.js'),
  payloadConverterPath: payloadConverterPath(),
  workflowInterceptorModules: [join(checkoutDir(), 'dist', 'workflows', 'door.js')],
});
await writeFile(bundlePath(), code);
