import type { Gate } from '../../src/contract/names.ts';
import { newKeys } from '../helpers/fake-activities.ts';
import { approve, closeAs, decide, gateOpen, until, waits, type Incident } from '../helpers/workflow-env.ts';
import type { Scenario } from './scenarios.ts';

export async function rejectAt(incident: Incident, gate: Gate): Promise<void> {
  const { digest } = await gateOpen(incident, gate);
  await decide(incident, { gate, decision: 'reject', digest, by: 'bob' });
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
};
