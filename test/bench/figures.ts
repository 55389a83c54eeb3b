import Table from 'cli-table3';

/** One line of the result. `ratio` is `value / baseline`; `bound` is about the ratio or about the value. */
export interface Figure {
  readonly group: string;
  readonly what: string;
  readonly unit: string;
  readonly value: number;
  /** The same done bare, in this run, on this node and server; null where nothing bare does it. */
  readonly baseline: number | null;
  readonly ratio: number | null;
  readonly bound: { readonly of: 'ratio' | 'value'; readonly least?: number; readonly most?: number } | null;
  /** null where there is no bound. */
  readonly holds: boolean | null;
  readonly samples: number;
  readonly note: string;
}

export interface Measured {
  readonly group: string;
  readonly what: string;
  readonly unit: string;
  readonly value: number;
  readonly baseline?: number;
  readonly bound?: Figure['bound'];
  readonly samples?: number;
  readonly note?: string;
}

export function figure({ baseline, bound = null, samples = 1, note = '', value, ...rest }: Measured): Figure {
  const ratio = baseline === undefined || baseline === 0 ? null : value / baseline;
  const judged = bound?.of === 'ratio' ? ratio : value;
  const holds = bound === null ? null : judged !== null && judged >= (bound.least ?? -Infinity) && judged <= (bound.most ?? Infinity);
  return { ...rest, value, baseline: baseline ?? null, ratio, bound, holds, samples, note };
}

/** The value below which this share of the samples lies; the nearest one, no interpolation. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))] ?? Number.NaN;
}

export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

function short(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}

function boundWords({ bound, holds }: Figure): string {
  if (bound === null) return '';
  const limit = bound.most === undefined ? `at least ${bound.least}` : `at most ${bound.most}`;
  return `${bound.of} ${limit}: ${holds ? 'holds' : 'MISSED'}`;
}

export function table(figures: readonly Figure[]): string {
  const made = new Table({ head: ['', 'figure', 'cordon', 'bare', 'ratio', 'bound', 'n'], style: { head: [], border: [] } });
  for (const one of figures) {
    const { group, what, unit, value, baseline, ratio, samples } = one;
    const bare = baseline === null ? '' : `${short(baseline)} ${unit}`;
    made.push([group, what, `${short(value)} ${unit}`, bare, ratio === null ? '' : short(ratio), boundWords(one), String(samples)]);
  }
  return made.toString();
}
