// `npm test`: set-up, then every check, one after the other; goes on after a failure so that all of them show.
// Ends with a line `N passed, N failed`: each test counts as one, and so does each of types, lint, format and knip.
// --check: only what takes seconds (no real nodes, no crash runs).
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(fileURLToPath(new URL('..', import.meta.url)));
const results = join(root, '.test', 'results');
const quick = process.argv.includes('--check');
const limitMs = 35 * 60_000;
const shownLines = 120;

const bin = (name) => join(root, 'node_modules', '.bin', name);
const statics = [
  ['types (tsc)', [bin('tsc'), '--noEmit']],
  ['lint (oxlint)', [bin('oxlint'), '--type-aware']],
  ['format (oxfmt)', [bin('oxfmt'), '--check']],
  ['unused code (knip)', [bin('knip'), '--no-progress']],
];
const projects = quick ? ['unit', 'workflow', 'replay'] : ['unit', 'workflow', 'replay', 'integration', 'faults', 'crash'];

const began = Date.now();
const rows = [];
let running;
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    stop(running, 'SIGTERM');
    process.exit(130);
  });
}

say('set-up');
const setUp = await run([process.execPath, 'scripts/setup.mjs', '--quiet'], { show: true });
if (setUp.code !== 0) {
  note('set-up', { passed: 0, failed: 1, skipped: 0 }, setUp);
  finish();
}
mkdirSync(results, { recursive: true });
for (const [name, command] of statics) {
  say(name);
  const done = await run(command);
  if (done.code !== 0) console.log(tail(done.output));
  note(name, { passed: Number(done.code === 0), failed: Number(done.code !== 0), skipped: 0 }, done);
}
for (const project of projects) {
  if (!hasTests(project)) continue;
  say(`${project} tests`);
  const file = join(results, `${project}.json`);
  rmSync(file, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`, '--silent=passed-only'];
  const done = await run([bin('vitest'), 'run', '--project', project, ...reporters], { show: true });
  note(`${project} tests`, countsOf(file, done), done);
}
finish();

/** Runs a command in a process group of its own, without stdin, and ends it when it hangs. */
function run([command, ...args], { show = false } = {}) {
  const start = Date.now();
  return new Promise((done) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', show ? 'inherit' : 'pipe', show ? 'inherit' : 'pipe'],
      detached: true,
    });
    running = child;
    let output = '';
    child.stdout?.on('data', (text) => (output += text));
    child.stderr?.on('data', (text) => (output += text));
    let why = '';
    const limit = setTimeout(() => {
      why = `ended after ${limitMs / 60_000} minutes`;
      stop(child, 'SIGTERM');
      setTimeout(() => stop(child, 'SIGKILL'), 10_000).unref();
    }, limitMs);
    const end = (code, reason) => {
      clearTimeout(limit);
      running = undefined;
      done({ code, output, seconds: (Date.now() - start) / 1000, why: why || reason });
    };
    child.on('error', (error) => end(1, `could not start: ${error.message}`));
    child.on('close', (code, signal) => end(code ?? 1, signal ? `ended by ${signal}` : ''));
  });
}

function stop(child, signal) {
  if (!child?.pid || child.exitCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has gone by itself.
  }
}

function hasTests(project) {
  const folder = join(root, 'test', project);
  return existsSync(folder) && readdirSync(folder, { recursive: true }).some((name) => name.endsWith('.test.ts'));
}

/** Counts of one run. No result, no test, or an exit code that no failed test explains: counted as a failure. */
function countsOf(file, done) {
  let result;
  try {
    result = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    done.why ||= 'it wrote no result';
    return { passed: 0, failed: 1, skipped: 0 };
  }
  const tests = result.testResults.flatMap((one) => one.assertionResults);
  const passed = tests.filter(({ status }) => status === 'passed').length;
  const failedTests = tests.filter(({ status }) => status === 'failed').length;
  const skipped = tests.length - passed - failedTests;
  // A file that failed as a whole (an import, a hook) has no failed test of its own.
  const isBroken = (one) => one.status === 'failed' && !one.assertionResults.some(({ status }) => status === 'failed');
  const broken = result.testResults.filter(isBroken);
  if (broken.length > 0) done.why ||= `${broken.length} file(s) failed as a whole`;
  let failed = failedTests + broken.length;
  if (passed + failed === 0) done.why ||= 'no test ran';
  else if (done.code !== 0 && failed === 0) done.why ||= `exit code ${done.code} with no failed test (see above)`;
  if ((passed === 0 || done.code !== 0) && failed === 0) failed = 1;
  return { passed, failed, skipped };
}

function say(what) {
  console.log(`\n── ${what} ── (${clock(Date.now() - began)} so far)`);
}

function note(name, counts, { seconds, why }) {
  rows.push({ name, ...counts });
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : '';
  const reason = counts.failed > 0 && why ? ` (${why})` : '';
  console.log(
    `${counts.failed > 0 ? 'FAILED' : 'ok'}  ${name}: ${counts.passed} passed, ${counts.failed} failed${skipped}${reason} in ${seconds.toFixed(1)} s`,
  );
}

function finish() {
  const sum = (what) => rows.reduce((total, row) => total + row[what], 0);
  const failing = rows.filter(({ failed }) => failed > 0).map(({ name }) => name);
  console.log(`\n── done in ${clock(Date.now() - began)} ──${failing.length > 0 ? ` failing: ${failing.join(', ')}` : ''}`);
  const skipped = sum('skipped');
  console.log(`${sum('passed')} passed, ${sum('failed')} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  process.exit(sum('failed') > 0 ? 1 : 0);
}

function tail(text) {
  const lines = text.trimEnd().split('\n');
  return lines.length > shownLines
    ? [`… ${lines.length - shownLines} lines before`, ...lines.slice(-shownLines)].join('\n')
    : lines.join('\n');
}

function clock(ms) {
  const s = Math.round(ms / 1000);
  return s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${s % 60} s`;
}
