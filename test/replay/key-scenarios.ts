import type { Gate } from '../../src/contract/names.ts';
import { defaultPolicy } from '../../src/contract/policy.ts';
import type { StepResult } from '../../src/contract/steps.ts';
import { newKeys } from '../helpers/fake-activities.ts';
import { approve, closeAs, decide, gateOpen, until, waits, type Incident } from '../helpers/workflow-env.ts';
import type { Scenario } from './scenarios.ts';

export async function rejectAt(incident: Incident, gate: Gate): Promise<void> {
  const { digest } = await gateOpen(incident, gate);
  await decide(incident, { gate, decision: 'reject', digest, by: 'bob' });
}

const byHost = { way: 'host' } as const;
/** With a host worker, and fences that say so. */
const returning = () => ({
  hostQueue: 'host',
  keys: newKeys,
  facts: new Map([['fact-c', 'keep' as const]]),
  results: new Map<string, Partial<StepResult>>([
    ['fenceInbound', byHost],
    ['fenceOutbound', byHost],
  ]),
});

/** As far as the gate of the test pull. */
async function rebound(incident: Incident, opening?: number): Promise<void> {
  const { digest } = await gateOpen(incident, 'reregister', opening);
  await decide(incident, { gate: 'reregister', decision: 'approve', digest, by: 'bob', fingerprint: newKeys.fingerprint });
  await gateOpen(incident, 'testPull');
}

/** The peer's new key: verified, approved, rejected, and done without. */
export const keyScenarios: Readonly<Record<string, Scenario>> = {
  'new-key': {
    world: { keys: newKeys },
    async act(incident) {
      await approve(incident, 'retract');
      const { digest } = await gateOpen(incident, 'reregister');
      const vote = { gate: 'reregister', decision: 'approve', digest, by: 'bob' };
      await decide(incident, { ...vote, fingerprint: `sha256:${'b'.repeat(64)}` });
      await decide(incident, { ...vote, fingerprint: newKeys.fingerprint });
      await waits(incident, 'testPull');
      await closeAs(incident, 'expelled');
    },
  },
  'new-key-by-host': {
    hasHost: true,
    world: { hostQueue: 'host', keys: newKeys, facts: new Map([['fact-a', 'suppress']]) },
    async act(incident) {
      await approve(incident, 'retract');
      await rejectAt(incident, 'reregister');
      const { run } = await waits(incident, 'rebindPeer');
      await incident.signal('retry', { step: 'rebindPeer', run, by: 'alice' });
      const { digest } = await gateOpen(incident, 'reregister', 2);
      await decide(incident, { gate: 'reregister', decision: 'approve', digest, by: 'bob', fingerprint: newKeys.fingerprint });
      await waits(incident, 'testPull');
      await closeAs(incident, 'expelled');
    },
  },
  backlog: {
    world: { keys: newKeys },
    async act(incident) {
      await approve(incident, 'retract');
      const { digest } = await gateOpen(incident, 'reregister');
      await decide(incident, { gate: 'reregister', decision: 'approve', digest, by: 'bob', fingerprint: newKeys.fingerprint });
      await waits(incident, 'testPull');
      await closeAs(incident, 'expelled');
    },
  },
  'backlog-by-host': {
    hasHost: true,
    world: { hostQueue: 'host', keys: newKeys, facts: new Map([['fact-a', 'suppress']]) },
    async act(incident) {
      await approve(incident, 'retract');
      const { digest } = await gateOpen(incident, 'reregister');
      await decide(incident, { gate: 'reregister', decision: 'approve', digest, by: 'bob', fingerprint: newKeys.fingerprint });
      const { run, now } = await waits(incident, 'testPull');
      const at = (of: typeof now) => of.steps.find(({ name }) => name === 'judgeBacklog')?.at;
      await incident.signal('retry', { step: 'testPull', run, by: 'alice' });
      await until(incident, (again) => at(again) !== undefined && at(again) !== at(now), 'judged anew');
      await waits(incident, 'testPull');
      await closeAs(incident, 'expelled');
    },
  },
  'no-key': {
    async act(incident, world) {
      await approve(incident, 'retract');
      const { run } = await waits(incident, 'verifyKeys');
      await incident.signal('skip', { step: 'verifyKeys', run, by: 'alice', note: 'called them' });
      await approve(incident, 'skip');
      await waits(incident, 'rebindPeer');
      world.keys = newKeys;
      await incident.signal('retry', { step: 'rebindPeer', run, by: 'alice' });
      await gateOpen(incident, 'reregister');
      await closeAs(incident, 'expelled');
    },
  },
  restored: {
    hasHost: true,
    world: { ...returning(), policy: { ...defaultPolicy, probation: true } },
    input: { peer: 'http://127.0.0.1:8802', watch: '3s' },
    async act(incident) {
      await rebound(incident);
      await rejectAt(incident, 'testPull');
      const { run } = await waits(incident, 'testPull');
      await incident.signal('retry', { step: 'testPull', run, by: 'alice' });
      await approve(incident, 'testPull');
      await waits(incident, 'watch');
      await incident.signal('extend', { for: '2s', run, by: 'bob' });
      await rejectAt(incident, 'restore');
      await waits(incident, 'watch');
      await gateOpen(incident, 'restore', 2);
      await approve(incident, 'restore');
      await incident.result();
    },
  },
  tripped: {
    hasHost: true,
    world: returning(),
    async act(incident, world) {
      await rebound(incident);
      world.trips.push({ wire: 'badFact', why: 'an instruction came', ids: ['fact-z'] });
      await approve(incident, 'testPull');
      await rebound(incident, 2);
      world.results.set('judgeArrivals', { outcome: 'unverified', detail: '1 bad' });
      await approve(incident, 'testPull');
      const { run } = await waits(incident, 'testPull');
      world.results.delete('judgeArrivals');
      await incident.signal('retry', { step: 'testPull', run, by: 'alice' });
      await approve(incident, 'testPull');
      await waits(incident, 'watch');
      await incident.signal('skip', { step: 'watch', run, by: 'alice', note: 'known good' });
      await approve(incident, 'skip');
      await gateOpen(incident, 'restore');
      await closeAs(incident, 'expelled');
    },
  },
  'test-pull-fails': {
    hasHost: true,
    world: returning(),
    async act(incident, world) {
      await rebound(incident);
      world.results.set('liftFences', { outcome: 'unverified' });
      await approve(incident, 'testPull');
      const { run } = await waits(incident, 'testPull');
      world.results.delete('liftFences');
      await incident.signal('retry', { step: 'testPull', run, by: 'alice' });
      await approve(incident, 'testPull');
      await waits(incident, 'watch');
      await closeAs(incident, 'dismissed');
    },
  },
};
