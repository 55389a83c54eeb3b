import type { RuleContext, SeenFact } from './facts.ts';

/** What a rule has to say about one fact. */
export interface Finding {
  readonly reason: string;
  readonly evidence?: readonly string[];
}

export interface Rule {
  readonly name: string;
  /** The sentence of R-PEER-COMPROMISE it serves. */
  readonly serves: string;
  /**
   * `alone`: proposes undoing by itself. `content` and `time`: one of each together do. `note`: stands in the reason
   * and decides nothing.
   */
  readonly weight: 'alone' | 'content' | 'time' | 'note';
  /** Could no honest node have sent this? Then its arrival tells when the peer turned. */
  readonly marksTurn: boolean;
  /** Why it is, or is not, enough alone. */
  readonly why: string;
  readonly judge: (fact: SeenFact, context: RuleContext) => Finding | undefined;
}

export const contractText = 'Retract facts that are false, unsafe, or outside the agreed federation contract.';

/** Hostile text cut to what fits in a sentence. */
export function short(text: string): string {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 117)}...` : text);
}
