import { canonicalJson, planHash, sha256Id } from './canonical.ts';
import type { VerifiedKeys } from './steps.ts';

/** `rebind`: our node knows the node_id already; `register`: it does not. */
export type KeysAction = 'rebind' | 'register';

/** What gate `reregister` is about: this very key for this very node. The remarks are words about it. */
export function keysPlanHash({ remarks: _said, ...bound }: VerifiedKeys, action: KeysAction): string {
  return planHash([{ id: bound.nodeId, action, contentHash: sha256Id(canonicalJson(bound)) }]);
}
