import { durationMs, spanWords } from '../contract/duration.ts';
import type { WatchPolicy } from '../contract/policy.ts';
import type { JudgedFact } from '../contract/schemas.ts';
import type { Trip } from '../contract/steps.ts';
import { densest, type AuditedEvent } from './alerts.ts';
import { arrivalMs, type SeenFact } from './facts.ts';

/** All that one look at a peer under watch saw, since the watch began. */
export interface Look {
  readonly atMs: number;
  /** Of the federation audit, those that concern the peer. */
  readonly federation: readonly AuditedEvent[];
  /** Of the node's other audit: what aborts pulls is written there alone. */
  readonly local: readonly AuditedEvent[];
  /** What came from the peer, and how it was judged. */
  readonly facts: readonly SeenFact[];
  readonly judged: readonly JudgedFact[];
  /** Fingerprint of the key in each of the peer's documents; null where it could not be read. */
  readonly shows: { readonly wellKnown: string | null; readonly manifest: string | null };
}

export interface Watching {
  readonly policy: WatchPolicy;
  /** Of the key that people approved; null: none was. */
  readonly fingerprint: string | null;
  /** Facts of the peer within `policy.burst.within` before it turned, as a mean; null: not known. */
  readonly baseline: number | null;
}

/** A rule that shuts the door by itself. */
interface Tripwire {
  readonly name: string;
  readonly why: string;
  readonly look: (look: Look, watching: Watching) => Omit<Trip, 'wire'> | undefined;
}

const mostIds = 20;

export const tripwires: readonly Tripwire[] = [
  anyOf('scopeViolation', ['scope_violation'], 'A peer that asks for a scope it was not granted tries doors.'),
  {
    name: 'replays',
    why: "A token that comes again is another's hand on the wire, or a peer that lost its own clock.",
    look: ({ federation }, { policy }) => burstOf(federation, ['replay_attempt'], policy.replays),
  },
  {
    name: 'rejectedTokens',
    why: 'One may be a clock; several within a minute are somebody without the key.',
    look: ({ federation }, { policy }) => burstOf(federation, ['rejected_token'], policy.rejectedTokens),
  },
  anyOf('rejectedFacts', ['rejected_fact', 'san_mismatch'], 'Its signature, its name or its certificate is not what was agreed.'),
  anyOf(
    'integrityRejected',
    ['federation_integrity_rejected'],
    'A fact whose content is not what its id says; it also aborts the pull of every peer.',
  ),
  anyOf('clockRejected', ['peer_hlc_anomaly'], 'A clock out of bounds; it also aborts the pull of every peer.'),
  {
    name: 'manifestChanged',
    why: 'People approved one key. Another one, or another manifest, is another peer.',
    look: ({ federation, shows }, { fingerprint }) => {
      const stored = federation.filter(({ type }) => type === 'manifest_stored' || type === 'manifest_refresh_failed');
      if (stored.length > 0) return { why: `${stored.length} times its stored manifest was changed, or could not be`, ids: idsOf(stored) };
      const other = [shows.wellKnown, shows.manifest].find((shown) => shown !== null && shown !== fingerprint);
      return other === undefined || fingerprint === null
        ? undefined
        : { why: 'it shows another key than the one that was approved', ids: [] };
    },
  },
  {
    name: 'badFact',
    why: 'An instruction, a sensitive or never granted scope, a fact like one that was undone: whatever would not be let in.',
    look: ({ judged }) => {
      const bad = judged.filter(({ action }) => action !== 'keep');
      const rules = [...new Set(bad.flatMap(({ rule }) => rule.split('+')))].toSorted();
      return bad.length === 0
        ? undefined
        : { why: `${bad.length} facts came that would not be let in: ${rules.join(', ')}`, ids: idsOf(bad) };
    },
  },
  {
    name: 'burst',
    why: 'Many more than it used to send, by our own clock.',
    look: ({ facts }, { policy: { burst }, baseline }) => {
      const limit = Math.max(burst.facts, Math.ceil((baseline ?? 0) * burst.times));
      const timed = facts
        .flatMap((fact) => {
          const at = arrivalMs(fact);
          return at === null ? [] : [{ id: fact.id, type: '', at: new Date(at).toISOString(), detail: '' }];
        })
        .toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at));
      const run = densest(timed, durationMs(burst.within));
      if (run.length < limit) return undefined;
      const before = baseline === null ? '' : `; before it turned it sent ${baseline.toFixed(1)} in such a time`;
      return { why: `${run.length} facts within ${burst.within}${before}`, ids: idsOf(run) };
    },
  },
];

/** The wire of a watch that sees nothing. */
export const blindWire = 'blind';

/** What a look touched: every wire, so that people see all of it. */
export function tripsOf(look: Look, watching: Watching): Trip[] {
  return tripwires.flatMap(({ name, look: touches }) => {
    const touched = touches(look, watching);
    return touched === undefined ? [] : [{ wire: name, ...touched }];
  });
}

/** A node that can't be asked for too long fails closed: nobody knows what comes in. */
export function blindTrip(lastMs: number, nowMs: number, { blindAfter }: WatchPolicy): Trip | undefined {
  if (nowMs - lastMs < durationMs(blindAfter)) return undefined;
  return { wire: blindWire, why: `the node could not be asked for ${spanWords(nowMs - lastMs)}`, ids: [] };
}

/** One such event is enough, in whichever of the node's two audits it stands. */
function anyOf(name: string, types: readonly string[], why: string): Tripwire {
  return {
    name,
    why,
    look: ({ federation, local }) => {
      const found = [...federation, ...local].filter(({ type }) => types.includes(type));
      return found.length === 0 ? undefined : { why: `${found.length} ${types.join(' or ')}`, ids: idsOf(found) };
    },
  };
}

function burstOf(
  events: readonly AuditedEvent[],
  types: readonly string[],
  { atLeast, within }: WatchPolicy['replays'],
): Omit<Trip, 'wire'> | undefined {
  const matching = events.filter(({ type }) => types.includes(type)).toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at));
  const run = densest(matching, durationMs(within));
  return run.length < atLeast ? undefined : { why: `${run.length} ${types.join(' or ')} within ${within}`, ids: idsOf(run) };
}

function idsOf(of: readonly { readonly id: string }[]): string[] {
  return of.slice(0, mostIds).map(({ id }) => id.slice(0, 300));
}
