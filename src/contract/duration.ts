import { z } from 'zod';

const unitMs = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const pattern = /^([1-9][0-9]{0,6})([smhd])$/;

/** A duration as people write it: `<n>s|m|h|d`, n from 1 to 9,999,999. */
export const Duration = z.string().regex(pattern, 'expected a duration like 30s, 15m, 24h or 7d');
export type Duration = z.infer<typeof Duration>;

/**
 * Milliseconds of a {@link Duration}.
 * @param text - a parsed Duration; anything else gives NaN
 */
export function durationMs(text: Duration): number {
  const match = pattern.exec(text);
  const unit = match?.[2];
  if (unit !== 's' && unit !== 'm' && unit !== 'h' && unit !== 'd') return Number.NaN;
  return Number(match?.[1]) * unitMs[unit];
}

/** A span of time in words: `45s`, `3m`, `2h 10m`, `4d 3h`. */
export function spanWords(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s}s`;
  const m = Math.floor(s / 60);
  if (m < 60) return `${m}m`;
  const h = Math.floor(m / 60);
  if (h < 24) return m % 60 === 0 ? `${h}h` : `${h}h ${m % 60}m`;
  const d = Math.floor(h / 24);
  return h % 24 === 0 ? `${d}d` : `${d}d ${h % 24}h`;
}
