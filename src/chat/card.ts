import { toUSVString } from 'node:util';
import type { types } from '@slack/bolt';
import { z } from 'zod';
import { isGate, type Gate } from '../contract/names.ts';
import { fit, fields, note, plain, section } from './blocks.ts';

/** One opening of one gate, as a card tells it. */
export interface Opening {
  readonly incident: string;
  readonly run: string;
  readonly mode: 'live' | 'drill';
  readonly peer: string;
  readonly phase: string;
  readonly round: number;
  readonly gate: Gate;
  readonly opening: number;
  readonly digest: string;
  readonly have: number;
  readonly need: number;
  readonly since: string;
  readonly expiresAt: string;
  readonly summary: string;
  /** Evidence id of the plan, or of the head of the chain where the plan is inline. */
  readonly evidence: string;
  /** Who approved so far. */
  readonly approvedBy: readonly string[];
}

/** How an opening ended. */
export interface Ending {
  readonly how: 'approved' | 'rejected' | 'expired' | 'superseded' | 'closed';
  readonly by: readonly string[];
  readonly detail: string;
}

export interface CardOptions {
  /** May a click decide? */
  readonly decisions: boolean;
  readonly uiUrl: string | undefined;
  readonly namespace: string;
}

export const actions = { approve: 'cordon_approve', reject: 'cordon_reject', open: 'cordon_open' } as const;

/** What a click on Approve leads to. */
const meaning: Readonly<Record<Gate, string>> = {
  retract: 'Approve: the facts in the plan are undone on our node, each in the way the plan names.',
  reregister: 'Approve: the peer is registered again, fenced. It takes the fingerprint that people brought from outside.',
  testPull: 'Approve: the fence opens for a short, watched pull, and closes again.',
  restore: 'Approve: the fences are lifted, trust is restored, the peer delivers again.',
  close: 'Approve: the incident ends as expelled; every fence stays, the peer never comes back.',
  skip: 'Approve: the incident goes on without this step, and what it would have closed stays open.',
};

const ended: Readonly<Record<Ending['how'], string>> = {
  approved: 'APPROVED',
  rejected: 'REJECTED',
  expired: 'EXPIRED: nothing was decided, its votes are void',
  superseded: 'SUPERSEDED: the plan or the run is another one now; see the newer card',
  closed: 'CLOSED: this no longer waits for anybody',
};

/** The digest's first 12 digits: what people compare. */
export function shortDigest(digest: string): string {
  return digest.slice('sha256:'.length, 'sha256:'.length + 12);
}

/** The card of an opening that waits, or of one that has ended. Everything from outside stands in plain text only. */
export function cardBlocks(opening: Opening, options: CardOptions, ending?: Ending): types.KnownBlock[] {
  const { gate, incident, peer, run } = opening;
  const drill = opening.mode === 'drill' ? 'DRILL · ' : '';
  const head = ending === undefined ? `${drill}Gate ${gate} waits: ${peer}` : `${drill}Gate ${gate}: ${ending.how}`;
  const known = [
    ['Peer', peer],
    ['Phase', `${opening.phase}, round ${opening.round}`],
    ['Incident', incident],
    ['Run', run],
    ['Plan', opening.summary],
    ['Digest, to compare', shortDigest(opening.digest)],
    ['Opening', `${opening.opening}, since ${utc(opening.since)}`],
    ['Expires', utc(opening.expiresAt)],
    ['Approvals', `${opening.have} of ${opening.need}`],
    ['Evidence', opening.evidence],
  ] as const;
  const votes =
    opening.approvedBy.length === 0
      ? `${opening.have} of ${opening.need} approved`
      : `${opening.have} of ${opening.need} approved: ${opening.approvedBy.join(', ')}`;
  const link = uiLink(options, incident, run);
  const open = link === undefined ? [] : [button('Open in Temporal', actions.open, { url: link })];
  if (ending !== undefined) {
    const by = ending.by.length === 0 ? '' : ` by ${ending.by.join(', ')}`;
    return [
      { type: 'header', text: plain(head, 150) },
      section(`${ended[ending.how]}${by}${ending.detail === '' ? '' : `\n${ending.detail}`}`),
      ...fields(known.filter(([name]) => name !== 'Expires' && name !== 'Approvals')),
      note(opening.digest),
      ...(open.length === 0 ? [] : [{ type: 'actions' as const, elements: open }]),
    ];
  }
  const buttons = [...(options.decisions ? decisionButtons(opening) : []), ...open];
  return [
    { type: 'header', text: plain(head, 150) },
    section(meaning[gate]),
    ...fields(known),
    note(opening.digest),
    note(votes),
    ...(buttons.length === 0 ? [] : [{ type: 'actions' as const, elements: buttons }]),
    ...(options.decisions && gate !== 'reregister' ? [] : [note(otherWay(opening, options))]),
  ];
}

