import type { FactAction, Way } from '../contract/names.ts';
import { SCOPES } from '../stigmem/wire.ts';
import { longestName, survivesNormalisation } from './entity.ts';
import { hasOwnEnd, type OtherFact, type SeenFact } from './facts.ts';

/** How one fact would be undone, why that way, and what it does to facts that are not the peer's. */
export interface ChosenWay {
  readonly action: Exclude<FactAction, 'keep'>;
  readonly way: Way;
  readonly why: string;
  readonly ours: string;
  readonly counter?: boolean;
}

/** Which ways into the node are there beside HTTP. */
export interface WaysThere {
  readonly host: boolean;
}

/** The table "undoing a fact": the strongest way that works and does no harm. */
export function chooseWay(
  seen: SeenFact,
  around: { others: readonly OtherFact[]; retractedBy: string | undefined },
  ways: WaysThere,
): ChosenWay {
  const { fact, quarantine } = seen;
  const { others, retractedBy } = around;
  const hold = (why: string): ChosenWay => ({
    action: 'hold',
    way: 'manual',
    why: `${why}; by hand: ${handOperation(seen)}`,
    ours: oursWords(others, 'stays as it is'),
  });
  if (quarantine?.quarantine_status === 'pending') {
    const why = 'pending in quarantine: rejected there';
    return { action: 'reject', way: 'http', why, ours: oursWords(others, 'stays hidden where it is hidden now') };
  }
  if (ways.host) {
    const why = 'expired on the host, which takes it out of direct recall and brings ours back';
    const ours = oursWords(others, 'becomes visible again');
    // The entity's card is built from raw rows, whatever an override ended: a second statement makes it contradictory, and recall skips it.
    if (fact === null || fact.confidence <= 0 || others.length > 0 || hasOwnEnd(seen) || !isPostable(seen))
      return { action: 'suppress', way: 'host', why, ours };
    return {
      action: 'suppress',
      way: 'host',
      why,
      ours,
      counter: true,
    };
  }
  if (quarantine?.quarantine_status === 'rejected') return hold('rejected in quarantine already; HTTP can do no more');
  if (retractedBy !== undefined) return hold(`retracted already by ${retractedBy}; HTTP can do no more`);
  if (fact === null) return hold('the node shows it to nobody over HTTP');
  if (fact.confidence <= 0) return hold('it is a retraction itself, and retracting it changes nothing');
  if (typeof seen.expiredAt === 'string') return hold('it has expired already; a retraction would take it out of nothing more');
  if (others.length > 0) return hold('a retraction would leave the facts beside it hidden');
  if (!survivesNormalisation(seen.entity)) return hold('POST would normalise its entity, and the retraction would hit another one');
  if (seen.relation === '' || seen.relation.length > longestName || !isScope(fact.scope))
    return hold('POST does not take its relation or scope');
  return {
    action: 'retract',
    way: 'http',
    why: 'no live fact of others shares its entity, relation and scope',
    ours: oursWords(others, ''),
  };
}

/** For a fact nobody touches: what it does to others now. */
export function oursWords(others: readonly OtherFact[], then: string): string {
  if (others.length === 0) return 'none on the triple';
  const hidden = others.filter((other) => other.hidden === true).length;
  const first = others[0]?.id.slice(0, 100) ?? '';
  const ours = others.filter((other) => other.receivedFrom === null).length;
  return `${others.length} on the triple (${ours} of ours, first ${first}), ${hidden} hidden from the default query now${then === '' ? '' : `: ${then}`}`;
}

/** Would POST /v1/facts put a fact on exactly this entity, relation and scope? */
function isPostable({ entity, relation, fact }: SeenFact): boolean {
  return survivesNormalisation(entity) && relation !== '' && relation.length <= longestName && isScope(fact?.scope ?? '');
}

function isScope(scope: string): boolean {
  return SCOPES.some((known) => known === scope);
}

/** Exactly what to do on the node's machine. The id is the sender's choice, so it is quoted as SQL wants it. */
export function handOperation({ id }: { readonly id: string }): string {
  const quoted = /^[\w:.-]{1,200}$/.test(id) ? `'${id}'` : "'<fact id as in the evidence, quotes doubled>'";
  return (
    'INSERT INTO fact_validity_overrides (fact_id, valid_until, reason, updated_at, updated_by) ' +
    `VALUES (${quoted}, '2000-01-01T00:00:00+00:00', 'R-PEER-COMPROMISE', '<now, ISO 8601>', '<you>')`
  );
}
