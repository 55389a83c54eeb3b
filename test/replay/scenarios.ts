import { setTimeout as sleep } from 'node:timers/promises';
import { defaultPolicy, type GatePolicy } from '../../src/contract/policy.ts';
import type { Gate } from '../../src/contract/names.ts';
import type { FakeWorld } from '../helpers/fake-activities.ts';
import { amend, approve, closeAs, decide, gateOpen, status, until, waits, type Incident } from '../helpers/workflow-env.ts';

import { keyScenarios, rejectAt } from './key-scenarios.ts';

/** One way an incident can go, as it is recorded. */
export interface Scenario {
  readonly world?: Partial<FakeWorld>;
  readonly act: (incident: Incident, world: FakeWorld) => Promise<unknown>;
  /** With a host worker on the queue of the world. */
  readonly hasHost?: boolean;
  /** What it is started with. @default only the peer */
  readonly input?: object;
}

export async function undoneAndExpelled(incident: Incident): Promise<void> {
  await approve(incident, 'retract');
  await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
  await closeAs(incident, 'expelled');
}

async function askToClose(incident: Incident, outcome: 'expelled' | 'dismissed'): Promise<void> {
  const { run } = await status(incident);
  await incident.signal('close', { outcome, run, by: 'alice', reason: 'test' });
}

const withGate = (gate: Gate, rules: Partial<GatePolicy>) => ({
  policy: { ...defaultPolicy, gates: { ...defaultPolicy.gates, [gate]: { ...defaultPolicy.gates[gate], ...rules } } },
});
const stuck = (step: string) => ({ failing: new Map([[step, { type: 'StigmemRejected' as const, times: Infinity }]]) });
/** The activity waits until the function given back is called. */
function holdUp(world: FakeWorld, activity: string): () => void {
  let goOn = (): void => undefined;
  world.held.set(activity, new Promise((resolve) => (goOn = resolve)));
  return goOn;
}
const manual = { why: 'HTTP has no way', how: 'delete them on the host' };

