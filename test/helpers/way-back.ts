import type { TestWorkflowEnvironment } from '@temporalio/testing';
import type { StepResult } from '../../src/contract/steps.ts';
import { fakeWorld, newKeys, type FakeWorld } from './fake-activities.ts';
import { fakeHost, withHostWorker, type FakeHost } from './fake-host.ts';
import { decide, gateOpen, withIncident, type Incident } from './workflow-env.ts';

let hosts = 0;
export interface Back {
  readonly incident: Incident;
  readonly world: FakeWorld;
  readonly host: FakeHost;
}

/** An incident whose peer has its new key bound. */
export async function back(
  on: TestWorkflowEnvironment,
  act: (of: Back) => Promise<void>,
  change: Partial<FakeWorld> = {},
  start: object = {},
): Promise<void> {
  hosts += 1;
  const host = fakeHost();
  const byHost = { way: 'host' } as const;
  const results = new Map<string, Partial<StepResult>>([
    ['fenceInbound', byHost],
    ['fenceOutbound', byHost],
  ]);
  const world = fakeWorld({ hostQueue: `host-${hosts}`, keys: newKeys, facts: new Map([['fact-c', 'keep']]), results, ...change });
  const input = { peer: 'http://127.0.0.1:8802', ...start };
  await withHostWorker(on, `host-${hosts}`, host, () =>
    withIncident(
      on,
      world,
      async (incident) => {
        const { digest } = await gateOpen(incident, 'reregister');
        await decide(incident, { gate: 'reregister', decision: 'approve', digest, by: 'bob', fingerprint: newKeys.fingerprint });
        await act({ incident, world, host });
      },
      { input },
    ),
  );
}
