import type { StepResult } from '../src/contract/steps.ts';
import { fetchedBacklog, lookForHost } from './host.ts';
import type { Incident } from './incident.ts';
import { collect } from './policies.ts';
import { holdFor, step } from './steps.ts';

/**
 * Recover 5: "Run a small test pull and watch quarantine/audit events before restoring full trust." What waits behind the
 * fence is judged before anything is opened. Opening is not in this version: it holds there, fenced, until people close.
 */
export async function pullForTest(incident: Incident): Promise<never> {
  incident.enter('testPull');
  for (;;) {
    await step(incident, 'judgeBacklog', () => judgeBacklog(incident));
    await holdFor(incident, {
      step: 'testPull',
      why: `This version does not let a peer in again: the test pull and the watch are not built. The peer stays fenced. ${waitsWords(incident)}`,
      how: 'cordon retry <incident> testPull --by <you> judges anew what waits; cordon close <incident> --outcome expelled (it never comes back) or --outcome dismissed (false alarm) --reason … --by <you> ends it.',
    });
    incident.forget('judgeBacklog');
  }
}

function waitsWords({ state }: Incident): string {
  return state.steps.findLast(({ name }) => name === 'judgeBacklog')?.detail ?? '';
}

/** By the host worker alone: over HTTP what comes in is recalled before anybody can judge it, in quarantine and in a tenant of its own too. */
async function judgeBacklog(incident: Incident): Promise<StepResult> {
  const { state } = incident;
  await lookForHost(incident);
  const { peer, policy, firstBad } = state;
  const fetched = await fetchedBacklog(incident);
  if (!fetched || !peer) {
    const why = state.host ? 'the host worker could not fetch it (see warnings)' : 'no host worker serves this incident';
    const detail = `what waits behind the fence is not judged: ${why}, and over HTTP nothing can be judged before it is recalled. Expel the peer, or have it come back under a new node_id and entity URI with nothing in store`;
    return { outcome: 'unverified', way: 'none', detail, evidence: state.evidence };
  }
  // One that was skipped tells nothing of the key.
  const newKeySince = state.steps.findLast(({ name, outcome }) => name === 'verifyKeys' && outcome === 'verified')?.at ?? null;
  return collect.judgeBacklog({ ref: incident.ref(), peer, policy, firstBad, newKeySince, backlog: fetched.evidenceId });
}
