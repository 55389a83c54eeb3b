import { DefaultLogger, type WorkflowBundle } from '@temporalio/worker';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { bundleWorkflows } from '../../src/bundle-workflows.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { converterPath, workflowBundle } from '../helpers/workflow-env.ts';
import { historyFiles, replay } from './histories.ts';

/** A change of the workflow's source, and the histories it is held against. */
interface Planted {
  readonly file: string;
  readonly from: string;
  readonly to: string;
  readonly histories: readonly string[];
}

/** Each in another part of the runbook. */
const breaking: Readonly<Record<string, Planted>> = {
  'identify: an activity is called twice': {
    file: 'open.ts',
    from: '  let opened = await open();',
    to: '  await open();\n  let opened = await open();',
    histories: ['0.1.0-expelled.json'],
  },
  'contain: an activity under another name': {
    file: 'contain.ts',
    from: 'quick.revokePeers(of), mutate.fenceInbound)',
    to: 'quick.revokePeers(of), mutate.fenceOutbound)',
    histories: ['0.1.0-expelled.json', '0.1.0-demo.json'],
  },
  'investigate: two steps in another order': {
    file: 'peer-compromise.ts',
    from: "    await step(incident, 'readPeer'",
    to: "    await step(incident, 'collectFacts', ({ ref }) => collect.collectFacts({ ref, peer: state.peer }));\n    await step(incident, 'readPeer'",
    histories: ['0.1.0-expelled.json'],
  },
  'communicate: two notices in another order': {
    file: 'notices.ts',
    from: "    step(incident, 'notifyPeer', acts.notifyPeer),",
    to: "    step(incident, 'notifyLocal', acts.notifyLocal),\n    step(incident, 'notifyPeer', acts.notifyPeer),",
    histories: ['0.1.0-expelled.json'],
  },
  'rotate: keys are asked for before the request is out': {
    file: 'rotate.ts',
    from: "  await step(incident, 'requestRotation', noticeActs(incident).requestRotation);\n  await newKeys(incident);",
    to: "  await newKeys(incident);\n  await step(incident, 'requestRotation', noticeActs(incident).requestRotation);",
    histories: ['0.1.1-new-key.json'],
  },
  'reregister: bound on the host without looking for one': {
    file: 'reregister.ts',
    from: '  await lookForHost(incident);\n  while',
    to: '  while',
    histories: ['0.1.1-new-key.json', '0.1.1-new-key-by-host.json'],
  },
  'testPull: the backlog is judged without looking for a host worker': {
    file: 'test-pull.ts',
    from: '  await lookForHost(incident);\n',
    to: '',
    histories: ['0.1.1-backlog.json', '0.1.1-backlog-by-host.json'],
  },
  'a gate: a decision that is believed without asking which run this is': {
    file: 'ask.ts',
    from: 'const run = await incident.confirmRun();',
    to: 'const run = incident.runs.recorded;',
    histories: ['0.1.0-expelled.json', '0.1.0-reset.json'],
  },
  'a gate: no timer for the reminder': {
    file: 'ask.ts',
    from: 'await condition(woken, Math.max(1, Math.min(remindAt, expiresAt) - Date.now()));',
    to: 'await condition(woken);',
    histories: ['0.1.0-amend.json', '0.1.0-expiry.json'],
  },
  'a gate: a reminder more': {
    file: 'ask.ts',
    from: "      await remind(incident, gate, 'expired');",
    to: "      await remind(incident, gate, 'expired');\n      await remind(incident, gate, 'waiting');",
    histories: ['0.1.0-expiry.json'],
  },
  'a park: it waits by a timer of its own': {
    file: 'steps.ts',
    from: '      const woken = await parked(incident, name, waitMs, look);',
    to: '      await condition(() => false, 1);\n      const woken = await parked(incident, name, waitMs, look);',
    histories: ['0.1.0-park.json', '0.1.0-skip.json'],
  },
  'retract: the plan is made again by another activity': {
    file: 'retract.ts',
    from: 'collect.remakePlan(',
    to: 'collect.planAgain(',
    histories: ['0.1.0-amend.json', '0.1.0-demo.json'],
  },
  'identify: a host worker is looked for in a run that began without': {
    file: 'host.ts',
    from: "  if (!patched('host-worker')) return;\n",
    to: '',
    histories: ['0.1.0-expelled.json'],
  },
  'retract: the host worker is not told to suppress': {
    file: 'retract.ts',
    from: "      if (suppress > 0 && go.done === 0) await viaHost(incident, ({ long }) => long.suppressFacts({ ...approved, action: 'suppress' }));\n",
    to: '',
    histories: ['0.1.1-host.json'],
  },
  'the switch to the next run: it does not wait until it is quiet': {
    file: 'open.ts',
    from: "if (!patched('switch-when-quiet')) return 'switch';",
    to: "if (incident.messages >= 0) return 'switch';",
    histories: ['0.1.0-quiet-switch-1.json'],
  },
  'closed: the peer is let go before the report': {
    file: 'close.ts',
    from: '  const sealed = await insist(incident',
    to: "  if (incident.mode === 'live' && state.peer && state.ourNode) await read.releasePeer({ ref: incident.ref(), peer: state.peer, ourNodeId: state.ourNode.nodeId });\n  const sealed = await insist(incident",
    histories: ['0.1.0-expelled.json'],
  },
  'the next run: the history of the one before is not sealed': {
    file: 'open.ts',
    from: "patched('predecessor-is-sealed')) await startSealing(continuedFromExecutionRunId);",
    to: "patched('predecessor-is-sealed')) incident.publish();",
    histories: ['0.1.0-sealed-switch-2.json'],
  },
  'closed: the last history is not sealed': {
    file: 'close.ts',
    from: '  await startSealing(await incident.confirmRun());',
    to: '  const closedRun = await incident.confirmRun();\n  if (incident.messages < 0) await startSealing(closedRun);',
    histories: ['0.1.0-dismissed.json'],
  },
};

