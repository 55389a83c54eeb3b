import proto from '@temporalio/proto';
import { bundleWorkflowCode, DefaultLogger, Worker, type WorkflowBundle } from '@temporalio/worker';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { repoRoot } from '../../src/lab/tools.ts';
import { converterPath, workflowBundle } from '../helpers/workflow-env.ts';
import { recordDemo, recordHistories, type RecordedHistory } from './record-histories.ts';

const folder = fileURLToPath(new URL('histories/', import.meta.url));

// After `npm run demo`, `RECORD_HISTORIES=0.2.0 npx vitest run --project replay` records those of a release.
// What is there stays: none is ever deleted or written over.
const release = process.env['RECORD_HISTORIES'];
if (release !== undefined) {
  mkdirSync(folder, { recursive: true });
  for (const [scenario, history] of [...(await recordDemo()), ...(await recordHistories())]) {
    const file = join(folder, `${release}-${scenario}.json`);
    if (!existsSync(file)) writeFileSync(file, `${JSON.stringify(history)}\n`);
  }
}

const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
function read(name: string): RecordedHistory {
  const history: RecordedHistory = JSON.parse(readFileSync(join(folder, name), 'utf8'));
  return history;
}

/** Replays under the real workflow id, from which ids and keys are made. */
async function replay(bundle: WorkflowBundle, name: string): Promise<void> {
  const { workflowId, events } = read(name);
  // Not historyFromJSON of the SDK: it throws when npm installs protobufjs more than once.
  const history = proto.temporal.api.history.v1.History.fromObject({ events });
  await Worker.runReplayHistory({ workflowBundle: bundle, dataConverter: { payloadConverterPath: converterPath } }, history, workflowId);
}

test('each scenario has a history of the first release', () => {
  const scenarios = [
    'amend',
    'cancel-request',
    'continue-as-new-1',
    'continue-as-new-2',
    'demo',
    'demo-duplicate',
    'dismissed',
    'duplicate',
    'expelled',
    'park',
    'reject-retry',
    'reset',
    'skip',
  ];
  expect(files.filter((name) => name.startsWith('0.1.0-')).toSorted()).toEqual(
    scenarios.map((scenario) => `0.1.0-${scenario}.json`).toSorted(),
  );
});

describe('replays', () => {
  for (const name of files) {
    test(`${name} under its real workflow id`, async () => {
      await replay(await workflowBundle(), name);
    });

    test(`${name} names no machine`, () => {
      const raw = readFileSync(join(folder, name), 'utf8');
      const text =
        raw + [...raw.matchAll(/"data":"([^"]*)"/g)].map(([, data = '']) => Buffer.from(data, 'base64').toString('utf8')).join('\n');
      expect(text).not.toMatch(/\/(home|root|work|Users|tmp)\/|node_modules|\d+@[\w-]+/);
      expect(text).toContain('"identity":"recorder"');
    });
  }
});

describe('a broken workflow fails', () => {
  const broken: Readonly<Record<string, readonly [file: string, from: string, to: string]>> = {
    'an activity under another name': ['peer-compromise.ts', 'mutate.fenceInbound(', 'mutate.fenceOutside('],
    'two steps in another order': [
      'peer-compromise.ts',
      "    await step(incident, 'readPeer'",
      "    await step(incident, 'collectFacts', ({ ref }) => collect.collectFacts({ ref, peer: state.peer }));\n    await step(incident, 'readPeer'",
    ],
    'a decision that is believed without asking which run this is': [
      'ask.ts',
      'const run = await incident.confirmRun();',
      'const run = incident.runs.recorded;',
    ],
  };
  for (const [what, [file, from, to]] of Object.entries(broken)) {
    let bundle: WorkflowBundle;
    beforeAll(async () => {
      const dir = join(repoRoot, '.test', 'broken', what.replaceAll(' ', '-'));
      rmSync(dir, { recursive: true, force: true });
      for (const part of ['workflows', 'src/contract']) cpSync(join(repoRoot, part), join(dir, part), { recursive: true });
      const path = join(dir, 'workflows', file);
      const code = readFileSync(path, 'utf8');
      if (code.split(from).length !== 2) throw new Error(`${file} no longer has what this test breaks: ${from}`);
      writeFileSync(path, code.replace(from, to));
      bundle = await bundleWorkflowCode({
        workflowsPath: join(dir, 'workflows', 'index.ts'),
        payloadConverterPath: converterPath,
        logger: new DefaultLogger('ERROR'),
      });
    });

    test(`with ${what}`, async () => {
      await expect(replay(bundle, '0.1.0-expelled.json')).rejects.toThrow(/nondeterminism/i);
    });
  }
});
