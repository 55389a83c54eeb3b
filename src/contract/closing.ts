import { canonicalJson, planHash, sha256Id } from './canonical.ts';
import type { CloseRequest } from './schemas.ts';

/** How an incident that closes ended, and who wanted it so. `restored` is asked by the workflow itself, after the watch. */
export type ClosedAs = CloseRequest['outcome'] | 'restored';
export type Closure = Omit<CloseRequest, 'outcome' | 'run'> & { readonly outcome: ClosedAs };

/** What the plan of gate `close` or `restore` is named by. */
export function closureHash({ outcome, by, reason }: Closure): string {
  return planHash([{ id: outcome, action: 'close', contentHash: sha256Id(canonicalJson({ outcome, by, reason })) }]);
}

/** Full trust, after the watch of that round. */
export function restoring(round: number): Closure {
  return { outcome: 'restored', by: 'cordon', reason: `the watch of round ${round} is over` };
}
