import { condition, defineSignal, proxyActivities, setHandler } from '@temporalio/workflow';

// The shape of the official approval samples: an activity, a wait for approve or a timeout, an activity.
// What it lacks (evidence, digests, who may decide, what survives a reset) is what cordon's ratio to it pays for.

const { prepare, act } = proxyActivities<{ prepare(): Promise<string>; act(): Promise<string> }>({ startToCloseTimeout: '1 minute' });

export const sampleApprove = defineSignal('approve');

export async function SampleApproval(): Promise<'approved' | 'timed out'> {
  let approved = false;
  setHandler(sampleApprove, () => {
    approved = true;
  });
  await prepare();
  if (!(await condition(() => approved, '24 hours'))) return 'timed out';
  await act();
  return 'approved';
}
