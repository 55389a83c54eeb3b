import { assertFact, storedFacts, waitForFact } from '../lab/federation.ts';
import type { HostilePeer } from '../lab/hostile-peer.ts';
import { waitUntil } from '../lab/processes.ts';
import { temporalBin } from '../lab/tools.ts';
import type { Waiting } from '../contract/schemas.ts';
import { backdoor, poison } from './attack.ts';
import { cardOf, deliveredBy, peersRow, recalled, retractionsPerFact, suppressionsPerFact, told } from './look.ts';
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
  /** true: no host worker. */
  readonly httpOnly: boolean;
}

/** The alert comes: the incident starts, and nobody is asked before the bleeding stops. */
export async function alertAndContain(scene: Scene): Promise<string> {
  const { parties, story, operator, hostile, httpOnly } = scene;
  const { ours, peer, innocent } = parties;
  story.chapter('An alert starts the incident');
  await Promise.all([operator.worker.start(), httpOnly ? undefined : operator.hostWorker.start()]);
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
    isFenced(scene, row),
    `status ${String(row['status'])}, ingest_tenant ${String(row['ingest_tenant'])}, pull_tenant ${String(row['pull_tenant'])} in the node's own row`,
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
  await (httpOnly ? priceOfTheHttpFence(scene, incident) : doorOnTheHost(scene));
  await operator.until(incident, 'the look at the peer itself', ({ steps }) => steps.some(({ name }) => name === 'readPeer'));
  if (httpOnly)
    story.say(
      "What would not stall it is a firewall rule against the peer, or a host worker. The demo sets no rule on your machine; stopping the attacker's process stands in for it.",
    );
  await hostile.stop();
  const late = await waitForFact(ours, (fact) => fact.value === 'dns moves tonight');
  story.check(
    'nothing of the innocent peer was lost',
    late.receivedFrom === innocent.nodeId && isFenced(scene, await peersRow(ours, peer.nodeId)),
    httpOnly ? 'it delivers again once our node can not reach the fenced peer' : 'and the door is still shut',
  );
  return incident;
}

function isFenced({ httpOnly }: Scene, row: Record<string, unknown>): boolean {
  if (!httpOnly) return row['status'] === 'revoked';
  return String(row['ingest_tenant']).startsWith('cordon-') && row['pull_tenant'] === 'cordon-none';
}

async function priceOfTheHttpFence({ parties, story, operator, hostile }: Scene, incident: string): Promise<void> {
  const { ours, innocent } = parties;
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
}

