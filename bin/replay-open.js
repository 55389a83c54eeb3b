#!/usr/bin/env node
// Replays what is open with this build, before an upgrade: docs/how-to/deploy.md.
import '../dist/src/replay-open.js';