/** Above the blocks, in notifications. Slack reads this one as markup: no word of it comes from outside. */
export function cardText(opening: Opening, ending?: Ending): string {
  return ending === undefined ? `cordon: gate ${opening.gate} waits for a decision` : `cordon: gate ${opening.gate}: ${ending.how}`;
}

function decisionButtons(opening: Opening): types.Button[] {
  const { gate, digest, summary, peer, have, need } = opening;
  const value = buttonValue(opening);
  const confirm = (verb: 'Approve' | 'Reject'): types.ConfirmationDialog => ({
    title: plain(`${verb} gate ${gate}?`, 100),
    text: plain(`Plan ${shortDigest(digest)}: ${fit(summary, 120)}. Peer ${fit(peer, 80)}. ${have} of ${need} approvals so far.`, 300),
    confirm: plain(verb, 30),
    deny: plain('Not now', 30),
    style: 'danger',
  });
  const approve = button('Approve', actions.approve, { value, style: 'danger', confirm: confirm('Approve') });
  const reject = button('Reject', actions.reject, { value, confirm: confirm('Reject') });
  // A click can't carry the fingerprint that this gate takes.
  return gate === 'reregister' ? [reject] : [approve, reject];
}

function otherWay({ gate, digest, incident }: Opening, { decisions }: CardOptions): string {
  const short = `sha256:${shortDigest(digest)}`;
  return decisions
    ? `Approve with the fingerprint: /cordon approve ${incident} ${gate} ${short} --fingerprint sha256:…`
    : `Chat only tells here. On a terminal: cordon approve ${incident} --gate ${gate} --digest ${short} --by YOU`;
}

function button(text: string, actionId: string, more: Partial<types.Button>): types.Button {
  return { type: 'button', text: plain(text, 75), action_id: actionId, ...more };
}

function uiLink({ uiUrl, namespace }: CardOptions, incident: string, run: string): string | undefined {
  if (uiUrl === undefined) return undefined;
  const [space = '', id = '', runId = ''] = [namespace, incident, run].map((part) => encodeURIComponent(toUSVString(part)));
  const link = `${uiUrl}/namespaces/${space}/workflows/${id}/${runId}/history`;
  return link.length <= 3_000 ? link : undefined;
}

/** What a button says was clicked: gate, whole digest and incident. Ids have at most 1,000 characters, a value 2,000. */
export function buttonValue({ gate, digest, incident }: Pick<Opening, 'gate' | 'digest' | 'incident'>): string {
  return `${gate} ${digest} ${incident}`;
}

export const ButtonValue = z
  .string()
  .max(2_000)
  .regex(/^[a-zA-Z]{1,50} sha256:[0-9a-f]{64} [^]{1,1000}$/, "a value of cordon's own button")
  .transform((text) => {
    const [gate = '', digest = ''] = text.split(' ', 2);
    return { gate, digest, incident: text.slice(gate.length + digest.length + 2) };
  })
  .refine(({ gate }) => isGate(gate), 'a gate of the runbook');

function utc(iso: string): string {
  const at = Date.parse(iso);
  return Number.isNaN(at) ? iso : `${new Date(at).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}
