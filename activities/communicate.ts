import type { Gate, StepOutcome } from '../src/contract/names.ts';
import type { Coverage, Residual } from '../src/contract/schemas.ts';
import type { Announcement, EvidenceHead, FirstBad, HeldAlert, IncidentRef, PeerRef, StepResult } from '../src/contract/steps.ts';
import { sha256Hex } from '../src/evidence/canonical.ts';
import { agentOwners, ContactsError, loadContacts, operatorOf, type Contacts } from '../src/notify/contacts.ts';
import { downstreamNotice, localNotice, peerNotice, rotationNotice, type NoticeInput } from '../src/notify/notices.ts';
import { readPlanFacts, type PlanFacts } from '../src/notify/plan-facts.ts';
import { readRecallers } from './facts/recallers.ts';
import { assertBoundNode, cancelSignal, effectKey, evidenceOf, headOf, seal, type Deps } from './deps.ts';
import { deliver, post, type Draft, type Sent } from './deliver.ts';
import { StepFailure } from './failures.ts';

/** What the workflow knows when it notifies. */
interface NoticeFacts {
  readonly peer: PeerRef | null;
  readonly alerts: readonly HeldAlert[];
  readonly steps: readonly { readonly name: string; readonly outcome: StepOutcome; readonly at: string }[];
  readonly firstBad: FirstBad | null;
  readonly plan: { readonly evidenceId: string } | null;
  readonly coverage: readonly Coverage[];
  readonly residual: readonly Residual[];
}

interface Ask {
  readonly ref: IncidentRef;
  readonly facts: NoticeFacts;
  /** A person says it was sent: only look whether the notice is still the one that was written. */
  readonly readBack?: boolean;
}

