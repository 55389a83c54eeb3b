import { assertFact, storedFacts, waitForFact } from '../lab/federation.ts';
import type { HostilePeer } from '../lab/hostile-peer.ts';
import { waitUntil } from '../lab/processes.ts';
import { temporalBin } from '../lab/tools.ts';
import type { Waiting } from '../contract/schemas.ts';
import { poison } from './attack.ts';
import { deliveredBy, peersRow, recalled, retractionsPerFact, told } from './look.ts';
import type { Narrator } from './narrate.ts';
import type { Operator } from './operator.ts';
import { pay, type Parties } from './parties.ts';

export interface Scene {
  readonly parties: Parties;
  readonly story: Narrator;
  readonly operator: Operator;
  readonly hostile: HostilePeer;
  readonly benignIds: readonly string[];
  /** true: the gates are left to the person. */
  readonly interactive: boolean;
}

/** The alert comes: the incident starts, and nobody is asked before the bleeding stops. */
export async function alertAndContain({ parties, story, operator, hostile }: Scene): Promise<string> {
  const { ours, peer, innocent } = parties;
  story.chapter('An alert starts the incident');
  await operator.worker.start();
  await operator.cordon(
    'start',
    peer.url,
    '--alert',
    'peer_replay_burst',
    '--alert',
    'peer_capability_violation',
    '--reported-by',
    'alice',
    '--reason',
    'agents began to give odd answers',
  );
  const incident = `peer-compromise:${peer.nodeId}`;
  story.say(`Web UI: ${parties.temporal.uiUrl}/namespaces/default/workflows/${encodeURIComponent(incident)}`);
  const fenced = await operator.until(incident, 'the fence', ({ steps }) =>
    ['fenceInbound', 'fenceOutbound'].every((name) => steps.some((step) => step.name === name)),
  );
  const row = await peersRow(ours, peer.nodeId);
  story.check(
    'evidence before change',
    fenced.evidence.entries > 0 && fenced.steps[0]?.name === 'resolvePeer',
    `${fenced.evidence.entries} pieces sealed, head ${fenced.evidence.head.slice(0, 19)}…`,
  );
  story.check(
    'fence, both directions',
    String(row['ingest_tenant']).startsWith('cordon-') && row['pull_tenant'] === 'cordon-none',
    `ingest_tenant ${String(row['ingest_tenant'])}, pull_tenant ${String(row['pull_tenant'])} in the node's own row`,
  );

  story.chapter('Does the fence hold? And what does it cost?');
  const before = (await deliveredBy(ours, peer.nodeId)).length;
  await hostile.deliver([{ entity: 'stigmem://home.test/svc/refund', relation: 'memory:late', value: 'written after the fence' }]);
  await assertFact(innocent, { entity: 'stigmem://innocent.test/svc/dns', relation: 'memory:notice', value: 'dns moves tonight' });
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  const after = await deliveredBy(ours, peer.nodeId);
  story.check(
    'what the peer writes after the fence',
    after.length === before && !after.some(({ value }) => value === 'written after the fence'),
    'waited 4 pull intervals with it in the queue: it did not arrive',
  );
  const given = await hostile.pullFromUs();
  story.check('what the peer reads after the fence', given.length === 0, `its pull from us was answered with ${given.length} facts`);
  const stalled = !(await storedFacts(ours)).some(({ value }) => value === 'dns moves tonight');
  story.residual(
    'price of the HTTP fence',
    stalled,
    'as long as the fenced peer answers, this node takes nothing from the innocent peer listed after it; revoking on the host would not stall it',
  );
  const warned = (await operator.status(incident)).warnings.some((warning) => warning.includes(innocent.nodeId));
  story.check('the price is said', warned, 'status warns, names the innocent peer, and says what would not stall it');
  await operator.until(incident, 'the look at the peer itself', ({ steps }) => steps.some(({ name }) => name === 'readPeer'));
  story.say(
    "What would not stall it is a firewall rule against the peer. The demo sets none on your machine; stopping the attacker's process stands in for it.",
  );
  await hostile.stop();
  const late = await waitForFact(ours, (fact) => fact.value === 'dns moves tonight');
  const still = await peersRow(ours, peer.nodeId);
  story.check(
    'the innocent peer delivers again',
    late.receivedFrom === innocent.nodeId && String(still['ingest_tenant']).startsWith('cordon-'),
    'once our node can not reach the fenced peer; the fence is still up, nothing of the innocent peer was lost',
  );
  return incident;
}

/** A second incident for the same peer joins, whoever starts it and how. */
export async function secondIncidentJoins({ parties, story, operator }: Scene, incident: string): Promise<void> {
  story.chapter('Somebody else raises the alarm about the same peer');
  const joined = await operator.cordon('start', parties.peer.url, '--alert', 'quarantine_backlog', '--reported-by', 'carol');
  story.check('a second start joins', joined.text.includes('joined'), 'one incident for one peer, the alert was added');
  const input = JSON.stringify({ peer: parties.peer.url, alerts: [{ name: 'peer_replay_burst' }], reportedBy: 'monitoring' });
  await operator.temporal(
    temporalBin(),
    'workflow',
    'start',
    '--type',
    'PeerCompromise',
    '--task-queue',
    'stigmem-runbooks',
    '--workflow-id',
    'monitoring-77',
    '--input',
    input,
  );
  const duplicate = await operator.until('monitoring-77', 'the duplicate', ({ outcome }) => outcome !== null);
  const { alerts } = await operator.status(incident);
  story.check(
    'another id is a duplicate',
    duplicate.outcome === 'duplicate' && alerts.count >= 4,
    `monitoring-77 ended as ${duplicate.outcome}; the incident now has ${alerts.count} alerts`,
  );
}

