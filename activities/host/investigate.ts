import type { Coverage } from '../../src/contract/schemas.ts';
import type { HostDone, HostListing, HostThere, IncidentRef, PeerRef } from '../../src/contract/steps.ts';
import { readAccess } from '../../src/host/access.ts';
import { leaveProof } from '../../src/host/effect.ts';
import { HostFileError, HostUnavailableError } from '../../src/host/database.ts';
import { countFacts, localSources, walkFacts, walkNeighbours } from '../../src/host/facts.ts';
import { takeSnapshot } from '../../src/host/snapshot.ts';
import { shutSince } from '../../src/host/peers.ts';
import { readTombstones } from '../../src/host/tombstones.ts';
import { derivedFrom, recallersSince, writtenHereSince } from '../../src/host/traces.ts';
import { vanishing, vanishingPage, type Vanishing } from '../../src/host/vanishing.ts';
import { effectKey, headOf, seal } from '../deps.ts';
import { writersOf } from '../facts/by-key.ts';
import type { HostLine } from '../facts/host-listing.ts';
import { beat } from '../heartbeat.ts';
import { assertServes, effectOf, holderOf, originOf, signerOf, type HostDeps } from './deps.ts';

interface OfPeer {
  readonly ref: IncidentRef;
  readonly peer: PeerRef;
}

const rowsAtOnce = 2_000;

/** Identify and investigate, on the node's own machine. Changes nothing on the node. */
export function hostInvestigateActivities(deps: HostDeps) {
  return {
    /** Does it serve this incident: its node, a schema that cordon knows, the incident's evidence folder? */
    async probeHost({ ref }: { ref: IncidentRef }): Promise<HostThere> {
      const serves = await assertServes(deps, ref);
      return ref.mode === 'drill' ? serves : { ...serves, proof: await leaveProof(deps.database, effectOf(ref, 'probeHost', 'proof')) };
    },

    /** Seals what HTTP does not show, and what the node deletes by itself, before anything changes. */
    async captureHost({ ref, peer }: OfPeer): Promise<HostDone> {
      await assertServes(deps, ref);
      const holder = holderOf(peer);
      const access = await readAccess(deps.database, holder);
      await seal(deps, ref, 'captureHost access', 'access', access);
      const tombstones = await readTombstones(deps.database, signerOf(peer));
      await seal(deps, ref, 'captureHost tombstones', 'tombstones', tombstones);
      const coverage: Coverage[] = [];
      let rows = 0;
      for (const kind of vanishing) {
        const walked = { rows: 0 };
        await seal(deps, ref, `captureHost ${kind}`, kind, walkVanishing(deps, kind, walked));
        rows += walked.rows;
      }
      coverage.push({
        what: 'what the node deletes by itself',
        seen: rows,
        complete: true,
        why: 'capability tokens, nonces and delivered subscription events, sealed from its database',
      });
      coverage.push(await snapshotOf(deps, ref));
      const sealed = await seal(deps, ref, 'captureHost', 'local', { coverage });
      return { done: 0, detail: `${rows} rows that the node deletes by itself sealed`, coverage, evidence: headOf(sealed) };
    },

    /**
     * All that the peer delivered, that came from it through others or that its keys wrote here, by query, what stands
     * around it, and its tombstones; sealed as NDJSON.
     * @param ours - our own node's entity: nothing written under it is taken for the peer's
     */
    async listFacts({ ref, peer, ours = '' }: OfPeer & { readonly ours?: string }): Promise<HostListing> {
      await assertServes(deps, ref);
      const walked = { facts: 0 };
      const sealed = await seal(deps, { ...ref, phase: 'investigate' }, 'listFacts', 'facts', linesOf(deps, peer, ours, walked));
      return { evidenceId: sealed.id, facts: walked.facts, evidence: headOf(sealed) };
    },
  };
}

async function* linesOf(deps: HostDeps, peer: PeerRef, ours: string, walked: { facts: number }): AsyncGenerator<HostLine> {
  const { database } = deps;
  const writers = writersOf(peer, ours);
  const origin = { ...originOf(peer), writers };
  const counted = await countFacts(database, origin);
  const sources = await localSources(database, writers);
  yield { kind: 'listing', counted, localSources: sources, fencedAt: await shutSince(database, peer.peerIds) };
  const ids = new Set<string>();
  const entities = new Set<string>();
  const scopes = new Set<string>();
  let first: string | null = null;
  for await (const fact of walkFacts(database, origin)) {
    ids.add(fact.id);
    // By content id too: whoever derives chooses by which.
    if (fact.cid !== null) ids.add(fact.cid);
    entities.add(fact.entity);
    scopes.add(fact.scope);
    if (fact.arrived_at !== null && (first === null || fact.arrived_at < first)) first = fact.arrived_at;
    walked.facts += 1;
    if (walked.facts % rowsAtOnce === 0) beat({ listed: walked.facts });
    yield { kind: 'fact', row: fact };
  }
  for await (const row of walkNeighbours(database, origin)) yield { kind: 'other', row };
  for (const derived of await derivedFrom(database, ids)) yield { kind: 'derived', derived };
  for (const row of await readTombstones(database, signerOf(peer))) yield { kind: 'tombstone', row };
  if (first === null) return;
  for (const recaller of await recallersSince(database, [...scopes], first)) yield { kind: 'recaller', recaller };
  for (const { id, entity, source } of await writtenHereSince(database, [...entities], first)) yield { kind: 'after', id, entity, source };
}

async function* walkVanishing(deps: HostDeps, kind: Vanishing, walked: { rows: number }): AsyncGenerator<object> {
  for (let after: string | undefined = ''; after !== undefined;) {
    const page = await vanishingPage(deps.database, kind, after, rowsAtOnce);
    walked.rows += page.rows.length;
    beat();
    yield* page.rows;
    after = page.next;
  }
}

/** A copy of the whole node, before the first change. That there is none stops nothing: each step seals what it changes. */
async function snapshotOf(deps: HostDeps, ref: IncidentRef): Promise<Coverage> {
  const what = "signed copy of the whole node ('stigmem snapshot')";
  if (ref.mode === 'drill') return { what, seen: 0, complete: false, why: 'DRILL: none is taken' };
  if (deps.snapshot === undefined) return { what, seen: 0, complete: false, why: 'CORDON_SNAPSHOT_DIR is not set on the host' };
  try {
    const taken = await takeSnapshot(deps.database, deps.snapshot, { key: effectKey(ref, 'snapshot'), nodeId: ref.nodeId ?? '' });
    await seal(deps, ref, 'snapshot', 'snapshot', taken);
    return { what, seen: 1, complete: true, why: `${taken.bytes} bytes, ${taken.digest}, in CORDON_SNAPSHOT_DIR on the host` };
  } catch (error) {
    if (!(error instanceof HostFileError) && !(error instanceof HostUnavailableError)) throw error;
    return { what, seen: 0, complete: false, why: error.message.slice(0, 300) };
  }
}
