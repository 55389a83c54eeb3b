import { activityInfo } from '@temporalio/activity';
import { canonicalJson, sha256Id } from '../src/contract/canonical.ts';
import type { Policy } from '../src/contract/policy.ts';
import type { JudgedFact, Residual } from '../src/contract/schemas.ts';
import { hiddenOurs } from '../src/contract/steps.ts';
import type { Assessed, FirstBad, IncidentRef, Narrowed, PeerRef, PlanRef, ReadPeer, Remade, StepResult } from '../src/contract/steps.ts';
import type { Collection } from '../src/policy/facts.ts';
import { judgeInTurns, type Judgement } from '../src/policy/judge.ts';
import { assertBoundNode, evidenceOf, headOf, seal, type Deps } from './deps.ts';
import { collect, collectListed } from './facts/collect.ts';
import { findCollection, readCollection, sealCollection } from './facts/collection.ts';
import { readListing } from './facts/host-listing.ts';
import { heldResidual, readPlan, sealPlan } from './facts/plans.ts';
import { askPeer } from './facts/read-peer.ts';
import { comparePlans } from './facts/remake.ts';
import { namesOf } from './peers.ts';

interface Judging {
  readonly ref: IncidentRef;
  readonly peer: PeerRef | null;
  readonly policy: Policy;
  readonly firstBad: FirstBad | null;
  /** Does a host worker serve the incident? Then what HTTP can't undo can be. */
  readonly host?: boolean;
}

/** What the host worker listed, if one serves the incident. */
interface FromHost {
  readonly listing?: string;
}

