import { z } from 'zod';

// What Slack takes, as https://docs.slack.dev/reference/block-kit says it, and stricter: text only where it is not read
// as markup. A message with anything else is a problem.

const plain = (max: number) => z.strictObject({ type: z.literal('plain_text'), text: z.string().min(1).max(max), emoji: z.literal(false) });
const confirm = z.strictObject({
  title: plain(100),
  text: plain(300),
  confirm: plain(30),
  deny: plain(30),
  style: z.enum(['primary', 'danger']),
});
const button = z.strictObject({
  type: z.literal('button'),
  text: plain(75),
  action_id: z.string().max(255),
  value: z.string().max(2_000).optional(),
  url: z.url().max(3_000).optional(),
  style: z.enum(['primary', 'danger']).optional(),
  confirm: confirm.optional(),
});
const block = z.union([
  z.strictObject({ type: z.literal('header'), text: plain(150) }),
  z.strictObject({ type: z.literal('section'), text: plain(3_000) }),
  z.strictObject({ type: z.literal('section'), fields: z.array(plain(2_000)).min(1).max(10) }),
  z.strictObject({ type: z.literal('context'), elements: z.array(plain(2_000)).min(1).max(10) }),
  z.strictObject({ type: z.literal('actions'), elements: z.array(button).min(1).max(25) }),
  z.strictObject({
    type: z.literal('rich_text'),
    elements: z.array(
      z.strictObject({
        type: z.literal('rich_text_preformatted'),
        elements: z.array(z.strictObject({ type: z.literal('text'), text: z.string().min(1).max(3_000) })).length(1),
      }),
    ),
  }),
]);
const message = z.object({
  // Above the blocks, and read as markup: nothing in it may be.
  text: z
    .string()
    .min(1)
    .max(200)
    .regex(/^[^<>&*_~`@]*$/, 'markup in the fallback text'),
  blocks: z.array(block).min(1).max(50),
});

/** What Slack, or we, would not let through. */
export function blockKitProblems(given: unknown): string[] {
  const parsed = message.safeParse(given);
  if (parsed.success) return [];
  return parsed.error.issues.map((issue) => `${issue.path.map(String).join('.')}: ${issue.message}`);
}

const Texts = z.object({ text: z.string() });

/** Everything a person can read in some blocks, one text a line. */
export function wordsOf(blocks: unknown): string {
  const found: string[] = [];
  const walk = (value: unknown): void => {
    if (Array.isArray(value)) for (const item of value) walk(item);
    else if (typeof value === 'object' && value !== null) {
      const own = Texts.safeParse(value);
      if (own.success) found.push(own.data.text);
      for (const item of Object.values(value)) if (typeof item === 'object') walk(item);
    }
  };
  walk(blocks);
  return found.join('\n');
}

const Actions = z.object({
  type: z.literal('actions'),
  elements: z.array(z.object({ action_id: z.string(), value: z.string().optional() })),
});

/** Buttons of some blocks: action id to value. */
export function buttonsOf(blocks: readonly unknown[]): Map<string, string> {
  const all = blocks.flatMap((given) => Actions.safeParse(given).data?.elements ?? []);
  return new Map(all.map(({ action_id: id, value = '' }) => [id, value]));
}