/** Communicate: notices built only from findings and evidence ids, kept as files, posted when a webhook is set. */
export function communicateActivities(deps: Deps) {
  /** "Notify the peer operator with: …" */
  async function notifyPeer({ ref, facts, readBack = false }: Ask): Promise<StepResult> {
    const contacts = await contactsOf(deps);
    const input = await inputOf(deps, ref, facts, contacts);
    const { peer } = input;
    const to = operatorOf(contacts, { nodeIds: [peer.nodeId, ...peer.nodeIds], urls: [peer.url], entityUri: peer.entityUri });
    const draft: Draft = {
      item: 'notice-peer',
      notice: peerNotice(input),
      to: to ? [to] : [],
      lookUp: `the operator of the peer ${quoted(peer.url)}, node id ${quoted(peer.nodeId)}: your federation agreement, or the abuse and security contacts of its domain (not the node itself, which may be in the attacker's hands); then add them under "peers" in the contacts file`,
    };
    return settle(deps, ref, await deliver(deps, ref, [draft], readBack), "the peer's operator");
  }

  /** "If compromised data may have reached downstream peers, notify those operators too." */
  async function notifyDownstream({ ref, facts, readBack = false }: Ask): Promise<StepResult> {
    const contacts = await contactsOf(deps);
    const input = await inputOf(deps, ref, facts, contacts);
    const { plan, peer } = input;
    const own = new Set([peer.nodeId, ...peer.nodeIds]);
    const listed = await deps.node.peers(cancelSignal());
    // Another node's peers are other people: nobody of theirs is to be told.
    await assertBoundNode(deps, ref);
    const active = listed.filter(({ status, node_id: id }) => status === 'active' && !own.has(id));
    const sharedWith = (allowed: readonly string[]) => plan?.scopes.filter((scope) => allowed.includes(scope)) ?? [];
    // Facts that could not be judged may lie in any scope: then everybody who can pull is told.
    const known = plan !== null && plan.unreadable === 0;
    const affected = active.filter(({ allowed_scopes: allowed }) => allowed.length > 0 && (!known || sharedWith(allowed).length > 0));
    const coverage: Coverage = {
      what: 'downstream peers that may have pulled bad facts',
      seen: affected.length,
      complete: false,
      why: `by allowed scopes only, of ${active.length} other active peers: this node keeps no record of who pulled what${known ? '' : ', and the affected scopes are not all known'}`,
    };
    const drafts = affected.map(({ node_id: id, node_url: url, allowed_scopes: allowed }): Draft => {
      const to = operatorOf(contacts, { nodeIds: [id], urls: [url], entityUri: '' });
      return {
        // The node_id is the other operator's choice: its hash is safe in a file's name.
        item: `notice-downstream-${sha256Hex(id).slice(0, 12)}`,
        notice: downstreamNotice(input, sharedWith(allowed)),
        to: to ? [to] : [],
        lookUp: `the operator of the node ${quoted(url)}, node id ${quoted(id)}; then add them under "downstream" in the contacts file`,
      };
    });
    return settle(deps, ref, await deliver(deps, ref, drafts, readBack), 'operators of downstream peers', [coverage]);
  }

  /** Agents are downstream too: the owners of those that recalled in the affected scopes. */
  async function notifyLocal({ ref, facts, readBack = false }: Ask): Promise<StepResult> {
    const contacts = await contactsOf(deps);
    const known = await inputOf(deps, ref, facts, contacts);
    const scopes = known.plan?.unreadable === 0 ? known.plan.scopes : undefined;
    const recallers = await readRecallers(deps, ref);
    const callers = recallers && recallers.filter(({ scope }) => scopes === undefined || scopes.includes(scope));
    const input = { ...known, callers };
    const coverage: Coverage = {
      what: 'local agents that recalled in the affected scopes',
      seen: new Set(callers?.map(({ caller }) => caller)).size,
      complete: false,
      // stigmem-node 0.9.0a12: routes/recall/common.py inserts into recall_audit_log; no route reads it.
      why: callers
        ? 'by recall_audit_log on the host (caller, scope, time; no fact ids); who read facts otherwise is recorded nowhere'
        : 'not knowable on this node over HTTP: it writes recall_audit_log (caller, scope, time; no fact ids), and no route shows it',
    };
    if (input.plan?.affected === 0 && input.plan.unreadable === 0) {
      return settle(deps, ref, await deliver(deps, ref, [], readBack), 'owners of local agents (no fact of the peer is bad)', [coverage]);
    }
    const draft: Draft = {
      item: 'notice-local',
      notice: localNotice(input),
      to: agentOwners(contacts),
      lookUp:
        'the owners of the agents that hold keys on your node; then add them under "agents" in the contacts file, by entity URI prefix',
    };
    return settle(deps, ref, await deliver(deps, ref, [draft], readBack), 'owners of local agents', [coverage]);
  }

  /** "Ask the peer operator to rotate compromised node or issuer keys." */
  async function requestRotation({ ref, facts, readBack = false }: Ask): Promise<StepResult> {
    const contacts = await contactsOf(deps);
    const input = await inputOf(deps, ref, facts, contacts);
    const { peer } = input;
    const to = operatorOf(contacts, { nodeIds: [peer.nodeId, ...peer.nodeIds], urls: [peer.url], entityUri: peer.entityUri });
    const draft: Draft = {
      item: 'notice-rotation',
      notice: rotationNotice(input),
      to: to ? [to] : [],
      lookUp: `the operator of the peer ${quoted(peer.url)}, node id ${quoted(peer.nodeId)}, whom the first notice went to`,
    };
    return settle(deps, ref, await deliver(deps, ref, [draft], readBack), "the peer's operator, about new keys");
  }

  /** Tells people something they should know now, where they look. Without a webhook the status alone says it. */
  async function announce({ ref, kind, text }: Announcement): Promise<{ readonly evidence: EvidenceHead }> {
    const store = await evidenceOf(deps, ref);
    if (deps.webhookUrl === undefined || ref.mode === 'drill') {
      return { evidence: { head: await store.head(), entries: (await store.entries()).length } };
    }
    const item = `announce-${kind}-${ref.at}`;
    const said = {
      kind: 'announcement',
      incident: ref.incident,
      mode: ref.mode,
      about: kind,
      text: `${text} Look: cordon show ${ref.incident}`,
    };
    const receipt = await post(deps, effectKey(ref, item), said);
    return { evidence: headOf(await seal(deps, ref, item, 'reminder', { about: kind, text, receipt })) };
  }

  /** A gate waits, or its opening expired: says so where people look. Without a webhook the status alone says it. */
  async function remind(of: {
    ref: IncidentRef;
    gate: Gate;
    why: 'waiting' | 'expired' | 'mismatch';
    opening: number;
    digest: string;
    summary: string;
    have: number;
    need: number;
  }): Promise<{ readonly evidence: EvidenceHead }> {
    const { ref, gate, why, opening, digest, summary, have, need } = of;
    const store = await evidenceOf(deps, ref);
    if (deps.webhookUrl === undefined || ref.mode === 'drill') {
      return { evidence: { head: await store.head(), entries: (await store.entries()).length } };
    }
    const short = digest.slice(0, 'sha256:'.length + 12);
    const how = `cordon approve ${ref.incident} --gate ${gate} --digest ${short} --by <you>`;
    const said = {
      waiting: `waits (opening ${opening})`,
      expired: `expired; its votes are void and opening ${opening} is open`,
      mismatch: `ALARM: a fingerprint was brought that is not that of the key the peer shows (opening ${opening})`,
    }[why];
    const text = `Gate ${gate} ${said}: ${have} of ${need} approvals. ${summary} Look first: cordon plan ${ref.incident} --gate ${gate}. Then: ${how}`;
    const item = `remind-${gate}-${opening}-${why}-${ref.at}`;
    const receipt = await post(deps, effectKey(ref, item), {
      kind: 'reminder',
      incident: ref.incident,
      mode: ref.mode,
      gate,
      why,
      opening,
      digest,
      have,
      need,
      how,
      text,
    });
    return { evidence: headOf(await seal(deps, ref, item, 'reminder', { gate, why, opening, digest, have, need, receipt })) };
  }

  return { notifyPeer, notifyDownstream, notifyLocal, requestRotation, announce, remind };
}

