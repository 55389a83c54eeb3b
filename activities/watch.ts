import { activityInfo } from '@temporalio/activity';
import { z } from 'zod';
import { durationMs } from '../src/contract/duration.ts';
import { watchDefault } from '../src/contract/policy.ts';
import type { JudgedFact } from '../src/contract/schemas.ts';
import type { Watched } from '../src/contract/steps.ts';
import type { AuditedEvent } from '../src/policy/alerts.ts';
import { arrivalMs, instantMs, isOfPeer, type SeenFact } from '../src/policy/facts.ts';
import { judgeReturning, type UndoneFact } from '../src/policy/returning.ts';
import { blindTrip, tripsOf, type Look, type Watching } from '../src/policy/tripwires.ts';
import { StigmemError } from '../src/stigmem/errors.ts';
import { RECEIVED_FROM } from '../src/stigmem/fact-index.ts';
import { collectFederationAudit } from '../src/stigmem/federation-audit.ts';
import { collectAudit, collectQuarantine } from '../src/stigmem/paging.ts';
import { readPeer } from '../src/stigmem/peer-reader.ts';
import type { FederationAuditEvent, QuarantineEntry } from '../src/stigmem/wire.ts';
import { assertBoundNode, cancelSignal, evidenceOf, headOf, seal, type Deps } from './deps.ts';
import { readArrived } from './facts/arrived.ts';
import { findCollection, readCollection } from './facts/collection.ts';
import { earlierRounds } from './facts/earlier-rounds.ts';
import { readPlan } from './facts/plans.ts';
import { StepFailure } from './failures.ts';
import { beat } from './heartbeat.ts';
import { namesOf } from './peers.ts';
import type { Judging } from './test-pull.ts';

export interface WatchInput extends Judging {
  /** Of the key that people approved; null: none was asked for. */
  readonly fingerprint: string | null;
  /** When the door was opened, and when this stretch ends; ISO 8601. */
  readonly since: string;
  readonly until: string;
  /** The last good look of the stretch before; else `since`. */
  readonly lastLookAt?: string;
  /** Evidence id of the plan that was approved before it was let in: what it names is no news. */
  readonly plan?: string | undefined;
}

const Progress = z.object({ lastMs: z.number(), looks: z.number() });
const everything = { include_contradicted: true, include_expired: true, include_low_trust: true, limit: 500 } as const;

/** Watch: "watch quarantine/audit events before restoring full trust". It only looks; the workflow shuts the door. */
export function watchActivities(deps: Deps) {
  const read = new Map<string, Seen>();

  return {
    /**
     * Looks at the peer once. It fails with WatchGoesOn, to be tried again after the interval, until a tripwire is touched
     * or the stretch is over: between two looks a watch costs nothing but a line at the server. A node that can't be
     * asked for too long is itself a trip. Heartbeats carry the last good look, so a worker that dies takes nothing with it.
     */
    async watchPeer(input: WatchInput): Promise<Watched> {
      const { ref, policy, since, until, lastLookAt } = input;
      const watch = policy.watch ?? watchDefault;
      const before = Progress.safeParse(activityInfo().heartbeatDetails).data;
      const [wasMs, made] = before ? [before.lastMs, before.looks] : [Date.parse(lastLookAt ?? since), 0];
      beat({ lastMs: wasMs, looks: made });
      const seen = await seenOf(read, `${ref.firstRun} ${ref.round} ${since}`, () => knownBefore(deps, input));
      const watching: Watching = { policy: watch, fingerprint: input.fingerprint, baseline: seen.known.baseline };
      const look = await lookAt(deps, input, seen);
      const nowMs = Date.now();
      const [lastMs, looks] = look ? [look.atMs, made + 1] : [wasMs, made];
      beat({ lastMs, looks });
      const trips = look ? tripsOf(look, watching) : [blindTrip(wasMs, nowMs, watch)].flatMap((trip) => trip ?? []);
      if (trips.length === 0 && nowMs < Date.parse(until)) {
        const said = look ? `look ${looks}: nothing is touched` : `the node could not be asked since ${new Date(lastMs).toISOString()}`;
        throw new StepFailure('WatchGoesOn', said, Math.min(durationMs(watch.every), Math.max(1, Date.parse(until) - nowMs)));
      }
      const shown = trips.length > 0 ? { look } : {};
      const sealed = await seal(deps, ref, `watch ${ref.at}`, 'watch', { since, until, looks, trips, ...shown });
      read.delete(`${ref.firstRun} ${ref.round} ${since}`);
      const why = `${looks} looks, every ${watch.every}: both audits, quarantine, what came from the peer, and its own documents`;
      const coverage = [{ what: 'watch of the peer', seen: seen.facts.size, complete: look !== undefined && !seen.cutOff, why }];
      return { trips, looks, lastLookAt: new Date(lastMs).toISOString(), coverage, evidence: headOf(sealed) };
    },
  };
}

