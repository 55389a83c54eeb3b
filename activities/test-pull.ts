import { z } from 'zod';
import type { Policy } from '../src/contract/policy.ts';
import type { JudgedFact } from '../src/contract/schemas.ts';
import type { ArrivalsJudged, BacklogJudged, FirstBad, IncidentRef, PeerRef } from '../src/contract/steps.ts';
import { BacklogLine } from '../src/host/backlog.ts';
import type { EvidenceStore } from '../src/evidence/store.ts';
import { instantMs, type SeenFact } from '../src/policy/facts.ts';
import { judgeReturning } from '../src/policy/returning.ts';
import { collectQuarantine } from '../src/stigmem/paging.ts';
import { Fact } from '../src/stigmem/wire.ts';
import { assertBoundNode, cancelSignal, evidenceOf, headOf, type Deps } from './deps.ts';
import { readArrived } from './facts/arrived.ts';
import { parsed } from './facts/collection.ts';
import { earlierRounds } from './facts/earlier-rounds.ts';
import { inLanes, readLanes } from './facts/lanes.ts';
import { readPlan, sealPlan } from './facts/plans.ts';
import { StepFailure } from './failures.ts';
import { namesOf } from './peers.ts';

/** What a test pull is judged by. */
export interface Judging {
  readonly ref: IncidentRef;
  readonly peer: PeerRef;
  readonly policy: Policy;
  readonly firstBad: FirstBad | null;
  /** Since when the peer has its new key, ISO 8601; null: it has none. */
  readonly newKeySince: string | null;
}

export interface BacklogJudging extends Judging {
  /** Evidence id of what fetchBacklog sealed. */
  readonly backlog: string;
}

export interface ArrivalsJudging extends Judging {
  /** Evidence id of the plan that people approved. */
  readonly plan: string;
  /** What came through the door, and how it was shut. */
  readonly door: {
    readonly evidenceId: string;
    readonly closedBy: string;
    readonly cursorBefore: Readonly<Record<string, string | null>>;
    readonly cursorAfter: Readonly<Record<string, string | null>>;
  };
}

/** Test pull: "Run a small test pull and watch quarantine/audit events before restoring full trust". */
export function testPullActivities(deps: Deps) {
  return {
    /** Judges what waits behind the fence and seals the plan: `keep` would be let in, `suppress` would not. Changes nothing. */
    async judgeBacklog({ ref, peer, policy, firstBad, newKeySince, backlog }: BacklogJudging): Promise<BacklogJudged> {
      const store = await evidenceOf(deps, ref);
      const waiting = await readBacklog(store, backlog, peer);
      const judged = await judge(
        { ref, peer, policy, firstBad, newKeySince },
        { facts: waiting.facts, evidenceId: backlog, fetchedMs: waiting.fetchedMs },
      );
      const { plan, sealed } = await sealPlan(deps, ref, `plan of the backlog ${ref.at}`, judged);
      const { keep = 0, suppress = 0 } = plan.counts;
      const { unreadable } = waiting;
      const residual =
        unreadable === 0
          ? []
          : [
              {
                what: 'entries behind the fence that can not be judged',
                why: 'they are no facts, or come twice under one id; one of them can stall the whole pull loop of the node',
                count: unreadable,
              },
            ];
      return {
        outcome: waiting.complete && unreadable === 0 ? 'verified' : 'unverified',
        way: 'host',
        detail: `${judged.length} facts wait behind the fence: ${keep} would be let in, ${suppress} would not${waiting.complete ? '' : `; not all of them could be read: ${waiting.why}`}. Judged one by one in ${plan.evidenceId}`,
        residual,
        plan,
        evidence: headOf(sealed),
      };
    },

    /**
     * Judges what came through the door against the plan that was approved: what was to be kept out stays held back, what
     * nobody has seen before is judged anew. One that is bad fails the test, and so does silence. Changes nothing.
     */
    async judgeArrivals({ plan, door, ...judging }: ArrivalsJudging): Promise<ArrivalsJudged> {
      const { ref } = judging;
      const store = await evidenceOf(deps, ref);
      const { ids, left } = z
        .object({ ids: z.array(z.string()), left: z.array(z.string()).default([]) })
        .parse(await store.readJson(door.evidenceId));
      const { items: quarantined } = await collectQuarantine(deps.node, { signal: cancelSignal() });
      const read = await inLanes([...ids, ...left], readLanes, (id) => readArrived(deps, { id, arrivedAt: null }, quarantined));
      const facts = read.flatMap((fact) => fact ?? []);
      const approved = new Map((await readPlan(deps, ref, { evidenceId: plan })).map((item) => [item.id, item]));
      const judged = (await judge(judging, { facts, evidenceId: door.evidenceId, fetchedMs: Date.now() })).map((fact) =>
        asApproved(fact, approved.get(fact.id)),
      );
      await assertBoundNode(deps, ref);
      const { plan: sealedPlan, sealed } = await sealPlan(deps, ref, `arrivals judged ${ref.at}`, judged);
      const before = new Set(left);
      const bad = judged.filter(({ id, action }) => action !== 'keep' && approved.get(id)?.action !== 'suppress' && !before.has(id));
      const planned = judged.filter(({ id, action }) => action !== 'keep' && approved.get(id)?.action === 'suppress').length;
      const hasMoved = Object.entries(door.cursorAfter).some(([id, cursor]) => cursor !== (door.cursorBefore[id] ?? null));
      const readIds = new Set(facts.map(({ id }) => id));
      const unread = ids.filter((id) => !readIds.has(id)).length;
      const failed = [
        ...(ids.length > 0 ? [] : [silence(approved.size)]),
        ...(hasMoved || door.closedBy === 'facts' ? [] : ["our node's cursor for the peer did not move: its pull loop stands still"]),
        ...(bad.length === 0 ? [] : [`${bad.length} facts came that are bad and were not shown before: ${rulesOf(bad)}`]),
        ...(unread === 0 ? [] : [`${unread} facts came that our node does not show, so they could not be judged`]),
      ];
      const { keep: shows = 0 } = sealedPlan.counts;
      return {
        outcome: failed.length === 0 ? 'verified' : 'unverified',
        way: 'host',
        detail: `${ids.length} facts came: ${shows} good, ${planned} kept out as planned, ${bad.length + unread} bad${left.length > 0 ? `; ${left.length} more that earlier doors held back were judged too` : ''}${failed.length === 0 ? '' : `. NOT passed: ${failed.join('; ')}`}. Judged one by one in ${sealed.id}`,
        evidenceId: sealed.id,
        shows,
        failed,
        evidence: headOf(sealed),
      };
    },
  };

  async function judge(
    { ref, peer, policy, firstBad, newKeySince }: Judging,
    of: { readonly facts: readonly SeenFact[]; readonly evidenceId: string; readonly fetchedMs: number },
  ): Promise<JudgedFact[]> {
    const { undone, localSources } = await earlierRounds(deps, ref);
    const ours = await assertBoundNode(deps, ref);
    return judgeReturning({
      ...of,
      policy,
      peer: namesOf(peer),
      ourEntityUri: ours.entity_uri ?? '',
      localSources,
      undone,
      firstBadMs: instantMs(firstBad?.at ?? null),
      newKeySinceMs: instantMs(newKeySince),
    });
  }
}

