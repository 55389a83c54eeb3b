import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { repoRoot } from '../../src/lab/tools.ts';
import { workflowBundle } from '../helpers/workflow-env.ts';
import { coveredBy, wanted } from './coverage.ts';
import { digestOf, historyFiles, historyText, isRecorded, keep, list, listedDigests, readRecorded, replay } from './histories.ts';
import { recordDemo, recordHistories } from './record-histories.ts';

// `npm run record-histories [release]` sets it: what is not there yet under the release's name is played and recorded.
// What is there stays: none is ever deleted or written over.
const release = process.env['RECORD_HISTORIES'];
if (release !== undefined) {
  list(historyFiles());
  const isMissing = (scenario: string): boolean => !isRecorded(release, scenario);
  const recorded = [...(await recordDemo()), ...(await recordHistories(isMissing))];
  for (const [scenario, history] of recorded) if (isMissing(scenario)) keep(release, scenario, history);
}

const files = historyFiles();
const releaseOf = (name: string): string => name.slice(0, name.indexOf('-'));

describe('what was recorded', () => {
  test('is there, whole and unchanged', () => {
    expect(new Map(files.map((name) => [name, digestOf(name)]))).toEqual(listedDigests());
  });

  test('was never changed or deleted in the history of this repository', () => {
    const log = ['log', '--diff-filter=MDRT', '--format=', '--name-status', '--', 'test/replay/histories'];
    expect(execFileSync('git', log, { cwd: repoRoot, encoding: 'utf8' }).trim()).toBe('');
    // Lines are only added to the list.
    const list = ['log', '-p', '--format=', '--unified=0', '--', 'test/replay/histories.sha256'];
    const removed = execFileSync('git', list, { cwd: repoRoot, encoding: 'utf8' })
      .split('\n')
      .filter((line) => /^-[0-9a-f]{64}/.test(line));
    expect(removed).toEqual([]);
  });

  test('of the newest release covers all patches and all that the contract lets happen', () => {
    const newest = files
      .map(releaseOf)
      .toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true }))
      .at(-1);
    const covered = new Set(files.filter((name) => releaseOf(name) === newest).flatMap((name) => coveredBy(readRecorded(name))));
    expect(wanted.filter((what) => !covered.has(what))).toEqual([]);
  });
});

describe('replays', () => {
  for (const name of files) {
    test(`${name} under its real workflow id`, async () => {
      await replay(await workflowBundle(), name);
    });

    test(`${name} names no machine`, () => {
      const raw = historyText(name);
      const text =
        raw + [...raw.matchAll(/"data":"([^"]*)"/g)].map(([, data = '']) => Buffer.from(data, 'base64').toString('utf8')).join('\n');
      expect(text).not.toMatch(/\/(home|root|work|Users|tmp)\/|node_modules|\d+@[\w-]+/);
      expect(text).toContain('"identity":"recorder"');
    });
  }
});
