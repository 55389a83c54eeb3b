#!/usr/bin/env node
// The built CLI; `npm run setup` builds it.
import '../dist/src/cli/main.js';
