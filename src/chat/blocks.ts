import { toUSVString } from 'node:util';
import type { types } from '@slack/bolt';
import { clean } from '../cli/text.ts';

// Block Kit's limits: https://docs.slack.dev/reference/block-kit. Text that came from a peer, a node or a stranger goes
// into plain_text and rich_text only: there `<!channel>`, `<https://…>` and `*bold*` are the characters they are.

const sectionChars = 3_000;
const fieldChars = 2_000;

/** One line, safe to show, of at most `max` characters. */
export function fit(text: string, max: number): string {
  const safe = toUSVString(clean(text));
  if (safe.length <= max) return safe;
  // Not in the middle of a character.
  return `${safe.slice(0, max - 1).replace(/[\uD800-\uDBFF]$/, '')}…`;
}

export function plain(text: string, max: number): types.PlainTextElement {
  // Slack refuses an empty text.
  return { type: 'plain_text', text: fit(text, max) || '-', emoji: false };
}

/** Lines of ours and of others; each other's line stays one line. */
export function section(text: string): types.SectionBlock {
  const lines = text.split('\n').map((line) => fit(line, 600));
  const whole = toUSVString(lines.join('\n').slice(0, sectionChars));
  return { type: 'section', text: { type: 'plain_text', text: whole.trim() || '-', emoji: false } };
}

/** Names and what they are, two beside each other. */
export function fields(rows: readonly (readonly [string, string])[]): types.SectionBlock[] {
  const made = rows.map(([name, value]): types.PlainTextElement => ({
    type: 'plain_text',
    text: `${name}\n${fit(value, fieldChars - name.length - 1) || '-'}`,
    emoji: false,
  }));
  const blocks: types.SectionBlock[] = [];
  for (let at = 0; at < made.length; at += 10) blocks.push({ type: 'section', fields: made.slice(at, at + 10) });
  return blocks;
}

/** Small print. */
export function note(text: string): types.ContextBlock {
  return { type: 'context', elements: [plain(text, fieldChars)] };
}

/** What a command printed, in fixed width; cut with a word about it where a message can't hold more. */
export function printed(text: string): types.KnownBlock[] {
  const maxBlocks = 4;
  const lines = text.split('\n').map((line) => fit(line, sectionChars - 1));
  const chunks: string[] = [];
  for (const line of lines) {
    const last = chunks.at(-1);
    if (last !== undefined && last.length + line.length < sectionChars) chunks[chunks.length - 1] = `${last}\n${line}`;
    else chunks.push(line);
  }
  const shown = chunks.slice(0, maxBlocks).map((chunk): types.RichTextBlock => ({
    type: 'rich_text',
    elements: [{ type: 'rich_text_preformatted', elements: [{ type: 'text', text: chunk.trim() === '' ? '-' : chunk }] }],
  }));
  return chunks.length > maxBlocks ? [...shown, note('Cut: the same command on a terminal shows all of it.')] : shown;
}
