import { patched } from '@temporalio/workflow';
import type { Incident } from './incident.ts';
import { read } from './policies.ts';
import { insist } from './steps.ts';

/**
 * Holds this peer for this incident, under each of its names, or finds who does and hands our alerts over.
 * @returns the workflow id of the incident that holds the peer, or undefined when it is this one
 */
export async function claimPeer(incident: Incident): Promise<string | undefined> {
  const { peer, ourNode, start } = incident.state;
  if (!peer || !ourNode || incident.mode === 'drill') return undefined;
  const claimed = await insist(incident, 'resolvePeer', ({ ref }) => read.claimPeer({ ref, peer, ourNodeId: ourNode.nodeId }));
  const holder = claimed?.heldBy ?? undefined;
  if (holder === undefined) return undefined;
  const { reportedBy, reason } = start;
  for (;;) {
    const { alerts } = incident.state;
    const handed = await insist(incident, 'resolvePeer', ({ ref }) =>
      read.handOverAlerts({
        ref,
        to: holder,
        alerts,
        ...(reportedBy === undefined ? {} : { reportedBy }),
        ...(reason === undefined ? {} : { reason }),
      }),
    );
    // It closed meanwhile: nobody holds the peer any more.
    if (handed?.gone) return claimPeer(incident);
    // Each is known by its place in the list, so what was handed over before is not handed over twice.
    if (handed && incident.state.alerts.length > alerts.length && patched('alerts-meanwhile')) continue;
    incident.warn(`${holder} holds this peer; our ${alerts.length} alerts were ${handed ? '' : 'NOT '}handed over to it.`);
    return holder;
  }
}
