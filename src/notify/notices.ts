import type { Mode } from '../contract/names.ts';
import type { StepOutcome } from '../contract/names.ts';
import type { Residual } from '../contract/schemas.ts';
import type { FirstBad, HeldAlert, PeerRef } from '../contract/steps.ts';
import type { Contact } from './contacts.ts';
import { firstOf, inlineCode, section } from './markdown.ts';
import type { PlanFacts } from './plan-facts.ts';

/** All a notice is built from: findings and evidence ids. */
export interface NoticeInput {
  readonly mode: Mode;
  /** What the reader quotes when they answer. */
  readonly reference: string;
  readonly at: string;
  readonly ours: { readonly contact: Contact | undefined; readonly nodeId: string };
  readonly peer: PeerRef;
  readonly alerts: readonly HeldAlert[];
  readonly steps: readonly { readonly name: string; readonly outcome: StepOutcome; readonly at: string }[];
  readonly firstBad: FirstBad | null;
  readonly residual: readonly Residual[];
  /** null when the peer's facts could not be judged. */
  readonly plan: PlanFacts | null;
  /** Who asked recall in an affected scope since the peer's first fact arrived; null when nobody can know. */
  readonly callers: readonly Caller[] | null;
}

/** One caller of recall in one scope. */
export interface Caller {
  /** null: a caller without an entity. */
  readonly caller: string | null;
  readonly scope: string;
  readonly times: number;
  /** ISO 8601, by our node's clock. */
  readonly last: string;
}

export interface Notice {
  readonly subject: string;
  readonly markdown: string;
}

const maxShown = 20;

/** What each step of Contain takes away, in the peer's words. */
const disabled: readonly (readonly [string, string])[] = [
  ['fenceInbound', 'accepting facts from your node'],
  ['fenceOutbound', 'serving facts to your node'],
  ['blockRelays', 'accepting facts of your node through other nodes'],
  ['revokeTokens', 'capability tokens issued to your node'],
  ['revokeKeys', 'API keys and agent keys issued to your entities'],
  ['lowerTrust', 'trust in your node: what it sends is quarantined'],
  ['pausePromotion', 'promotion of your facts from quarantine'],
];

/**
 * To the peer's operator: the five items of the runbook's Communicate. It may be read by an attacker, so it holds no
 * rule, plan, value, nor the name of anybody else; and a step that is not confirmed says only that, not which door
 * is still open and why.
 */
export function peerNotice(input: NoticeInput): Notice {
  const { peer, alerts, plan } = input;
  const subject = 'Your Stigmem node looks compromised or misconfigured';
  const events = [...new Set(alerts.flatMap(({ eventIds }) => eventIds))];
  const factIds = plan?.examples ?? [];
  return finish(input, subject, [
    'Your node did things that our node does not accept from a federation peer. We have cut it off until the points at the end are settled.',
    ...section(
      '1. Peer entity URI and URL',
      [
        `Entity URI: ${peer.entityUri === '' ? 'not known to us' : inlineCode(peer.entityUri)}`,
        `URL: ${inlineCode(peer.url)}`,
        `Node id: ${inlineCode(peer.nodeId)}`,
      ],
      '',
    ),
    ...section(
      '2. Alerts and when they were raised (UTC)',
      firstOf(alerts, maxShown, alertLine),
      'No alert was raised; the findings below are our own.',
    ),
    ...(input.firstBad ? ['', `First sign of bad behaviour: ${inlineCode(input.firstBad.at)}, ${firstBadFrom[input.firstBad.from]}.`] : []),
    ...section(
      '3. Examples',
      [
        ...firstOf(factIds, maxShown, (id) => `fact ${inlineCode(id)}`),
        ...firstOf(events, maxShown, (id) => `audit event ${inlineCode(id)}`),
      ],
      'No fact or audit event can be named at this time.',
    ),
    ...section(
      '4. What we disabled on our side',
      disabled.map(([step, what]) => `${what}: ${stepWords(input, step)}`),
      '',
    ),
    ...section(
      '5. What we need before we re-enable anything',
      [
        'the root cause, in writing: what happened, from when to when, and what keeps it from happening again',
        'new node keys and new issuer keys; the old ones revoked, and their capability tokens with them',
        'a new manifest, published by your node, that names the new keys and is signed with them',
        'the fingerprint of the new key (`sha256:` of its base64url public key) over another channel than your node and this one: by phone or in person, with someone we already know',
        'audit or log records of your own about the events and facts named above',
        'the ids of all facts of yours that you hold to be false, and of other nodes and keys that may be affected',
      ],
      '',
    ),
    '',
    'We will then try a small pull under watch before anything is restored.',
  ]);
}