/** What people decided about it before it came; another content under the same id is not what they saw. */
function asApproved(fact: JudgedFact, approved: JudgedFact | undefined): JudgedFact {
  if (approved === undefined) return fact;
  const { action, rule, way } = approved;
  if (action !== 'keep') return { ...fact, action, way, rule, reason: `kept out, as approved: ${approved.reason}` };
  if (approved.contentHash === fact.contentHash || fact.action !== 'keep') return fact;
  return {
    ...fact,
    action: 'suppress',
    way: 'host',
    rule: 'otherContent',
    reason: 'it says something else than what was shown and approved under its id',
  };
}

function silence(waited: number): string {
  return waited > 0
    ? `nothing came, although ${waited} facts wait: the pull loop stands still, or the peer does not answer our node`
    : 'nothing came, and nothing waits: have the operator of the peer write one fact, and judge again';
}

function rulesOf(bad: readonly JudgedFact[]): string {
  return [...new Set(bad.flatMap(({ rule }) => rule.split('+')))].toSorted().join(', ');
}

interface Backlog {
  readonly facts: readonly SeenFact[];
  readonly unreadable: number;
  readonly fetchedMs: number;
  readonly complete: boolean;
  readonly why: string;
}

/** models/federation.py, FederationEnvelopeEntry, as far as judging needs it. */
const Entry = z.object({ fact: Fact, origin: z.object({ node_id: z.string(), entity_uri: z.string().nullish() }) });

async function readBacklog(store: EvidenceStore, id: string, peer: PeerRef): Promise<Backlog> {
  const byId = new Map<string, SeenFact>();
  const twice = new Set<string>();
  let unreadable = 0;
  let head: Extract<BacklogLine, { kind: 'backlog' }> | undefined;
  let end: Extract<BacklogLine, { kind: 'end' }> | undefined;
  for await (const raw of store.lines(id)) {
    const line = parsed(BacklogLine, raw, id);
    if (line.kind === 'backlog') head = line;
    else if (line.kind === 'end') end = line;
    else {
      const entry = Entry.safeParse(JSON.parse(line.json));
      if (!entry.success) unreadable += 1;
      else if (byId.has(entry.data.fact.id)) twice.add(entry.data.fact.id);
      else byId.set(entry.data.fact.id, seenOf(entry.data, peer));
    }
  }
  if (head === undefined || end === undefined) throw new StepFailure('EvidenceUnavailable', `${id} holds no backlog`);
  // Which of the two would come in nobody can say.
  for (const one of twice) byId.delete(one);
  const fetchedMs = Date.parse(head.fetchedAt);
  return { facts: [...byId.values()], unreadable: unreadable + twice.size, fetchedMs, complete: end.complete, why: end.why };
}

/** As our node would stamp it, were it to come in; what the peer says about that itself counts nothing. */
function seenOf({ fact, origin }: z.infer<typeof Entry>, peer: PeerRef): SeenFact {
  const { id, entity, relation, source } = fact;
  const own = { receivedFrom: peer.nodeId, originNodeId: origin.node_id, originEntityUri: origin.entity_uri ?? null };
  return { id, entity, relation, source, ...own, fact, quarantine: null, arrivedAt: null };
}
