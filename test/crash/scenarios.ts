import type { Client } from '@temporalio/client';
import type { Lane } from './lane.ts';
import { Operator, type AtGate, type StartedBy } from './operator.ts';
import { peerEntityUri } from './scene.ts';

/** One way an incident can go. */
export interface Scenario {
  readonly name: string;
  /** What the policy file holds. */
  readonly policy?: object;
  /** How our node differs from the template. */
  readonly prepare?: (lane: Lane) => Promise<void>;
  /** Plays the people; resolves with every incident that took part, when all have ended. */
  readonly play: (of: Stage) => Promise<readonly Operator[]>;
}

export interface Stage {
  readonly lane: Lane;
  readonly client: Client;
  readonly id: string;
  readonly startedBy: StartedBy;
  readonly atGate: AtGate;
  /** The incident runs: what disturbs it may begin. */
  readonly begun: () => void;
}

async function opened(stage: Stage, peer = stage.lane.template.peerNodeId, suffix = ''): Promise<Operator> {
  const people = new Operator(stage.client, `${stage.id}${suffix}`, stage.atGate);
  await people.start({ peer }, stage.startedBy);
  stage.begun();
  return people;
}

const retracts = (people: Operator) => people.until('the retract gate', ({ gates = [] }) => gates.includes('retract#1'));
const undone = (people: Operator) => people.until('phase rotate', ({ phase }) => phase === 'rotate');

/** Together they reach every activity of the code; the matrix fails when they don't. */
export const scenarios: readonly Scenario[] = [
  {
    name: 'expelled',
    async play(stage) {
      const people = await opened(stage);
      // A second alert is held against the audit right before acting.
      await people.approve('retract', 1, () => people.signal('alert', { name: 'federation_handshake_failed' }));
      await undone(people);
      await people.close('expelled');
      await people.result();
      return [people];
    },
  },
  {
    name: 'dismissed',
    // Named by its entity URI, its token and its pin are known from the start; the pin comes back as it was.
    async prepare(lane) {
      const pin = { entity_uri: peerEntityUri, node_id: lane.template.peerNodeId, key_fingerprint: `sha256:${'a'.repeat(64)}` };
      const { status, body } = await lane.node.request('POST', '/v1/federation/origin-pins', pin);
      if (status > 201) throw new Error(`no pin for the scene: ${JSON.stringify(body)}`);
    },
    async play(stage) {
      const people = await opened(stage, peerEntityUri);
      await retracts(people);
      await people.close('dismissed');
      await people.result();
      return [people];
    },
  },
  {
    name: 'skipped',
    async play(stage) {
      const people = await opened(stage);
      await retracts(people);
      const { run } = await people.status();
      await people.signal('skip', { step: 'revokeKeys', run, by: 'alice', note: 'it has none' });
      await people.decide('skip');
      await people.until('the skip to count', ({ gates = [] }) => !gates.includes('skip#1'));
      await people.close('dismissed');
      await people.result();
      return [people];
    },
  },
  {
    name: 'amended',
    async play(stage) {
      const people = await opened(stage);
      await people.amend();
      await people.approve('retract', 2);
      await undone(people);
      await people.close('expelled');
      await people.result();
      return [people];
    },
  },
  {
    name: 'duplicate',
    async play(stage) {
      const holder = await opened(stage);
      await retracts(holder);
      const other = new Operator(stage.client, `${stage.id}-again`, stage.atGate);
      await other.start({ peer: stage.lane.template.peerNodeId }, stage.startedBy);
      await other.result();
      await holder.close('expelled');
      await holder.result();
      return [holder, other];
    },
  },
  {
    name: 'reminded',
    policy: { gates: { retract: { remindEvery: '2s' } } },
    async play(stage) {
      const people = await opened(stage);
      await retracts(people);
      await people.reminded();
      await people.close('expelled');
      await people.result();
      return [people];
    },
  },
];
