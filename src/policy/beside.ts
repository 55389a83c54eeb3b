import { canonicalJson, sha256Id } from '../contract/canonical.ts';
import type { JudgedFact } from '../contract/schemas.ts';
import { authorityOf } from './entity.ts';
import type { Collection, DerivedFact, PeerNames, SeenTombstone } from './facts.ts';
import { short } from './rule.ts';
import { handOperation, type WaysThere } from './way.ts';

/** What else the plan names: what is not a fact of the peer. */
interface Beside {
  readonly collection: Collection;
  readonly evidenceId: string;
  readonly peer: PeerNames;
  readonly ourEntityUri: string;
  readonly ways: WaysThere;
}

/** Rule `derivedFromBad`: a fact of others, made of one that is undone. Named for its owner; nothing is done to it by itself. */
export function judgeDerived(undone: ReadonlySet<string>, { collection, evidenceId }: Beside): JudgedFact[] {
  const byId = new Map(collection.derived.filter(({ from }) => undone.has(from)).map((derived) => [derived.id, derived]));
  return [...byId.values()].map((derived) => {
    const { id, from, entity, relation, scope, source, receivedFrom } = derived;
    const writer = receivedFrom === null ? `written here by ${short(source)}` : `received from ${short(receivedFrom)}, by ${short(source)}`;
    return {
      id,
      entity,
      relation,
      scope,
      action: 'hold',
      way: 'manual',
      rule: 'derivedFromBad',
      reason: `not the peer's: ${writer}, and says that it was derived from ${short(from)}, which is undone. Its owner decides. hold: nothing is done to it; by hand: ${handOperation(derived)}`,
      evidence: [evidenceId],
      contentHash: hashOf(derived),
      ours: receivedFrom === null ? 'it is one of ours' : 'none',
      derivedFrom: from,
    };
  });
}

function hashOf({ id, entity, relation, scope, source, receivedFrom, from }: DerivedFact): string {
  return sha256Id(canonicalJson({ id, entity, relation, scope, source, receivedFrom, from }));
}

/** Rule `tombstone`: the peer hides an entity here. Lifted, but for one that its signer may hide: an entity of its own. */
export function judgeTombstones({ collection, evidenceId, peer, ourEntityUri, ways }: Beside): JudgedFact[] {
  const theirs = [...peer.entityUris].map(authorityOf);
  // A signer who is said to be one of us is no excuse.
  const isOwn = ({ entity, signedBy }: SeenTombstone): boolean => {
    const authority = authorityOf(entity);
    return authority !== null && authority !== authorityOf(ourEntityUri) && [...theirs, authorityOf(signedBy)].includes(authority);
  };
  return collection.tombstones.map((tombstone): JudgedFact => {
    const { id, entity, scope } = tombstone;
    const base = {
      id,
      entity,
      relation: '',
      scope,
      rule: 'tombstone',
      evidence: [evidenceId],
      contentHash: sha256Id(canonicalJson({ ...tombstone })),
    };
    const words = wordsOf(tombstone);
    if (isOwn(tombstone))
      return {
        ...base,
        action: 'keep',
        way: 'none',
        reason: `${words}; benign: the entity is its signer's own to hide`,
        ours: 'stays hidden',
      };
    if (!ways.host)
      return { ...base, action: 'hold', way: 'manual', reason: `${words}. hold: only the host worker can lift it`, ours: 'stays hidden' };
    const why = "a revocation in the signer's name, which only this node believes; keep it if it is a lawful request to forget";
    return { ...base, action: 'lift', way: 'host', reason: `${words}. lift: ${why}`, ours: 'what stands on the entity is shown again' };
  });
}

function wordsOf({ entity, signedBy, receivedFrom, createdAt, reason }: SeenTombstone): string {
  const from = receivedFrom === null ? '' : `, received from ${short(receivedFrom)}`;
  return `a tombstone signed by ${short(signedBy)}${from} on ${createdAt} hides ${short(entity)}${reason === null ? '' : ` (${short(reason)})`}`;
}
