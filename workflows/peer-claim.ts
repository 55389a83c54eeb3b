import { CancellationScope, condition } from '@temporalio/workflow';

/**
 * Exists, under an id made from our node and one name of the peer, as long as an incident holds that peer.
 * Starting a workflow id is atomic where listing Visibility is not; its memo names the holder. It waits for
 * nothing: the holder ends it by terminating it, and a claim whose holder is dead is taken over.
 */
export async function PeerClaim(): Promise<void> {
  await CancellationScope.nonCancellable(() => condition(() => false));
}
