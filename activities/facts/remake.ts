import type { JudgedFact } from '../../src/contract/schemas.ts';
import { isActionable } from './plans.ts';

/** The approved plan held against one made anew. */
export interface Compared {
  /** Approved and unchanged: goes ahead. What can't be found any more stands here as `hold`: nothing is done to it. */
  readonly go: readonly JudgedFact[];
  /** Changed or new, with what people kept; empty when nobody has to decide anything. */
  readonly next: readonly JudgedFact[];
  readonly changed: number;
  readonly added: number;
  readonly missing: number;
}

/** An approval is about a fact's content and what is done to it; whatever differs is asked again. */
export function comparePlans(approved: readonly JudgedFact[], fresh: readonly JudgedFact[]): Compared {
  const before = new Map(approved.map((fact) => [fact.id, fact]));
  const go: JudgedFact[] = [];
  const next: JudgedFact[] = [];
  const carried: JudgedFact[] = [];
  let [changed, added] = [0, 0];
  for (const fact of fresh) {
    const was = before.get(fact.id);
    before.delete(fact.id);
    if (was === undefined) {
      added += 1;
      next.push(fact);
    } else if (was.justification !== undefined && was.contentHash === fact.contentHash) {
      // People kept exactly this: their word stands, in this opening and in later ones.
      go.push(was);
      carried.push(was);
    } else if (was.contentHash === fact.contentHash && was.action === fact.action) go.push(was);
    else {
      changed += 1;
      next.push(fact);
    }
  }
  for (const lost of before.values()) {
    const kept = lost.action === 'keep';
    go.push(
      kept
        ? lost
        : {
            ...lost,
            action: 'hold',
            way: 'none',
            reason: `not found when the plan was made again, so nothing is done to it; was: ${lost.reason}`.slice(0, 3_000),
          },
    );
  }
  if (next.some(isActionable)) return { go, next: [...next, ...carried], changed, added, missing: before.size };
  // Nobody has to decide about what is only kept or held: it goes along, so that it stays on record.
  return { go: [...go, ...next], next: [], changed, added, missing: before.size };
}
