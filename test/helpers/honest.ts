import { decideUpdate } from '../../src/contract/messages.ts';
import type { DecisionAnswer, Status } from '../../src/contract/schemas.ts';
import { gateOpen, until, type Incident } from './workflow-env.ts';

/** One honest person, who reads the new digest in the answer where the run has changed meanwhile. */
export async function approveByUpdate(incident: Incident, by: string, digest: string): Promise<DecisionAnswer> {
  const vote = { gate: 'retract', decision: 'approve', by };
  for (let named = digest; ;) {
    const answer = await incident.executeUpdate(decideUpdate, { args: [{ ...vote, digest: named }] });
    if (answer.accepted || answer.digest === undefined) return answer;
    named = answer.digest;
  }
}

/** The other one, who reads status and signals. Gives how long it took until it counted. */
export async function approveBySignal(incident: Incident, by: string): Promise<number> {
  const began = Date.now();
  const isOpen = (now: Status) => now.waitingFor.some((one) => one.kind === 'gate' && one.gate === 'retract');
  for (;;) {
    const { digest } = await gateOpen(incident, 'retract');
    try {
      await incident.signal('approve', { gate: 'retract', digest, by });
    } catch (error) {
      // The run that was flooded takes no more, and the next is about to begin: the person sends it again.
      const said = error instanceof Error ? `${error.message} ${String(error.cause)}` : '';
      if (!/exceeded workflow execution limit for signal events/.test(said)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
      continue;
    }
    const voided = (now: Status) => now.refused.last.some((one) => one.by === by);
    const now = await until(incident, (seen) => !isOpen(seen) || voided(seen), 'the vote');
    if (!isOpen(now)) return Date.now() - began;
  }
}
