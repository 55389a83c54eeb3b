#!/usr/bin/env node
// For the container's health check: exit 0 when GET /healthz on this port of this machine answers 200.
const [port] = process.argv.slice(2);
try {
  const answer = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(4_000) });
  console.log(`${answer.status} ${await answer.text()}`);
  process.exitCode = answer.status === 200 ? 0 : 1;
} catch (error) {
  console.log(`no answer on port ${port}: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