/** What may change at any time. */
const harmless: Readonly<Record<string, Omit<Planted, 'histories'>>> = {
  'bounds and retries of activities': {
    file: 'policies.ts',
    from: "startToCloseTimeout: '40s', scheduleToCloseTimeout: '75s'",
    to: "startToCloseTimeout: '50s', scheduleToCloseTimeout: '99s'",
  },
  'what people read': { file: 'status.ts', from: '`cordon approve <incident> --gate', to: '`cordon yes <incident> --gate' },
};

async function planted({ file, from, to }: Omit<Planted, 'histories'>, name: string): Promise<WorkflowBundle> {
  const dir = join(repoRoot, '.test', 'planted', name.replaceAll(/\W+/g, '-'));
  rmSync(dir, { recursive: true, force: true });
  for (const part of ['workflows', 'src/contract', 'src/payload-converter.ts'])
    cpSync(join(repoRoot, part), join(dir, part), { recursive: true });
  const path = join(dir, 'workflows', file);
  const code = readFileSync(path, 'utf8');
  if (code.split(from).length !== 2) throw new Error(`${file} no longer has what this test changes: ${from}`);
  writeFileSync(path, code.replace(from, to));
  return bundleWorkflows({ dir, payloadConverter: converterPath, logger: new DefaultLogger('ERROR') });
}

describe('a change that breaks determinism is caught', () => {
  for (const [name, change] of Object.entries(breaking)) {
    test(`${name}`, { timeout: 300_000 }, async () => {
      await workflowBundle();
      const bundle = await planted(change, name);
      for (const history of change.histories) await expect(replay(bundle, history), history).rejects.toThrow(/nondeterminism/i);
    });
  }
});

describe('a change that does no harm passes every history', () => {
  for (const [name, change] of Object.entries(harmless)) {
    test(`${name}`, { timeout: 300_000 }, async () => {
      await workflowBundle();
      const bundle = await planted(change, name);
      for (const history of historyFiles()) await replay(bundle, history);
    });
  }
});
