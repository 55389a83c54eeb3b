import type { Collected } from './paging.ts';
import type { QuarantineEntry } from './wire.ts';

export interface PeerFactsFindings {
  /** Facts of the peer that were found. */
  readonly facts: number;
  /** Notes of receipt known to us, and counted by the node (-1: it would not count). */
  readonly receipts: number;
  readonly receiptsCounted: number;
  /** Named by a note, but neither readable nor in quarantine: perhaps the peer's; another sender's. */
  readonly lostOwn: number;
  readonly lostOthers: number;
  readonly quarantine: Collected<QuarantineEntry>;
  /** Facts of tenants that our key does not see; null: the node does not say. */
  readonly otherTenants: number | null;
  /** Facts of the peer whose arrival could not be read. */
  readonly noArrival: number;
}

/** Complete only if nothing is left that could be the peer's; each gap is a sentence of its own. */
export function judgePeerFacts(found: PeerFactsFindings): { complete: boolean; why: string } {
  const gaps: string[] = [];
  if (found.receiptsCounted < 0) gaps.push('the node would not count its notes of receipt');
  else if (found.receipts !== found.receiptsCounted) {
    gaps.push(
      `${found.receipts} of ${found.receiptsCounted} notes of receipt could be listed; facts under the others are unknown unless a page showed them`,
    );
  }
  if (found.lostOwn > 0) gaps.push(`${found.lostOwn} facts that were received, perhaps from the peer, can't be read`);
  if (found.lostOthers > 0) {
    gaps.push(`${found.lostOthers} facts received from others can't be read; the peer may be the origin of some, by relay`);
  }
  if (!found.quarantine.complete) gaps.push(found.quarantine.why);
  if (found.otherTenants === null) gaps.push('whether other tenants hold facts of the peer is unknown');
  else if (found.otherTenants > 0) gaps.push(`${found.otherTenants} facts belong to tenants that this key does not see`);
  const complete = gaps.length === 0;
  const notes = [
    `${found.facts} facts of the peer`,
    ...(complete ? [`every one of ${found.receipts} notes of receipt was followed to its fact`] : gaps),
    ...(found.noArrival > 0 ? [`${found.noArrival} without a readable time of arrival`] : []),
  ];
  return { complete, why: notes.join('; ') };
}
