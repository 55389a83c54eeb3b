import { condition, setHandler, workflowInfo } from '@temporalio/workflow';
import { digestMatches, gateDigest } from '../../src/contract/canonical.ts';
import * as messages from '../../src/contract/messages.ts';
import type { Refusal } from '../../src/contract/names.ts';
import { Alert, Amendment, CloseRequest, Decision, Note, StepMessage, type Status, type Vote } from '../../src/contract/schemas.ts';

/** Speaks every message of the contract about one made-up plan, for tests of the program that sends them. */
export async function PeerCompromise(): Promise<void> {
  const { workflowId, runId } = workflowInfo();
  const at = '2026-11-23T01:00:00Z';
  let opening = 1;
  let alerts = 0;
  const voters: string[] = [];
  const notes: Status['notes'] = [];
  const refused: Status['refused'] = { count: 0, last: [] };
  const digest = () => gateDigest({ gate: 'retract', opening, planHash: `sha256:${'1'.repeat(64)}`, runId });
  const refuse = (because: Refusal, by: string, detail = '') => {
    refused.count += 1;
    refused.last = [...refused.last, { at, by, because, detail }];
    return because;
  };
  const vote = (given: Vote) => {
    const answer = { have: voters.length, need: 2, digest: digest() };
    if (!digestMatches(given.digest, digest())) {
      return { ...answer, accepted: false, refusedBecause: refuse('stale_digest', given.by) };
    }
    if (voters.includes(given.by)) return { ...answer, accepted: false, refusedBecause: refuse('already_counted', given.by) };
    voters.push(given.by);
    return { ...answer, have: voters.length, accepted: true };
  };
  const amend = (payload: unknown) => {
    const given = Amendment.parse(payload);
    if (!digestMatches(given.digest, digest())) return { accepted: false, refusedBecause: refuse('stale_digest', given.by) };
    opening += 1;
    return { accepted: true, digest: digest() };
  };
  setHandler(messages.decideUpdate, (payload) => vote(Decision.parse(payload)));
  setHandler(messages.amendUpdate, amend);
  setHandler(messages.amendSignal, (payload) => void amend(payload));
  setHandler(messages.approveSignal, (payload) => void vote(Decision.omit({ decision: true }).parse(payload)));
  setHandler(messages.rejectSignal, (payload) => void vote(Decision.omit({ decision: true }).parse(payload)));
  setHandler(messages.alertSignal, (payload) => {
    Alert.parse(payload);
    alerts += 1;
  });
  setHandler(messages.noteSignal, (payload) => void notes.push({ at, ...Note.parse(payload) }));
  const aboutStep = (payload: unknown) => {
    const { by, run, step } = StepMessage.parse(payload);
    if (!runId.startsWith(run)) refuse('stale_run', by, step);
    if (by === 'mallory') refuse('not_allowed', by, step);
  };
  for (const signal of [messages.retrySignal, messages.doneSignal, messages.skipSignal]) setHandler(signal, aboutStep);
  setHandler(messages.closeSignal, (payload) => void CloseRequest.parse(payload));
  setHandler(messages.planQuery, () => ({
    gate: 'retract' as const,
    opening,
    digest: digest(),
    planHash: `sha256:${'1'.repeat(64)}`,
    counts: { retract: 1 },
    items: [
      {
        id: 'f-1',
        entity: 'agent:\u001b[2Jx',
        relation: 'r',
        scope: 'team',
        action: 'retract',
        way: 'http',
        rule: 'burst',
        reason: 'why',
        evidence: [],
      },
    ],
  }));
  setHandler(messages.statusQuery, () => ({
    incident: workflowId,
    run: runId,
    mode: 'live' as const,
    peer: { nodeId: 'node', url: 'http://127.0.0.1:1', entityUri: 'e', peerIds: [] },
    phase: 'retract' as const,
    round: 1,
    state: 'waiting' as const,
    outcome: null,
    waitingFor: [
      {
        kind: 'gate' as const,
        gate: 'retract' as const,
        opening,
        digest: digest(),
        have: voters.length,
        need: 2,
        since: at,
        expiresAt: '2126-11-23T01:00:00Z',
        summary: 'retract 1',
        how: 'cordon approve',
      },
    ],
    steps: [
      {
        name: 'fenceInbound',
        phase: 'contain' as const,
        round: 1,
        outcome: 'unverified' as const,
        way: 'http' as const,
        at,
        detail: 'set\u001b[31m red',
      },
    ],
    residual: [{ what: 'recall', why: 'x'.repeat(200), count: 3 }],
    coverage: [],
    refused,
    evidence: { head: `sha256:${'2'.repeat(64)}`, entries: 1 },
    firstBadAt: null,
    alerts: { count: alerts, corroborated: 0 },
    notes,
    warnings: [],
  }));
  await condition(() => false);
}
