import { describe, expect, test } from 'vitest';
import { gates, phases } from '../../src/contract/names.ts';
import { samplesOf, summaryOf, type Sample } from '../../src/observe/overview.ts';

const now = Date.parse('2026-11-23T12:00:00Z');
const memo = (over: object) => ({
  cordon: { phase: 'retract', round: 1, mode: 'live', peer: 'p', gates: [], steps: [], outcome: null, since: {}, notVerified: {}, ...over },
});

/** The samples that are not 0, as `gauge label … = value`. */
function shown(samples: readonly Sample[]): string[] {
  return samples
    .filter(({ value }) => value !== 0)
    .map(({ gauge, labels, value }) => `${gauge} ${Object.values(labels).join(' ')} = ${value}`);
}

test('incidents are counted by phase, drills apart; gates by the oldest; steps by what they wait for', () => {
  const memos = [
    memo({ since: { retract: '2026-11-23T11:59:00Z', close: '2026-11-23T11:59:30Z' }, steps: ['revokeKeys:manual', 'undoFacts:parked'] }),
    memo({ since: { retract: '2026-11-23T10:00:00Z' }, notVerified: { unverified: 3, unavailable: 1 } }),
    // Rejected: it lies on the table, and waits for nobody's vote.
    memo({ since: { retract: null }, steps: ['undoFacts:held'], notVerified: { unverified: 2, unavailable: 0 } }),
    memo({ phase: 'rotate', mode: 'drill', steps: ['requestRotation:held'] }),
  ];
  expect(shown(samplesOf(memos.map(summaryOf), now))).toEqual([
    'incidents retract live = 3',
    'gatesWaiting retract live = 2',
    'gatesWaiting close live = 1',
    'gateOldestWait retract live = 7200',
    'gateOldestWait close live = 30',
    'stepsPending parked live = 1',
    'stepsPending manual live = 1',
    'stepsPending held live = 1',
    'stepsNotVerified unverified live = 5',
    'stepsNotVerified unavailable live = 1',
    'incidents rotate drill = 1',
    'stepsPending held drill = 1',
  ]);
});

test('every label is there each time, so that what closed goes back to 0', () => {
  const none = samplesOf([], now);
  const some = samplesOf([summaryOf(memo({ since: { retract: '2026-11-23T11:00:00Z' } }))], now);
  const keys = (samples: readonly Sample[]) => samples.map(({ gauge, labels }) => `${gauge} ${JSON.stringify(labels)}`);
  expect(keys(none)).toEqual(keys(some));
  expect(shown(none)).toEqual([]);
  expect(none).toHaveLength(2 * (phases.length + 2 * gates.length + 4 + 2));
});

describe('memos', () => {
  test('of 0.1.0, which has no counts, still give phase and steps', () => {
    const old = {
      cordon: { phase: 'rotate', round: 1, mode: 'live', peer: 'p', gates: ['retract#1'], steps: ['a:parked'], outcome: null },
    };
    expect(shown(samplesOf([summaryOf(old)], now))).toEqual(['incidents rotate live = 1', 'stepsPending parked live = 1']);
  });

  test.each([undefined, null, {}, { peer: 'p' }, { cordon: 'x' }, { cordon: { phase: 'lunch' } }])(
    'that say nothing yet count as an incident that has begun: %j',
    (early) => {
      expect(shown(samplesOf([summaryOf(early)], now))).toEqual(['incidents identify live = 1']);
    },
  );
});