/** Investigate: "Review what the peer wrote and what escaped quarantine". Changes nothing on the node. */
export function investigateActivities(deps: Deps) {
  const judge = async (input: Judging, collection: Collection, evidenceId: string): Promise<Judgement> => {
    const ours = await assertBoundNode(deps, input.ref);
    const { policy, firstBad, host = false } = input;
    const ways = { host };
    return judgeInTurns({ collection, evidenceId, policy, firstBad, peer: namesOf(input.peer), ourEntityUri: ours.entity_uri ?? '', ways });
  };
  const collectAnew = async (
    ref: IncidentRef,
    peer: PeerRef | null,
    { listing, before }: FromHost & { before?: Collection | undefined },
  ) => {
    const collection =
      listing === undefined || peer === null
        ? await collect(deps, peer, before)
        : await collectListed(deps, peer, await readListing(await evidenceOf(deps, ref), listing));
    await assertBoundNode(deps, ref);
    return { collection, sealed: await sealCollection(deps, { ...ref, phase: 'investigate' }, collection) };
  };

  return {
    /** The peer's own well-known and manifest: one bounded try, hostile input. Out of reach is a finding, never a failure. */
    async readPeer({ ref, peer }: { ref: IncidentRef; peer: PeerRef | null }): Promise<ReadPeer> {
      const said = await askPeer(deps, peer);
      const sealed = await seal(deps, ref, 'readPeer', 'peer', { ...said });
      const fingerprint = said.reading?.fingerprint ?? '';
      const read =
        fingerprint === ''
          ? "the peer's own documents were not read"
          : `the peer shows node ${peer?.nodeId ?? ''}'s documents with key ${fingerprint}`;
      return {
        outcome: said.consistent ? 'verified' : 'unverified',
        way: 'http',
        detail: [read, ...said.findings].join('; ').slice(0, 2_000),
        coverage: [
          {
            what: "the peer's own endpoints",
            seen: Number(said.reading?.wellKnown !== undefined) + Number(said.reading?.manifest !== undefined),
            complete: said.reading?.errors.length === 0,
            why: said.reading?.errors.join('; ').slice(0, 500) || 'well-known and manifest, one try',
          },
          {
            what: "the key our node pinned, held against the peer's",
            seen: 0,
            complete: false,
            why: 'not knowable on this node: the pin stands only in its database (peers.federation_pubkey)',
          },
        ],
        entityUri: said.entityUri,
        evidence: headOf(sealed),
      };
    },

    /** All the peer delivered, by what our node stamped, and what stands around it; sealed as NDJSON. */
    async collectFacts({ ref, peer, ...from }: { ref: IncidentRef; peer: PeerRef | null } & FromHost): Promise<StepResult> {
      const { collection, sealed } = await collectAnew(ref, peer, from);
      const { facts, complete, coverage, unread } = collection;
      const hidden = collection.others.filter((other) => other.hidden === true).length;
      const open = collection.others.filter((other) => other.hidden === null).length;
      const residual: Residual[] = [];
      if (unread.length > 0)
        residual.push({
          what: 'facts that nobody can read over HTTP',
          why: 'our node received them, perhaps from the peer, and refuses to show them: look at them on its host',
          count: unread.length,
        });
      if (hidden > 0)
        residual.push({
          what: hiddenOurs,
          why:
            from.listing === undefined
              ? 'HTTP has no way to bring them back'
              : "until the peer's facts on their entity, relation and scope are suppressed",
          count: hidden,
        });
      return {
        outcome: complete ? 'verified' : 'unverified',
        way: from.listing === undefined ? 'http' : 'host',
        detail: `${facts.length} facts of the peer collected; ${collection.others.length} of others on the same triples, ${hidden} of them hidden now${open > 0 ? `, of ${open} not asked` : ''}; ${collection.derived.length} derived from the peer's`,
        coverage,
        residual,
        evidence: headOf(sealed),
      };
    },

    /** Judges each fact by the named rules and seals the plan. Uses what was collected, or collects again when asked. */
    async assess({ recollect, listing, ...judging }: Judging & FromHost & { recollect: boolean }): Promise<Assessed> {
      const { ref, peer } = judging;
      const known = recollect ? undefined : await findCollection(deps, ref);
      const found = known === undefined ? await collectAnew(ref, peer, listing === undefined ? {} : { listing }) : undefined;
      const id = known ?? found?.sealed.id ?? '';
      const collection = found?.collection ?? (await readCollection(await evidenceOf(deps, ref), id));
      const { judged, firstSuspicious } = await judge(judging, collection, id);
      const { plan, sealed } = await sealPlan(deps, ref, 'plan', judged);
      const ungranted = peer === null || peer.allowedScopes.length === 0;
      return {
        outcome: collection.complete ? 'verified' : 'unverified',
        way: 'http',
        detail: `${judged.length} facts judged: ${countWords(plan)}${ungranted ? '; which scopes the peer was granted is not known, so none is called never granted' : ''}`,
        residual: heldResidual(judged),
        plan,
        firstSuspicious,
        evidence: headOf(sealed),
      };
    },

    /** "Keep benign facts if you can justify them": a new plan with these kept; people may only narrow. */
    async narrowPlan(input: {
      ref: IncidentRef;
      plan: PlanRef;
      keep: readonly { factId: string; justification: string }[];
      by: string;
    }): Promise<Narrowed> {
      const { ref, plan, keep, by } = input;
      const { runId: run } = activityInfo().workflowExecution ?? { runId: '' };
      const facts = await readPlan(deps, ref, plan);
      const asked = new Map(keep.map(({ factId, justification }) => [factId, justification]));
      const narrowable = new Set(facts.filter(({ action }) => action !== 'keep').map(({ id }) => id));
      const unknown = [...asked.keys()].filter((id) => !narrowable.has(id));
      const record = sha256Id(canonicalJson([plan.planHash, by, keep]));
      const amendment = await seal(deps, ref, `amendment ${record}`, 'amendment', { plan: plan.planHash, by, keep, unknown });
      if (unknown.length > 0) return { run, plan: null, unknown, evidence: headOf(amendment) };
      const narrowed = facts.map((fact): JudgedFact => {
        const justification = asked.get(fact.id);
        return justification === undefined
          ? fact
          : { ...fact, action: 'keep', way: 'none', justification: `${justification} (kept by ${by})` };
      });
      const { plan: next, sealed } = await sealPlan(deps, ref, `plan narrowed ${record}`, narrowed);
      return { run, plan: next, unknown, evidence: headOf(sealed) };
    },

    /** Right before acting: collects and judges again, and lets only what is unchanged since the approval go ahead. */
    async remakePlan({ approved, listing, ...judging }: Judging & FromHost & { approved: PlanRef }): Promise<Remade> {
      const { ref, peer } = judging;
      const before = await readPlan(deps, ref, approved);
      const known = await findCollection(deps, ref);
      // By the host worker's listing nothing has to be looked up again.
      const earlier = known === undefined || listing !== undefined ? undefined : await readCollection(await evidenceOf(deps, ref), known);
      const { collection, sealed: collected } = await collectAnew(ref, peer, {
        before: earlier,
        ...(listing === undefined ? {} : { listing }),
      });
      const { judged } = await judge(judging, collection, collected.id);
      const { go, next, changed, added, missing } = comparePlans(before, judged);
      const name = approved.planHash.slice(0, 19);
      const ahead = await sealPlan(deps, ref, `plan to act on, from ${name}`, go);
      const later = next.length === 0 ? undefined : await sealPlan(deps, ref, `plan to ask about next, after ${name}`, next);
      return {
        // Nobody is asked about it any more, so nobody is shown its items.
        go: withoutItems(ahead.plan),
        next: later?.plan ?? null,
        detail: `${go.length} facts unchanged since the approval, ${changed} changed, ${added} new, ${missing} not found again`,
        evidence: headOf(later?.sealed ?? ahead.sealed),
      };
    },
  };
}

function withoutItems({ items: _shown, ...plan }: PlanRef): PlanRef {
  return plan;
}

function countWords({ counts }: PlanRef): string {
  const words = Object.entries(counts).map(([action, count]) => `${action} ${count}`);
  return words.length === 0 ? 'none' : words.join(', ');
}
