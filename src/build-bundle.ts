import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bundleWorkflows } from './bundle-workflows.ts';
import { bundlePath, checkoutDir } from './paths.ts';

// Bundled once, when cordon is built: a worker that starts at three in the morning does not wait for webpack.
const { code } = await bundleWorkflows({ dir: join(checkoutDir(), 'dist') });
await writeFile(bundlePath(), code);