/**
 * To the peer's operator, once the facts are dealt with: new keys, and how they will be verified. It may be read by an
 * attacker, so it holds nothing that would help to forge them.
 */
export function rotationNotice(input: NoticeInput): Notice {
  const { peer } = input;
  return finish(input, 'Please rotate the keys of your Stigmem node', [
    `We keep your node ${inlineCode(peer.nodeId)} at ${inlineCode(peer.url)} cut off until it has new keys. We look at its public documents at least once an hour; nothing has to be sent to us but the fingerprint.`,
    ...section(
      'What we ask you to do',
      [
        'rebuild the machine or make sure that nobody else is on it: a new key on a machine that is still held by somebody else is theirs as well',
        '`stigmem identity rotate-key --kind node` with STIGMEM_NODE_PRIVATE_KEY set to the key of now; it prints the new one',
        'restart the node with STIGMEM_FEDERATION_PUBKEY, STIGMEM_FEDERATION_PRIVKEY and STIGMEM_NODE_PRIVATE_KEY set to the new key: until then only its manifest changes, and that does not count',
        'revoke the capability tokens that the old key issued, and rotate issuer keys that were on the same machine',
        'tell someone we already know, by phone or in person, the fingerprint of the new key: `sha256:` and the SHA-256 of its base64url public key',
      ],
      '',
    ),
    ...section(
      'How we verify it',
      [
        'both `/.well-known/stigmem` and `/.well-known/stigmem-manifest.json` show the same new key, and it is none that was seen before',
        'the manifest is signed by that key, names your node id and your entity URI, and has not expired',
        'every rotation event from the key we know to the new one is there and signed by the key before it; where the old key is in the hands of others, come back without such a chain and say so over the phone',
        'two of our people compare the fingerprint with the one you gave them',
      ],
      '',
    ),
  ]);
}

const firstBadFrom = {
  operator: 'as reported to us',
  audit: 'from our own audit log',
  arrival: 'by the time of arrival on our own clock',
} as const;

function alertLine({ name, at, corroborated, eventIds }: HeldAlert): string {
  const when = at === null ? 'time not given' : inlineCode(at);
  const events = corroborated ? ` (${eventIds.length === 20 ? '20 or more' : eventIds.length} events)` : '';
  return `${inlineCode(name)}, ${when}: ${corroborated ? `corroborated by our audit log${events}` : 'not corroborated by our audit log'}`;
}

function stepWords({ steps }: NoticeInput, name: string): string {
  const step = steps.findLast((other) => other.name === name);
  if (step?.outcome === 'verified') return `disabled and read back, ${inlineCode(step.at)}`;
  if (step?.outcome === 'manual') return `disabled by hand and read back, ${inlineCode(step.at)}`;
  return 'not confirmed as disabled so far';
}

/** To an operator whose node pulls from ours: what may have reached them, and how to find it. */
export function downstreamNotice(input: NoticeInput, sharedScopes: readonly string[]): Notice {
  const { peer, plan } = input;
  return finish(input, 'Facts from a compromised peer may have reached your node', [
    'A federation peer of our node looks compromised. Your node may pull some of the scopes its facts lie in, so they may have reached you. Our node keeps no record of who pulled which fact.',
    ...whichPeer(peer, input.firstBad),
    ...section(
      'Scopes that you can pull and that are affected',
      sharedScopes.map((scope) => inlineCode(scope)),
      "Not known: the peer's facts could not all be judged. Look at every scope you pull from us.",
    ),
    ...section(
      'Examples',
      firstOf(plan?.examples ?? [], maxShown, (id) => `fact ${inlineCode(id)}`),
      'No fact can be named at this time.',
    ),
    ...section(
      'What we ask you to do',
      [
        "look for facts whose `origin_node_id` or `received_from` is the node id above, whatever their `source`, scope or timestamp says: those are the sender's claims",
        'do not rely on a retraction from us alone: a retracted fact can still be recalled on your node',
        'look at what your own agents derived from such facts, and at your own facts on the same entity, relation and scope: they may be hidden now',
        'tell us what you find, and whom you pass facts on to',
      ],
      '',
    ),
  ]);
}

