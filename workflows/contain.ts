import { stepsByPhase, type Way } from '../src/contract/names.ts';
import { findPeerRows, lookForHost, readBackOverHttp, strongest } from './host.ts';
import type { Incident } from './incident.ts';
import { collect, mutate } from './policies.ts';
import { stepAgain, type manualStepDesk } from './steps.ts';

/** Is a host worker there now? Then what was done over HTTP is done in its way, which is the stronger one. */
export async function strengthen(incident: Incident): Promise<void> {
  const had = incident.state.host;
  await lookForHost(incident);
  if (!incident.state.host) return;
  if (!had) await findPeerRows(incident);
  const acts = containment(incident);
  // A pin is set over HTTP either way, and what pauses promotion is there or it is not.
  const better = stepsByPhase.contain.filter((name) => !had || (name !== 'blockRelays' && name !== 'pausePromotion'));
  const isWeaker = ({ way }: { readonly way: Way }) => way === 'http' || way === 'manual';
  const weaker = better.filter((name) =>
    incident.state.steps.some((done) => done.name === name && done.round === incident.state.round && isWeaker(done)),
  );
  await Promise.all(weaker.map((name) => stepAgain(incident, name, acts[name])));
}

/** Shuts the door at once, both ways, and waits for nobody: what was recorded of it before stands no more. */
export async function fenceAgain(incident: Incident): Promise<void> {
  const acts = containment(incident);
  await Promise.all((['fenceInbound', 'fenceOutbound'] as const).map((name) => stepAgain(incident, name, acts[name])));
}

/** The steps of Contain by name, each in the strongest way there is; the same acts read a manual step back. */
export function containment(incident: Incident) {
  const { state } = incident;
  return {
    fenceInbound: (attempt) => readBackOverHttp(incident, attempt, ({ quick }, of) => quick.revokePeers(of), mutate.fenceInbound),
    fenceOutbound: (attempt) => readBackOverHttp(incident, attempt, ({ quick }, of) => quick.revokePeers(of), mutate.fenceOutbound),
    blockRelays: ({ ref, readBack }) => mutate.blockRelays({ ref, readBack, peer: state.peer }),
    revokeTokens: (attempt) =>
      // Over HTTP it reads the whole audit, twice.
      strongest(incident, attempt, ({ quick }, of) => quick.revokeAccess({ ...of, part: 'tokens' }), collect.revokeTokens),
    revokeKeys: (attempt) =>
      strongest(incident, attempt, ({ quick }, of) => quick.revokeAccess({ ...of, part: 'keys' }), mutate.revokeKeys),
    lowerTrust: (attempt) => strongest(incident, attempt, ({ quick }, of) => quick.lowerTrustRules(of), mutate.lowerTrust),
    pausePromotion: (attempt) => strongest(incident, attempt, ({ quick }, of) => quick.pausePromotionJob(of), mutate.pausePromotion),
  } satisfies Parameters<typeof manualStepDesk>[1];
}
