import type { IncidentRef } from '../../src/contract/steps.ts';
import type { Recaller } from '../../src/host/traces.ts';
import { effectKey, evidenceOf, type Folder } from '../deps.ts';
import { parsed } from './collection.ts';
import { HostLine } from './host-listing.ts';

/**
 * Who asked recall in the scopes of the peer's facts since the first of them arrived, as the host worker listed it first in
 * this round; null where none did, for over HTTP nobody can know.
 */
export async function readRecallers(deps: Folder, ref: IncidentRef): Promise<readonly Recaller[] | null> {
  const store = await evidenceOf(deps, ref);
  const key = effectKey({ ...ref, phase: 'investigate' }, 'listFacts');
  const listing = (await store.entries()).find((entry) => entry.key === key);
  if (listing === undefined) return null;
  const id = `sha256:${listing.sha256}`;
  const found: Recaller[] = [];
  for await (const raw of store.lines(id)) {
    const line = parsed(HostLine, raw, id);
    if (line.kind === 'recaller') found.push(line.recaller);
  }
  return found;
}