/** To the owners of agents on our own node. */
export function localNotice(input: NoticeInput): Notice {
  const { plan, callers } = input;
  const who =
    callers === null
      ? 'Which agents recalled in these scopes is not knowable on this node: it records callers, but no route shows them. So this goes to the owners of all local agents.'
      : `${callers.length === 0 ? 'Nobody asked recall' : 'These asked recall'} in the affected scopes since the peer's first fact arrived. Which facts an answer held, and who read facts otherwise, is recorded nowhere: so this goes to the owners of all local agents.`;
  return finish(input, 'Your agents may have used facts from a compromised peer', [
    'A federation peer of our node looks compromised. Facts it delivered could be read by agents on our node.',
    ...whichPeer(input.peer, input.firstBad),
    ...section(
      'Affected scopes',
      (plan?.scopes ?? []).map((scope) => inlineCode(scope)),
      plan ? 'None found.' : "Not known: the peer's facts could not all be judged. Treat every scope as affected.",
    ),
    ...section('Agents', [who, ...firstOf(callers ?? [], 100, callerLine)], ''),
    ...section(
      'Examples',
      firstOf(plan?.examples ?? [], maxShown, (id) => `fact ${inlineCode(id)}`),
      'No fact can be named at this time.',
    ),
    ...section(
      'What we ask you to do',
      [
        'stop agents that act on facts of these scopes without a person, until the incident is closed',
        "look at what they did and wrote since the first bad time; facts they derived or copied are not undone with the peer's",
        'clear what they keep outside the node: caches, memories, prompts',
        'expect that recall and memory cards can still answer with a fact that has been retracted',
      ],
      '',
    ),
    ...section(
      'Known residual risk on our node',
      firstOf(input.residual, maxShown, ({ what, why, count }) => `${inlineCode(what, 100)} (${count}): ${inlineCode(why, 300)}`),
      'None listed so far.',
    ),
  ]);
}

function callerLine({ caller, scope, times, last }: Caller): string {
  return `${inlineCode(caller ?? 'unknown')}: ${times} times in ${inlineCode(scope)}, last ${inlineCode(last)}`;
}

function whichPeer(peer: PeerRef, firstBad: FirstBad | null): string[] {
  return section(
    'The peer',
    [
      `Entity URI: ${peer.entityUri === '' ? 'not known to us' : inlineCode(peer.entityUri)}`,
      `URL: ${inlineCode(peer.url)}`,
      `Node id: ${[...new Set([peer.nodeId, ...peer.nodeIds])].map((id) => inlineCode(id)).join(', ')}`,
      firstBad
        ? `First sign of bad behaviour: ${inlineCode(firstBad.at)}, ${firstBadFrom[firstBad.from]}`
        : 'First sign of bad behaviour: not known',
    ],
    '',
  );
}

function finish({ mode, reference, at, ours }: NoticeInput, title: string, body: readonly string[]): Notice {
  const drill = mode === 'drill';
  const signed = ours.contact ? `${inlineCode(ours.contact.name)}, ${inlineCode(ours.contact.contact)}` : 'the operator of this node';
  return {
    subject: drill ? `DRILL: ${title}` : title,
    markdown: [
      ...(drill ? ['**DRILL: a rehearsal. Nothing happened, nobody has to act, this was not sent.**', ''] : []),
      `# ${title}`,
      '',
      `Reference ${inlineCode(reference)}, written ${inlineCode(at)}.`,
      '',
      ...body,
      '',
      `From ${signed}, node ${inlineCode(ours.nodeId)}.`,
      '',
    ].join('\n'),
  };
}
