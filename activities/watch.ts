import { activityInfo } from '@temporalio/activity';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { durationMs } from '../src/contract/duration.ts';
import { watchDefault, type Policy } from '../src/contract/policy.ts';
import type { JudgedFact } from '../src/contract/schemas.ts';
import type { FirstBad, IncidentRef, PeerRef, Watched } from '../src/contract/steps.ts';
import type { AuditedEvent } from '../src/policy/alerts.ts';
import { arrivalMs, instantMs, isOfPeer, type SeenFact } from '../src/policy/facts.ts';
import { judgeReturning, type UndoneFact } from '../src/policy/returning.ts';
import { blindTrip, tripsOf, type Look, type Watching } from '../src/policy/tripwires.ts';
import { StigmemHttpError, StigmemError } from '../src/stigmem/errors.ts';
import { RECEIVED_FROM } from '../src/stigmem/fact-index.ts';
import { collectFederationAudit } from '../src/stigmem/federation-audit.ts';
import { collectAudit, collectQuarantine } from '../src/stigmem/paging.ts';
import { readPeer } from '../src/stigmem/peer-reader.ts';
import type { Fact, FederationAuditEvent, QuarantineEntry } from '../src/stigmem/wire.ts';
import { assertBoundNode, cancelSignal, evidenceOf, headOf, seal, type Deps } from './deps.ts';
import { findCollection, readCollection } from './facts/collection.ts';
import { earlierRounds } from './facts/earlier-rounds.ts';
import { beat } from './heartbeat.ts';
import { namesOf } from './peers.ts';

export interface WatchInput {
  readonly ref: IncidentRef;
  readonly peer: PeerRef;
  readonly policy: Policy;
  readonly firstBad: FirstBad | null;
  readonly newKeySince: string | null;
  /** Of the key that people approved; null: none was asked for. */
  readonly fingerprint: string | null;
  /** When the door was opened, and when this stretch ends; ISO 8601. */
  readonly since: string;
  readonly until: string;
  /** The last good look of the stretch before; else `since`. */
  readonly lastLookAt?: string;
}

const Progress = z.object({ lastMs: z.number(), looks: z.number() });
const everything = { include_contradicted: true, include_expired: true, include_low_trust: true, limit: 500 } as const;

/** Watch: "watch quarantine/audit events before restoring full trust". It only looks; the workflow shuts the door. */
export function watchActivities(deps: Deps) {
  return {
    /**
     * Looks at the peer every interval until a tripwire is touched or the stretch is over. A look that fails is made
     * again; a node that can't be asked for too long is itself a trip. Heartbeats carry the last good look, so a worker
     * that dies takes nothing with it.
     */
    async watchPeer(input: WatchInput): Promise<Watched> {
      const { ref, policy, since, until, lastLookAt } = input;
      const watch = policy.watch ?? watchDefault;
      const { undone, localSources } = await earlierRounds(deps, ref);
      const watching: Watching = { policy: watch, fingerprint: input.fingerprint, baseline: await baselineOf(deps, input) };
      const before = Progress.safeParse(activityInfo().heartbeatDetails).data;
      let { lastMs, looks } = before ?? { lastMs: Date.parse(lastLookAt ?? since), looks: 0 };
      const seen: Seen = { facts: new Map(), examined: new Set(), cutOff: false };
      for (;;) {
        const look = await lookAt(deps, input, seen, { undone, localSources });
        const nowMs = Date.now();
        if (look !== undefined) {
          [lastMs, looks] = [look.atMs, looks + 1];
          beat({ lastMs, looks });
        }
        const trips = look === undefined ? [blindTrip(lastMs, nowMs, watch)].flatMap((trip) => trip ?? []) : tripsOf(look, watching);
        if (trips.length > 0 || nowMs >= Date.parse(until)) {
          const sealed = await seal(deps, ref, `watch ${ref.at}`, 'watch', {
            since,
            until,
            looks,
            trips,
            ...(trips.length > 0 ? { look } : {}),
          });
          const why = `${looks} looks, every ${watch.every}: both audits, quarantine, what came from the peer, and its own documents`;
          const coverage = [{ what: 'watch of the peer', seen: seen.facts.size, complete: look !== undefined && !seen.cutOff, why }];
          return { trips, looks, lastLookAt: new Date(lastMs).toISOString(), coverage, evidence: headOf(sealed) };
        }
        const restMs = Math.max(0, Date.parse(until) - nowMs);
        await sleep(Math.min(durationMs(watch.every), restMs), undefined, { signal: cancelSignal() });
      }
    },
  };
}

/** What came so far, by id. */
interface Seen {
  readonly facts: Map<string, SeenFact>;
  /** Of anybody: each is read once. */
  readonly examined: Set<string>;
  /** More came between two looks than one page shows. */
  cutOff: boolean;
}

