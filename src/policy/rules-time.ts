import { durationMs, spanWords } from '../contract/duration.ts';
import { instantMs } from './facts.ts';
import { contractText, short, type Rule } from './rule.ts';

/** A stamp may be ahead by the clock skew the node takes (300 s) and as much again. */
const aheadMs = 600_000;
/** Honest stamps are as old as the fact's HLC, and one over 30 days old is refused (settings.py, federation_hlc_max_past_skew_s). */
const behindMs = 31 * 86_400_000;
/** A pull that was under way when the fence went up may still end. */
const fenceGraceMs = 30_000;

/** Rules about when a fact arrived, by our own node's clock, and when it says it was written. */
export const timeRules: readonly Rule[] = [
  {
    name: 'impossibleTime',
    serves: contractText,
    weight: 'alone',
    marksTurn: true,
    why: 'Nodes stamp facts themselves and refuse old clocks: a stamp ahead of its arrival, over a month behind it, or unreadable was made up.',
    judge: (seen, { arrivedMs }) => {
      const claimed = seen.fact?.timestamp ?? seen.quarantine?.timestamp;
      if (claimed === undefined) return undefined;
      const claimedMs = instantMs(claimed);
      if (claimedMs === null) return { reason: `its time ${short(claimed)} can't be read` };
      const arrived = arrivedMs(seen);
      if (arrived === null) return undefined;
      if (claimedMs > arrived + aheadMs) return { reason: `it is stamped ${spanWords(claimedMs - arrived)} after it arrived` };
      if (claimedMs < arrived - behindMs) return { reason: `it is stamped ${spanWords(arrived - claimedMs)} before it arrived` };
      return undefined;
    },
  },
  {
    name: 'afterFence',
    serves: 'Stop new data from the peer first.',
    weight: 'alone',
    marksTurn: false,
    why: 'It came in although the door was shut: by a relay, a key or a hole in the fence.',
    judge: (seen, { fencedAtMs, arrivedMs }) => {
      const arrived = arrivedMs(seen);
      if (arrived === null || fencedAtMs === null || arrived <= fencedAtMs + fenceGraceMs) return undefined;
      return { reason: `it arrived ${spanWords(arrived - fencedAtMs)} after the fence went up` };
    },
  },
  {
    name: 'afterFirstSuspicious',
    serves: 'Keep benign facts if you can justify them from audit evidence.',
    weight: 'alone',
    marksTurn: false,
    why: 'What a peer sends once it has turned can not be justified from audit evidence; people may still keep it.',
    judge: (seen, { turnedAtMs, arrivedMs }) => {
      const arrived = arrivedMs(seen);
      if (arrived === null || turnedAtMs === null || arrived < turnedAtMs) return undefined;
      return { reason: `it arrived at or after the first bad time, ${iso(turnedAtMs)}` };
    },
  },
  {
    name: 'closeToFirstSuspicious',
    serves: 'Check for: close to the first suspicious write.',
    weight: 'time',
    marksTurn: false,
    why: 'Honest facts also come shortly before: nearness alone would undo them.',
    judge: (seen, { policy, turnedAtMs, auditBadAtMs, arrivedMs }) => {
      const arrived = arrivedMs(seen);
      const windowMs = durationMs(policy.window);
      for (const badMs of [turnedAtMs, auditBadAtMs]) {
        if (arrived === null || badMs === null || Math.abs(arrived - badMs) > windowMs) continue;
        return { reason: `it arrived within ${policy.window} of the first bad time, ${iso(badMs)}` };
      }
      return undefined;
    },
  },
  {
    name: 'burst',
    serves: 'High-volume writes: unexpected high-volume writes from one peer.',
    weight: 'note',
    marksTurn: false,
    why: 'The first pull after federating is a burst too, and honest facts come beside one: it tells people where to look, no more.',
    judge: ({ id }, { bursts }) => {
      const reason = bursts.get(id);
      return reason === undefined ? undefined : { reason };
    },
  },
];

let lastIso = { ms: Number.NaN, text: '' };

/** One time stands in the reason of every fact. */
function iso(ms: number): string {
  if (lastIso.ms !== ms) lastIso = { ms, text: new Date(ms).toISOString() };
  return lastIso.text;
}