/** What evidence says, and no look changes. */
interface Known {
  readonly undone: readonly UndoneFact[];
  readonly localSources: ReadonlySet<string>;
  /** Content of what people approved of before it came, by id. */
  readonly approved: ReadonlyMap<string, string>;
  readonly baseline: number | null;
}

async function knownBefore(deps: Deps, input: WatchInput): Promise<Known> {
  const { ref, plan } = input;
  const items = plan === undefined ? [] : await readPlan(deps, ref, { evidenceId: plan });
  const approved = new Map(items.map(({ id, contentHash }) => [id, contentHash]));
  return { ...(await earlierRounds(deps, ref)), approved, baseline: await baselineOf(deps, input) };
}

/** What came so far, by id. */
interface Seen {
  readonly known: Known;
  readonly facts: Map<string, SeenFact>;
  /** Of anybody: each is read once. */
  readonly examined: Set<string>;
  /** More came between two looks than one page shows. */
  cutOff: boolean;
}

/** Watches whose facts a worker keeps at hand; of any more it reads them again at each look. */
const mostKept = 1_000;

async function seenOf(read: Map<string, Seen>, watch: string, known: () => Promise<Known>): Promise<Seen> {
  const kept = read.get(watch) ?? { known: await known(), facts: new Map(), examined: new Set(), cutOff: false };
  read.delete(watch);
  read.set(watch, kept);
  for (const oldest of read.keys()) {
    if (read.size <= mostKept) break;
    read.delete(oldest);
  }
  return kept;
}

/** One look; undefined when the node could not be asked. Another node than ours is no outage, and is thrown. */
async function lookAt(deps: Deps, input: WatchInput, seen: Seen): Promise<Look | undefined> {
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
    const judged = await judgeNews(input, seen, ours.entity_uri ?? '');
    const news = new Set(judged.map(({ id }) => id));
    const isSince = ({ at }: AuditedEvent) => Date.parse(at) >= Date.parse(since);
    return {
      atMs,
      federation: federation.items.map(audited).filter(isSince),
      local: local.items
        .map(({ id, event_type: type, ts: at, ...rest }) => ({ id, type, at, detail: JSON.stringify(rest) }))
        .filter(isSince),
      facts: [...seen.facts.values()].filter(({ id }) => news.has(id)),
      judged,
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
async function readArrivals(deps: Deps, { peer, since }: WatchInput, seen: Seen, quarantined: readonly QuarantineEntry[]): Promise<void> {
  const nodeIds = new Set(peer.nodeIds);
  const page = await deps.node.factsPage({ relation: RECEIVED_FROM, scope: 'local', after: since, ...everything }, cancelSignal());
  seen.cutOff ||= page.cursor !== null && page.facts.every(({ entity }) => !seen.examined.has(entity));
  // A note that came in itself is forged.
  for (const { entity: id, timestamp: arrivedAt } of page.facts.filter(({ received_from: from }) => from === null)) {
    if (seen.examined.has(id)) continue;
    const one = await readArrived(deps, { id, arrivedAt }, quarantined);
    if (one !== undefined && isOfPeer(one, nodeIds)) seen.facts.set(id, one);
    seen.examined.add(id);
  }
}

/** What came, but for what people have approved of before it did. */
async function judgeNews(input: WatchInput, { facts, known }: Seen, ourEntityUri: string): Promise<JudgedFact[]> {
  const { peer, policy, firstBad, newKeySince } = input;
  const judged = await judgeReturning({
    facts: [...facts.values()],
    evidenceId: '',
    policy,
    peer: namesOf(peer),
    ourEntityUri,
    localSources: known.localSources,
    undone: known.undone,
    fetchedMs: Date.now(),
    firstBadMs: instantMs(firstBad?.at ?? null),
    newKeySinceMs: instantMs(newKeySince),
  });
  return judged.filter(({ id, contentHash }) => known.approved.get(id) !== contentHash);
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
