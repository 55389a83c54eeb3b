/**
 * Markdown built around strings that a hostile peer chose. Such a string only ever stands in a code span: there no
 * link, heading, image, mention or HTML is read, and nothing has to be escaped.
 */

/** Control and format characters, line separators, direction marks and lone surrogates: none belongs in an id or URL. */
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}]/gu;

/**
 * One untrusted string as a code span that it can't leave: fenced by more backticks than it holds in a row,
 * on one line, without control characters.
 * @param max - longer text is cut, and says so
 */
export function inlineCode(text: string, max = 200): string {
  const flat = text.slice(0, max * 4).replace(unprintable, '\u{FFFD}');
  const points = Array.from(flat);
  const shown = points.length > max || text.length > max * 4 ? `${points.slice(0, max).join('')}…` : flat;
  if (shown.trim() === '') return '`(empty)`';
  const longest = Math.max(0, ...[...shown.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = '`'.repeat(longest + 1);
  // A space on both sides keeps backticks at the ends out of the fence; every renderer takes it away again.
  const pad = /^[` ]|[` ]$/.test(shown) ? ' ' : '';
  return `${fence}${pad}${shown}${pad}${fence}`;
}

/** A heading and its list; `none` when there is nothing to list. */
export function section(title: string, items: readonly string[], none: string): string[] {
  return ['', `## ${title}`, '', ...(items.length === 0 ? [none] : items.map((item) => `- ${item}`))];
}

/** The first `max` of many, and how many more there are. */
export function firstOf<T>(items: readonly T[], max: number, show: (item: T) => string): string[] {
  const rest = items.length - max;
  return [...items.slice(0, max).map(show), ...(rest > 0 ? [`and ${rest} more`] : [])];
}