/** By the name of the file that holds the history. */
export const scenarios: Readonly<Record<string, Scenario>> = {
  expelled: {
    async act(incident) {
      await gateOpen(incident, 'retract');
      await incident.signal('alert', { name: 'peer_replay_burst' });
      await incident.signal('sudo', {});
      await undoneAndExpelled(incident);
    },
  },
  dismissed: {
    async act(incident) {
      await gateOpen(incident, 'retract');
      await closeAs(incident, 'dismissed');
    },
  },
  'reject-retry': {
    async act(incident) {
      await rejectAt(incident, 'retract');
      const { run } = await until(incident, ({ waitingFor }) => waitingFor.some(({ kind }) => kind === 'step'), 'held');
      await incident.signal('retry', { step: 'undoFacts', run, by: 'bob' });
      await gateOpen(incident, 'retract', 2);
      await undoneAndExpelled(incident);
    },
  },
  amend: {
    async act(incident) {
      const { digest } = await gateOpen(incident, 'retract');
      await amend(incident, { gate: 'retract', digest, keep: [{ factId: 'fact-a', justification: 'checked by phone' }], by: 'bob' });
      await gateOpen(incident, 'retract', 2);
      await undoneAndExpelled(incident);
    },
  },
  'reject-amend': {
    async act(incident) {
      const { digest } = await gateOpen(incident, 'retract');
      await rejectAt(incident, 'retract');
      await waits(incident, 'undoFacts');
      await incident.signal('amend', { gate: 'retract', digest, keep: [{ factId: 'fact-a', justification: 'checked' }], by: 'bob' });
      await gateOpen(incident, 'retract', 2);
      await undoneAndExpelled(incident);
    },
  },
  host: {
    hasHost: true,
    world: { hostQueue: 'host', facts: new Map([['fact-a', 'suppress']]) },
    act: undoneAndExpelled,
  },
  'host-dismissed': {
    hasHost: true,
    world: { hostQueue: 'host' },
    async act(incident) {
      await gateOpen(incident, 'retract');
      await closeAs(incident, 'dismissed');
    },
  },
  'host-died': { world: { hostQueue: 'nobody-here' }, act: undoneAndExpelled },
  'host-late': {
    hasHost: true,
    async act(incident, world) {
      const goOn = holdUp(world, 'pausePromotion');
      await until(incident, ({ steps }) => steps.some(({ name }) => name === 'revokeKeys'), 'contained');
      world.hostQueue = 'host';
      goOn();
      await undoneAndExpelled(incident);
    },
  },
  ...keyScenarios,
  duplicate: { world: { heldBy: 'peer-compromise:other' }, act: (incident) => incident.result() },
  park: {
    world: { failing: new Map([['collectFacts', { type: 'StigmemUnavailable', times: 1 }]]) },
    async act(incident) {
      const { run } = await until(incident, ({ state }) => state === 'parked', 'parked');
      await incident.signal('retry', { step: 'collectFacts', run, by: 'bob' });
      await undoneAndExpelled(incident);
    },
  },
  skip: {
    world: stuck('fenceOutbound'),
    async act(incident) {
      const { run } = await until(incident, ({ state }) => state === 'parked', 'parked');
      await incident.signal('skip', { step: 'fenceOutbound', run, by: 'alice', note: 'firewalled' });
      await approve(incident, 'skip');
      await undoneAndExpelled(incident);
    },
  },
  'skipped-meanwhile': {
    world: stuck('fenceOutbound'),
    async act(incident, world) {
      const { run } = await until(incident, ({ state }) => state === 'parked', 'parked');
      const goOn = holdUp(world, 'fenceOutbound');
      await incident.signal('skip', { step: 'fenceOutbound', run, by: 'alice', note: 'firewalled' });
      const { digest } = await gateOpen(incident, 'skip');
      await incident.signal('retry', { step: 'fenceOutbound', run, by: 'bob' });
      for (let underWay = false; !underWay; await sleep(25)) {
        const { raw } = await incident.describe();
        underWay = raw.pendingActivities?.some(({ activityType }) => activityType?.name === 'fenceOutbound') ?? false;
      }
      await incident.signal('approve', { gate: 'skip', digest, by: 'bob' });
      await until(incident, ({ steps }) => steps.some(({ name }) => name === 'fenceOutbound'), 'skipped');
      goOn();
      await undoneAndExpelled(incident);
    },
  },
  'cut-off': {
    world: stuck('notifyPeer'),
    async act(incident) {
      await waits(incident, 'notifyPeer');
      await closeAs(incident, 'dismissed');
    },
  },
  'in-parts': {
    world: { late: new Map([['fact-late', 'retract']]) },
    async act(incident) {
      await approve(incident, 'retract');
      const { digest } = await gateOpen(incident, 'retract', 2);
      await amend(incident, { gate: 'retract', digest, keep: [{ factId: 'fact-late', justification: 'checked' }], by: 'bob' });
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      await closeAs(incident, 'expelled');
    },
  },
  'duplicate-meanwhile': {
    world: { heldBy: 'peer-compromise:other' },
    async act(incident, world) {
      const goOn = holdUp(world, 'handOverAlerts');
      await until(incident, ({ steps }) => steps.some(({ name }) => name === 'resolvePeer'), 'resolved');
      await incident.signal('alert', { name: 'meanwhile' });
      await until(incident, ({ alerts }) => alerts.count === 1, 'the alert');
      goOn();
      await incident.result();
    },
  },
  'reject-skip': {
    world: stuck('fenceOutbound'),
    async act(incident) {
      const { run } = await until(incident, ({ state }) => state === 'parked', 'parked');
      await incident.signal('skip', { step: 'fenceOutbound', run, by: 'alice', note: 'firewalled' });
      await rejectAt(incident, 'skip');
      await until(incident, ({ waitingFor }) => waitingFor.every(({ kind }) => kind === 'step'), 'dropped');
      await incident.signal('skip', { step: 'fenceOutbound', run, by: 'alice', note: 'cable pulled' });
      await approve(incident, 'skip');
      await undoneAndExpelled(incident);
    },
  },
  'reject-close': {
    async act(incident) {
      await approve(incident, 'retract');
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      await askToClose(incident, 'expelled');
      await rejectAt(incident, 'close');
      await until(incident, ({ waitingFor }) => waitingFor.every(({ kind }) => kind === 'step'), 'dropped');
      await closeAs(incident, 'expelled');
    },
  },
  'reject-restore': {
    async act(incident) {
      await gateOpen(incident, 'retract');
      await askToClose(incident, 'dismissed');
      await rejectAt(incident, 'restore');
      await until(
        incident,
        ({ waitingFor }) => !waitingFor.some((waiting) => waiting.kind === 'gate' && waiting.gate === 'restore'),
        'dropped',
      );
      await closeAs(incident, 'dismissed');
    },
  },
  'by-signal': {
    world: withGate('retract', { need: 2 }),
    async act(incident) {
      const { digest } = await gateOpen(incident, 'retract');
      for (const by of ['bob', 'carol']) await incident.signal('approve', { gate: 'retract', digest, by });
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      await askToClose(incident, 'expelled');
      const close = await gateOpen(incident, 'close');
      await incident.signal('approve', { gate: 'close', digest: close.digest, by: 'bob' });
      await incident.result();
    },
  },
  expiry: {
    world: withGate('retract', { expiresAfter: '2s', remindEvery: '1s' }),
    async act(incident) {
      await gateOpen(incident, 'retract', 2);
      await undoneAndExpelled(incident);
    },
  },
  late: {
    world: { late: new Map([['fact-late', 'retract']]), pause: { ms: 500, why: 'the write quota' } },
    async act(incident) {
      await approve(incident, 'retract');
      await gateOpen(incident, 'retract', 2);
      await undoneAndExpelled(incident);
    },
  },
  done: {
    world: { results: new Map([['revokeKeys', { outcome: 'unverified', way: 'manual', detail: 'by hand', manual }]]) },
    async act(incident) {
      const { run } = await waits(incident, 'revokeKeys');
      await gateOpen(incident, 'retract');
      await incident.signal('done', { step: 'revokeKeys', run, by: 'bob', note: 'deleted' });
      await until(incident, ({ waitingFor }) => waitingFor.some((w) => w.kind === 'step' && w.why.includes('read-back')), 'read back');
      await undoneAndExpelled(incident);
    },
  },
  refused: {
    async act(incident) {
      const { digest } = await gateOpen(incident, 'retract');
      const run = 'ffffffff-none';
      const stale = { gate: 'retract', digest: `sha256:${'0'.repeat(64)}`, by: 'mallory' };
      await Promise.all([
        incident.signal('approve', stale),
        incident.signal('reject', { ...stale, gate: 'made-up' }),
        incident.signal('amend', { ...stale, keep: [{ factId: 'fact-a', justification: 'mine' }] }),
        incident.signal('retry', { step: 'undoFacts', run, by: 'mallory' }),
        incident.signal('close', { outcome: 'dismissed', run, by: 'mallory', reason: 'let me in' }),
        incident.signal('approve', [1, 2]),
        incident.signal('sudo', {}),
        decide(incident, { ...stale, decision: 'approve' }),
        incident.signal('note', { by: 'alice', text: 'somebody tries' }),
      ]);
      await until(incident, ({ refused }) => refused.count === 8, 'refused');
      await decide(incident, { gate: 'retract', decision: 'approve', digest, by: 'bob' });
      await until(incident, ({ phase }) => phase === 'rotate', 'rotate');
      await closeAs(incident, 'expelled');
    },
  },
  'cancel-request': {
    async act(incident) {
      await gateOpen(incident, 'retract');
      await incident.cancel();
      await until(incident, ({ warnings }) => warnings.length > 0, 'the record');
      await undoneAndExpelled(incident);
    },
  },
};
