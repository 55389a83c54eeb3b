import { z } from 'zod';
import type { Policy } from '../src/contract/policy.ts';
import type { BacklogJudged, FirstBad, IncidentRef, PeerRef } from '../src/contract/steps.ts';
import { BacklogLine } from '../src/host/backlog.ts';
import type { EvidenceStore } from '../src/evidence/store.ts';
import { instantMs, type SeenFact } from '../src/policy/facts.ts';
import { judgeReturning } from '../src/policy/returning.ts';
import { Fact } from '../src/stigmem/wire.ts';
import { assertBoundNode, evidenceOf, headOf, type Deps } from './deps.ts';
import { parsed } from './facts/collection.ts';
import { earlierRounds } from './facts/earlier-rounds.ts';
import { sealPlan } from './facts/plans.ts';
import { StepFailure } from './failures.ts';
import { namesOf } from './peers.ts';

export interface BacklogJudging {
  readonly ref: IncidentRef;
  readonly peer: PeerRef;
  readonly policy: Policy;
  readonly firstBad: FirstBad | null;
  /** Since when the peer has its new key, ISO 8601; null: it has none. */
  readonly newKeySince: string | null;
  /** Evidence id of what fetchBacklog sealed. */
  readonly backlog: string;
}

/** Test pull: "Run a small test pull and watch quarantine/audit events before restoring full trust". */
export function testPullActivities(deps: Deps) {
  return {
    /** Judges what waits behind the fence and seals the plan: `keep` would be let in, `suppress` would not. Changes nothing. */
    async judgeBacklog({ ref, peer, policy, firstBad, newKeySince, backlog }: BacklogJudging): Promise<BacklogJudged> {
      const store = await evidenceOf(deps, ref);
      const waiting = await readBacklog(store, backlog, peer);
      const { undone, localSources } = await earlierRounds(deps, ref);
      const ours = await assertBoundNode(deps, ref);
      const judged = await judgeReturning({
        facts: waiting.facts,
        evidenceId: backlog,
        policy,
        peer: namesOf(peer),
        ourEntityUri: ours.entity_uri ?? '',
        localSources,
        undone,
        fetchedMs: waiting.fetchedMs,
        firstBadMs: instantMs(firstBad?.at ?? null),
        newKeySinceMs: instantMs(newKeySince),
      });
      const { plan, sealed } = await sealPlan(deps, ref, 'plan of the backlog', judged);
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
  };
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
