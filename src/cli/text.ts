import Table from 'cli-table3';
import { spanWords } from '../contract/duration.ts';

/**
 * Text that came from a peer, a node or a stranger's signal, made safe for a terminal: no control
 * characters, no escape sequences, no direction marks that turn a line around.
 */
export function clean(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\u{FFFD}');
}

/** What an error says, safe for a terminal. */
export function messageOf(error: unknown): string {
  return clean(error instanceof Error ? error.message : String(error));
}

/** At most `max` characters, with an ellipsis. */
export function cut(text: string, max: number): string {
  return text.length <= max ? text : `${text.slice(0, Math.max(0, max - 1))}…`;
}

/** One argument as a POSIX shell takes it. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${clean(text).replaceAll("'", String.raw`'\''`)}'`;
}

/** `12m ago`, `in 3h`; the text itself when it is no time. */
export function when(iso: string, now: number): string {
  const at = Date.parse(iso);
  if (Number.isNaN(at)) return clean(iso);
  return at > now ? `in ${spanWords(at - now)}` : `${spanWords(now - at)} ago`;
}

const chars = Object.fromEntries(
  'top top-mid top-left top-right bottom bottom-mid bottom-left bottom-right left left-mid mid mid-mid right right-mid'
    .split(' ')
    .map((name) => [name, '']),
);

/**
 * A table without lines. The last column takes what is left of `width` and wraps; the others are cut
 * to `caps` characters, so that a row stays readable at 80 columns.
 */
export function table(head: string[], rows: string[][], width: number, caps: number[]): string {
  const gap = 2;
  const widths = head.map((title, i) => {
    const longest = Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0));
    return Math.min(longest, caps[i] ?? longest);
  });
  const fixed = widths.slice(0, -1).reduce((sum, w) => sum + w + gap, 0);
  const last = Math.max(12, Math.min(widths.at(-1) ?? 12, width - fixed));
  const grid = new Table({
    head,
    chars: { ...chars, middle: ' '.repeat(gap) },
    colWidths: [...widths.slice(0, -1), last],
    wordWrap: true,
    wrapOnWordBoundary: false,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0, compact: true },
  });
  for (const row of rows) {
    grid.push(row.map((cell, i) => (i === row.length - 1 ? clean(cell) : cut(clean(cell), widths[i] ?? 12))));
  }
  return grid.toString().replace(/ +$/gm, '');
}