interface Known {
  readonly undone: readonly UndoneFact[];
  readonly localSources: ReadonlySet<string>;
}

/** One look; undefined when the node could not be asked. Another node than ours is no outage, and is thrown. */
async function lookAt(deps: Deps, input: WatchInput, seen: Seen, known: Known): Promise<Look | undefined> {
  const { ref, peer, since } = input;
  const signal = cancelSignal();
  try {
    const atMs = Date.now();
    const ours = await assertBoundNode(deps, ref);
    const names = [...peer.peerIds, ...peer.nodeIds, peer.entityUri].filter((name) => name !== '');
    const federation = await collectFederationAudit(deps.node, { peerIds: names, signal });
    const local = await collectAudit(deps.node, { signal });
    const quarantine = await collectQuarantine(deps.node, { signal });
    await readArrivals(deps, input, seen, quarantine.items);
    const reading = await readPeer(peer.url, { allowPrivate: deps.peerAllow, signal });
    const facts = [...seen.facts.values()];
    const isSince = ({ at }: AuditedEvent) => Date.parse(at) >= Date.parse(since);
    return {
      atMs,
      federation: federation.items.map(audited).filter(isSince),
      local: local.items
        .map(({ id, event_type: type, ts: at, ...rest }) => ({ id, type, at, detail: JSON.stringify(rest) }))
        .filter(isSince),
      facts,
      judged: await judge(input, facts, ours.entity_uri ?? '', known),
      shows: { wellKnown: reading.fingerprint ?? null, manifest: reading.manifestFingerprint ?? null },
    };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof StigmemError && error.code !== 'STIGMEM_IDENTITY') return undefined;
    throw error;
  }
}

function audited({ id, event_type: type, ts: at, detail }: FederationAuditEvent): AuditedEvent {
  return { id, type, at, detail: JSON.stringify(detail ?? null) };
}

/**
 * What came since the watch began, by our node's own notes of receipt: the only time that is not the sender's claim. Each
 * is read once.
 */
async function readArrivals(
  { node }: Deps,
  { peer, since }: WatchInput,
  seen: Seen,
  quarantined: readonly QuarantineEntry[],
): Promise<void> {
  const signal = cancelSignal();
  const nodeIds = new Set(peer.nodeIds);
  const page = await node.factsPage({ relation: RECEIVED_FROM, scope: 'local', after: since, ...everything }, signal);
  seen.cutOff ||= page.cursor !== null && page.facts.every(({ entity }) => !seen.examined.has(entity));
  // A note that came in itself is forged.
  for (const { entity: id, timestamp: arrivedAt } of page.facts.filter(({ received_from: from }) => from === null)) {
    if (seen.examined.has(id)) continue;
    beat();
    const fact = await factOrNone(() => node.fact(id, signal));
    const waits = quarantined.find(({ fact_id: of }) => of === id);
    const of = fact ?? waits;
    if (of !== undefined) {
      const { entity, relation, source, received_from: receivedFrom } = of;
      const one = { id, entity, relation, source, receivedFrom, originNodeId: fact?.origin_node_id ?? null };
      if (isOfPeer(one, nodeIds)) seen.facts.set(id, { ...one, fact: fact ?? null, quarantine: waits ?? null, arrivedAt });
    }
    seen.examined.add(id);
  }
}

async function factOrNone(read: () => Promise<Fact>): Promise<Fact | undefined> {
  try {
    return await read();
  } catch (error) {
    // Waits in quarantine, or behind a tombstone.
    if (error instanceof StigmemHttpError && error.status === 404) return undefined;
    throw error;
  }
}

async function judge(input: WatchInput, facts: readonly SeenFact[], ourEntityUri: string, known: Known): Promise<JudgedFact[]> {
  const { peer, policy, firstBad, newKeySince } = input;
  return judgeReturning({
    facts,
    evidenceId: '',
    policy,
    peer: namesOf(peer),
    ourEntityUri,
    ...known,
    fetchedMs: Date.now(),
    firstBadMs: instantMs(firstBad?.at ?? null),
    newKeySinceMs: instantMs(newKeySince),
  });
}

/** How many facts the peer sent within the time of a burst before it turned, as a mean over all that is known of it. */
async function baselineOf(deps: Deps, { ref, policy, firstBad }: WatchInput): Promise<number | null> {
  const turnedMs = instantMs(firstBad?.at ?? null);
  const collected = await findCollection(deps, ref);
  if (turnedMs === null || collected === undefined) return null;
  const { facts } = await readCollection(await evidenceOf(deps, ref), collected);
  const before = facts.flatMap((fact) => arrivalMs(fact) ?? []).filter((at) => at < turnedMs);
  if (before.length === 0) return null;
  const withinMs = durationMs((policy.watch ?? watchDefault).burst.within);
  const first = before.reduce((least, at) => Math.min(least, at));
  return before.length / Math.max(1, (turnedMs - first) / withinMs);
}
