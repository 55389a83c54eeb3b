import { hasOwnEnd, valueId, type OtherFact, type SeenFact } from './facts.ts';
import { contractText, short, type Rule } from './rule.ts';

const reviewText = 'Review what the peer wrote and what escaped quarantine.';
/** So many are named in a reason; all of them stand in the evidence. */
const named = 5;

/**
 * What kind of bad fact it is: asked only of what is undone, so nothing about a benign fact changes. None decides whether a
 * fact is undone; each says what undoing it means for others, or why it is undone although it seems out of sight.
 */
export const kindRules: readonly Rule[] = [
  {
    name: 'othersDerived',
    serves: reviewText,
    weight: 'note',
    marksTurn: false,
    why: "What was made of poison may be poison. It is not the peer's, so each stands in the plan as `derivedFromBad`, held for its owner.",
    judge: (seen, { derivedFrom }) => {
      const derived = derivedFrom(seen);
      if (derived.length === 0) return undefined;
      const names = derived.slice(0, named).map(({ id, source }) => `${short(id)} by ${short(source)}`);
      return { reason: `${facts(derived.length)} of others say that they were derived from it (${names.join(', ')}): look at them` };
    },
  },
  {
    name: 'confirmedHere',
    serves: 'Keep benign facts if you can justify them from audit evidence.',
    weight: 'note',
    marksTurn: false,
    why: "A local writer says the very same: its fact stays and goes on being recalled, whatever is done to the peer's. It may have copied the poison.",
    judge: (seen, { othersOn }) => {
      const same = sameWords(seen, othersOn(seen)).filter(({ receivedFrom }) => receivedFrom === null);
      if (same.length === 0) return undefined;
      const names = same.slice(0, named).map(({ id, source }) => `${short(id)} by ${short(source)}`);
      return { reason: `a local writer says the same (${names.join(', ')}), and that stays: look at it` };
    },
  },
  {
    name: 'saidByOtherPeer',
    serves: reviewText,
    weight: 'note',
    marksTurn: false,
    why: "Another peer delivered the very same as a fact of its own: that row is not this peer's and stays.",
    judge: (seen, { othersOn }) => {
      const same = sameWords(seen, othersOn(seen)).filter(({ receivedFrom }) => receivedFrom !== null);
      if (same.length === 0) return undefined;
      const names = same.slice(0, named).map(({ id, receivedFrom }) => `${short(id)} received from ${short(receivedFrom ?? '')}`);
      return { reason: `another peer says the same (${names.join(', ')}), and that stays: look at it` };
    },
  },
  {
    name: 'twoPeers',
    serves: contractText,
    weight: 'note',
    marksTurn: false,
    why: 'The node keeps one row for a fact id, with the peer that brought it first: undoing the row undoes it for both peers.',
    judge: ({ receivedFrom, originNodeId }) =>
      receivedFrom === null || originNodeId === null || receivedFrom === originNodeId
        ? undefined
        : {
            reason: `it was received from ${short(receivedFrom)} and names ${short(originNodeId)} as its origin: undoing it undoes what both delivered; who sent it again later is not recorded`,
          },
  },
  {
    name: 'expired',
    serves: contractText,
    weight: 'note',
    marksTurn: false,
    why: 'After its own end a fact is in no recall and on no card; one that an override ended is on its card still. Both are suppressed, so that no other override shows them again.',
    judge: (seen) => {
      const { expiredAt } = seen;
      if (typeof expiredAt !== 'string') return undefined;
      return hasOwnEnd(seen)
        ? { reason: `it expired at ${short(expiredAt)}, its own end: neither recall nor a card gives it now` }
        : { reason: `an override let it expire at ${short(expiredAt)}: direct recall does not give it, the card of its entity does` };
    },
  },
  {
    name: 'contradicted',
    serves: contractText,
    weight: 'note',
    marksTurn: false,
    why: 'A contradiction takes a fact out of the default query, with whatever it contradicts, and out of nothing else: recall still gives it.',
    judge: (seen, { othersOn, theirsOn, retractedBy }) => {
      const by = retractedBy(seen);
      const [others, theirs] = [othersOn(seen).length, theirsOn(seen)];
      const words = [
        ...(by === undefined ? [] : [`our retraction ${short(by)}`]),
        ...(others === 0 ? [] : [`${facts(others)} of others`]),
        ...(theirs < 1 ? [] : [`${facts(theirs)} of its own peer`]),
      ];
      return words.length === 0 ? undefined : { reason: `it is contradicted by ${words.join(' and ')}, and recalled all the same` };
    },
  },
  {
    name: 'inQuarantine',
    serves: 'Check for: promoted from quarantine.',
    weight: 'note',
    marksTurn: false,
    why: 'What waits in quarantine is rejected there, never retracted: a retraction would put a row of ours on a triple that nobody sees.',
    judge: ({ quarantine }) =>
      quarantine?.quarantine_status === 'pending'
        ? { reason: 'it waits in quarantine, where anybody who promotes may still let it out' }
        : undefined,
  },
];

/** Facts of others that say the very same on the same triple. */
function sameWords({ fact }: SeenFact, others: readonly OtherFact[]): readonly OtherFact[] {
  if (fact === null || others.length === 0 || fact.sanitizer_redacted) return [];
  const says = valueId(fact.value);
  return others.filter((other) => other.says === says);
}

function facts(count: number): string {
  return `${count} fact${count === 1 ? '' : 's'}`;
}