async function doorOnTheHost({ parties, story, hostile }: Scene): Promise<void> {
  const { ours, innocent, peerApiKey } = parties;
  const pull = await hostile.pullScope('company');
  story.check('what the peer reads after the fence', pull.status === 401, `its pull from us was answered ${pull.status}`);
  const fact = (await storedFacts(ours)).find(({ value }) => value === 'dns moves tonight');
  story.check(
    'the innocent peer keeps delivering',
    fact?.receivedFrom === innocent.nodeId,
    'while the fenced one still answers with a backlog: a revoked row is not asked at all',
  );
  const read = await ours.request('GET', '/v1/facts?limit=1', undefined, peerApiKey);
  story.check("the peer's API key", read.status === 401, `answered ${read.status}: no fence touches a key, so it was revoked on the host`);
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
  const { parties, story, operator, interactive, benignIds, httpOnly } = scene;
  const { ours, peer } = parties;
  story.chapter('The plan waits for people');
  const gate = await gateOpen(operator, incident, 'retract');
  await operator.cordon('show', incident);
  await operator.cordon('plan', incident);
  const planned = (action: string): number => Number(new RegExp(`${action} (\\d+)`).exec(gate.summary)?.[1] ?? 0);
  // What is rejected in quarantine is let expire on the host too.
  const total = httpOnly ? planned('retract') : planned('suppress') + planned('reject');
  const effects = () => (httpOnly ? retractionsPerFact(ours) : suppressionsPerFact(ours));
  const word = httpOnly ? 'retractions' : 'suppressions';
  const atOnce = httpOnly ? Math.min(20, total / 4) : 0;

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
  await waitUntil(`${word} to begin`, async () => (await effects()).size > atOnce, {
    timeoutMs: interactive ? 86_400_000 : 60_000,
    everyMs: 50,
  });
  story.chapter(`${httpOnly ? 'The worker is' : 'Both workers are'} killed in the middle of the ${word}`);
  await Promise.all([operator.worker.kill(), httpOnly ? undefined : operator.hostWorker.kill()]);
  const half = (await effects()).size;
  await Promise.all([operator.worker.start(), httpOnly ? undefined : operator.hostWorker.start()]);
  await operator.until(incident, `the ${word}`, ({ steps }) => steps.some(({ name }) => name === 'verifyUndone'));
  const made = await effects();
  story.check(
    'killed in the middle, each effect once',
    // On the host it is one change for up to 500 facts: it may be over before anybody can be killed.
    (!httpOnly || half < total) && made.size === total && [...made.values()].every((count) => count === 1),
    `${half} ${word} stood when it died, ${made.size} of ${total} stand now, none twice`,
  );
  const rows = await deliveredBy(ours, peer.nodeId);
  const benign = rows.filter(({ id }) => benignIds.includes(id));
  story.check(
    'benign facts survive',
    benign.length === benignIds.length && benignIds.every((id) => !made.has(id)),
    `${benign.length} of ${benignIds.length} untouched`,
  );
}

/** The node is asked again. On this version a retraction is not the end of it, and the story says so. */
export async function askAgain({ parties, story, httpOnly }: Scene): Promise<void> {
  const { ours, agentKey } = parties;
  story.chapter('The node is asked again, as an ordinary agent');
  const refund = 'stigmem://home.test/svc/refund';
  const values = await told(ours, agentKey, refund);
  story.check('facts, default query', !values.includes(poison), `${refund} no longer tells the poison`);
  story.check(
    'what its API key wrote is undone',
    !(await told(ours, agentKey, backdoor.entity)).includes(backdoor.value),
    `${backdoor.entity} was written here with a key once issued to the peer; the default query no longer tells it`,
  );
  const found = await recalled(ours, agentKey, poison);
  const still = found.filter((value) => value.includes(poison));
  const mine = (await told(ours, agentKey, pay)).includes('restart pay with the blue button');
  if (httpOnly) {
    story.residual(
      'recall still answers',
      still.length > 0,
      `POST /v1/recall with the poison's words still gives it to agents after the retraction; only the host can close that (expiry override)`,
    );
    story.residual(
      'our own fact on the same triple stays hidden',
      !mine,
      'the poison on the same entity, relation and scope hides it; retracting would hide it for good, so that fact is held, with the host operation to do by hand',
    );
    return;
  }
  story.check(
    'direct recall is at zero',
    still.length === 0,
    `POST /v1/recall with the poison's own words answers ${still.length} times with it`,
  );
  story.check('our own fact is shown again', mine, 'the poison on the same entity, relation and scope hid it');
  const card = await cardOf(ours, agentKey, refund);
  story.check('its memory card', !card.includes(poison), `GET /v1/cards for ${refund} gives the card that the host worker wrote`);
  const anew = await cardOf(ours, agentKey, refund, true);
  story.residual(
    'a card made anew tells it',
    anew.includes(poison),
    'asked with refresh=true, or after the next write on the entity, the node builds the card from raw rows; recall leaves it out all the same, and the report says so',
  );
}

/** Closed as expelled, behind its gate. */
export async function expel(scene: Scene, incident: string): Promise<void> {
  const { story, operator, interactive, parties } = scene;
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
    closed.outcome === 'expelled' && isFenced(scene, row),
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