/** The plan, and approvals as an operator gives them; the worker dies while the gate waits and in the middle of the work. */
export async function approveAndUndo(scene: Scene, incident: string): Promise<void> {
  const { parties, story, operator, interactive, benignIds } = scene;
  const { ours, peer } = parties;
  story.chapter('The plan waits for people');
  const gate = await gateOpen(operator, incident, 'retract');
  await operator.cordon('show', incident);
  await operator.cordon('plan', incident);
  const total = Number(/retract (\d+)/.exec(gate.summary)?.[1] ?? 0);

  if (interactive) story.say(`Now you: npx cordon approve ${incident} --gate retract --digest ${gate.digest.slice(0, 19)} --by <you>`);
  else {
    story.chapter('The worker is killed while the gate waits; the approval is given all the same');
    await operator.worker.kill();
    const sent = await operator.cordon(
      'approve',
      incident,
      '--gate',
      'retract',
      '--digest',
      gate.digest.slice(0, 19),
      '--by',
      'bob',
      '--note',
      'checked the list with alice',
    );
    story.check('approval with no worker alive', sent.code === 5, 'sent, and said to be unconfirmed');
    await operator.worker.start();
  }
  await waitUntil('retractions to begin', async () => (await retractionsPerFact(ours)).size > Math.min(20, total / 4), {
    timeoutMs: interactive ? 86_400_000 : 60_000,
    everyMs: 50,
  });
  story.chapter('The worker is killed in the middle of the retractions');
  await operator.worker.kill();
  const half = (await retractionsPerFact(ours)).size;
  await operator.worker.start();
  await operator.until(incident, 'the retractions', ({ steps }) => steps.some(({ name }) => name === 'verifyUndone'));
  const retractions = await retractionsPerFact(ours);
  story.check(
    'killed in the middle, each effect once',
    half < total && retractions.size === total && [...retractions.values()].every((count) => count === 1),
    `${half} retractions stood when it died, ${retractions.size} of ${total} stand now, none twice`,
  );
  const rows = await deliveredBy(ours, peer.nodeId);
  const benign = rows.filter(({ id }) => benignIds.includes(id));
  story.check(
    'benign facts survive',
    benign.length === benignIds.length && benignIds.every((id) => !retractions.has(id)),
    `${benign.length} of ${benignIds.length} untouched`,
  );
}

/** The node is asked again. On this version a retraction is not the end of it, and the story says so. */
export async function askAgain({ parties, story }: Scene): Promise<void> {
  const { ours, agentKey } = parties;
  story.chapter('The node is asked again, as an ordinary agent');
  const refund = 'stigmem://home.test/svc/refund';
  const values = await told(ours, agentKey, refund);
  story.check('facts, default query', !values.includes(poison), `${refund} no longer tells the poison`);
  const found = await recalled(ours, agentKey, poison);
  const still = found.some((value) => value.includes(poison));
  story.residual(
    'recall still answers',
    still,
    `POST /v1/recall with the poison's words still gives it to agents after the retraction; only the host can close that (expiry override)`,
  );
  const mine = await told(ours, agentKey, pay);
  story.residual(
    'our own fact on the same triple stays hidden',
    !mine.includes('restart pay with the blue button'),
    'the poison on the same entity, relation and scope hides it; retracting would hide it for good, so that fact is held, with the host operation to do by hand',
  );
}

/** Closed as expelled, behind its gate. */
export async function expel({ story, operator, interactive, parties }: Scene, incident: string): Promise<void> {
  story.chapter('The peer is expelled, behind a gate of its own');
  await operator.until(incident, 'rotate', ({ phase }) => phase === 'rotate');
  if (interactive) story.say(`Now you: npx cordon close ${incident} --outcome expelled --reason '…' --by <you>, then approve gate close`);
  else {
    await operator.cordon(
      'close',
      incident,
      '--outcome',
      'expelled',
      '--reason',
      'its key is in the hands of an attacker',
      '--by',
      'alice',
    );
    const gate = await gateOpen(operator, incident, 'close');
    await operator.cordon('approve', incident, '--gate', 'close', '--digest', gate.digest.slice(0, 19), '--by', 'bob');
  }
  const closed = await operator.until(
    incident,
    'the end',
    ({ outcome, phase }) => outcome !== null && phase === 'closed',
    interactive ? 86_400_000 : 60_000,
  );
  const row = await peersRow(parties.ours, parties.peer.nodeId);
  story.check(
    'expelled, fences in place',
    closed.outcome === 'expelled' && String(row['ingest_tenant']).startsWith('cordon-'),
    `outcome ${closed.outcome}; ${closed.residual.length} residual risks are named in the report`,
  );
}

async function gateOpen(operator: Operator, incident: string, name: string): Promise<Extract<Waiting, { kind: 'gate' }>> {
  const open = (waitingFor: readonly Waiting[]) =>
    waitingFor.flatMap((waiting) => (waiting.kind === 'gate' && waiting.gate === name ? [waiting] : []));
  const { waitingFor } = await operator.until(incident, `gate ${name}`, (now) => open(now.waitingFor).length > 0);
  const [gate] = open(waitingFor);
  if (!gate) throw new Error(`gate ${name} closed again`);
  return gate;
}
