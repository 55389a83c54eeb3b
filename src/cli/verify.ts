import { verifyFolder } from '../evidence/verify.ts';
import type { Answer, Cli } from './cli.ts';
import { CliError } from './exit.ts';
import { clean, shellWord } from './text.ts';

/** `verify`: checks an evidence folder offline. Needs neither Temporal nor a worker. */
export async function verify(cli: Cli, folder: string, options: { head?: string[] }): Promise<Answer> {
  const heads = options.head ?? [];
  for (const head of heads) {
    if (/^(sha256:)?[0-9a-f]{64}$/.test(head)) continue;
    throw new CliError('usage', `--head: expected sha256: and 64 lower-case hex digits, got ${JSON.stringify(head)}`);
  }
  const result = await cli.working('checking the evidence', verifyFolder(folder, { expectHead: heads }));
  const warnings = result.warnings.map((text) => `warning: ${clean(text)}`);
  const counts = `${result.entries} entries, ${result.objects} objects, head ${result.head}`;
  if (!result.ok) {
    const { where, what } = result.firstProblem ?? { where: folder, what: 'unknown' };
    const text = [`first problem: ${clean(where)}: ${clean(what)}`, `before it: ${counts}`, ...warnings];
    const next = 'DOES NOT VERIFY: keep this folder untouched and compare it with a copy';
    return { next, text, json: { folder, ...result }, exit: 'unverified' };
  }
  const hint =
    heads.length === 0
      ? `Nobody can see from the folder alone that lines were cut off its end: give --head from the history (cordon show) or a report.\n  cordon verify ${shellWord(folder)} --head sha256:…`
      : 'The head given is in the chain: nothing before it is missing.';
  return { next: `verified: ${counts}`, text: [hint, ...warnings], json: { folder, ...result } };
}
