import type { BacklogFetched, IncidentRef, PeerRef } from '../../src/contract/steps.ts';
import { walkBacklog, type BacklogLine } from '../../src/host/backlog.ts';
import { cancelSignal, headOf, seal } from '../deps.ts';
import { StepFailure } from '../failures.ts';
import { beat } from '../heartbeat.ts';
import { assertServes, type HostDeps } from './deps.ts';

/** More than this waits for no test: people see what was fetched, and that it was cut off. */
const mostFacts = 100_000;

export interface BacklogInput {
  readonly ref: IncidentRef;
  readonly peer: PeerRef;
  /** @default 100000 */
  readonly maxFacts?: number;
}

/** "Run a small test pull": what waits is looked at first, before any opening. Changes nothing on the node. */
export function hostBacklogActivities(deps: HostDeps) {
  return {
    /**
     * Seals what waits behind the fence, fetched with the node's own federation credentials, which are shown to nobody.
     * A peer that can't be reached, or that never ends, is `complete: false` with the reason.
     */
    async fetchBacklog({ ref, peer, maxFacts = mostFacts }: BacklogInput): Promise<BacklogFetched> {
      await assertServes(deps, ref);
      if (!Number.isInteger(maxFacts) || maxFacts < 1 || maxFacts > mostFacts)
        throw new StepFailure('InvalidInput', `maxFacts: expected 1 to ${mostFacts}, came ${maxFacts}`);
      const { database, federation } = deps;
      let end: Extract<BacklogLine, { kind: 'end' }> | undefined;
      const lines = walkBacklog(database, {
        peerIds: peer.peerIds,
        nodeId: peer.nodeId,
        privateKey: federation.privateKey,
        allowPrivate: federation.peerAllow,
        maxFacts,
        signal: cancelSignal(),
        onPage: (facts) => beat({ fetched: facts }),
      });
      async function* noted(): AsyncGenerator<BacklogLine> {
        for await (const line of lines) {
          if (line.kind === 'end') end = line;
          yield line;
        }
      }
      const sealed = await seal(deps, ref, `backlog ${ref.at}`, 'backlog', noted());
      const { facts = 0, pages = 0, complete = false, why = 'nothing was read' } = end ?? {};
      return {
        evidenceId: sealed.id,
        facts,
        complete,
        coverage: [
          {
            what: 'facts that wait behind the fence',
            seen: facts,
            complete,
            why: `${pages} pages as the node itself would pull them: ${why}`.slice(0, 500),
          },
        ],
        evidence: headOf(sealed),
      };
    },
  };
}