/** How the step ended, said in terms of what was really seen: a file, its hash, a webhook's answer. */
async function settle(
  deps: Deps,
  ref: IncidentRef,
  sent: readonly Sent[],
  whom: string,
  coverage: readonly Coverage[] = [],
): Promise<StepResult> {
  const store = await evidenceOf(deps, ref);
  const common = { coverage, evidence: { head: await store.head(), entries: (await store.entries()).length } };
  if (sent.length === 0) return { ...common, outcome: 'verified', way: 'none', detail: `${whom}: 0 notices are due` };
  const open = sent.filter(({ state }) => state.kind === 'open');
  const detail = `${whom}: ${sent.map(({ file, state }) => `${file}: ${state.said}`).join('; ')}`.slice(0, 2_000);
  if (ref.mode === 'drill') return { ...common, outcome: 'unverified', way: 'none', detail };
  const [first] = open;
  if (!first) return { ...common, outcome: 'verified', way: sent.some(({ state }) => state.kind === 'posted') ? 'http' : 'manual', detail };
  const how = open
    .map(({ how: todo }) => todo)
    .join(' ')
    .slice(0, 4_000);
  return {
    ...common,
    outcome: 'unverified',
    way: 'manual',
    detail,
    manual: { why: `${open.length} of ${sent.length} notices to ${whom} are written and not sent: ${first.state.said}`, how },
    residual: [{ what: `notices to ${whom}`, why: 'written, not confirmed as sent', count: open.length }],
  };
}

async function inputOf(
  deps: Deps,
  ref: IncidentRef,
  facts: NoticeFacts,
  contacts: Contacts,
): Promise<NoticeInput & { readonly plan: PlanFacts | null }> {
  const { peer, alerts, steps, firstBad, residual } = facts;
  // The workflow notifies only after the peer was resolved.
  if (!peer) throw new StepFailure('InvalidInput', 'facts.peer: expected the peer, got null');
  const plan = facts.plan ? await readPlanFacts((await evidenceOf(deps, ref)).lines(facts.plan.evidenceId)) : null;
  return {
    mode: ref.mode,
    reference: ref.firstRun.slice(0, 8),
    at: ref.at,
    ours: { contact: contacts.ours, nodeId: ref.nodeId ?? '' },
    peer,
    alerts,
    steps,
    firstBad,
    residual,
    plan,
    callers: null,
  };
}

/** A string of somebody else's in a sentence for an operator. */
function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 300));
}

async function contactsOf(deps: Deps): Promise<Contacts> {
  try {
    return await loadContacts(deps.contactsFile);
  } catch (error) {
    if (error instanceof ContactsError) throw new StepFailure('ConfigInvalid', error.message);
    throw error;
  }
}
