import Table from 'cli-table3';
import pc from 'picocolors';

/** One thing the demo looked at itself, on the real parts. `residual`: looked at, and honestly not undone. */
export interface Check {
  readonly what: string;
  readonly outcome: 'verified' | 'residual' | 'FAILED';
  readonly detail: string;
}

/** Tells the story in plain words, shows what an operator would type, and keeps what was checked. */
export class Narrator {
  readonly checks: Check[] = [];
  readonly #started = Date.now();
  readonly #colour = pc.createColors(process.stdout.isTTY && !process.env['NO_COLOR']);

  chapter(title: string): void {
    const seconds = ((Date.now() - this.#started) / 1000).toFixed(0).padStart(3);
    this.#print(`\n${this.#colour.dim(`[${seconds} s]`)} ${this.#colour.bold(title)}`);
  }

  say(text: string): void {
    this.#print(
      wrap(text, 92)
        .map((line) => `  ${line}`)
        .join('\n'),
    );
  }

  /** What a person would type. */
  command(words: readonly string[]): void {
    this.#print(`  ${this.#colour.cyan(`$ ${words.map(quoted).join(' ')}`)}`);
  }

  /** What came back; cut, the whole is in the evidence and the logs. */
  output(text: string, lines = 14): void {
    const all = text.trimEnd().split('\n');
    const shown = all.slice(0, lines).map((line) => `    ${line}`);
    if (all.length > lines) shown.push(`    … ${all.length - lines} more lines`);
    this.#print(this.#colour.dim(shown.join('\n')));
  }

  /** Records a check. A failed one makes the demo end with exit code 1. */
  check(what: string, holds: boolean, detail: string): void {
    this.#note({ what, outcome: holds ? 'verified' : 'FAILED', detail });
  }

  /** What stays: said, not hidden. Fails when it turns out not to stay, since then the words would be wrong. */
  residual(what: string, stays: boolean, detail: string): void {
    this.#note(
      stays
        ? { what, outcome: 'residual', detail }
        : { what, outcome: 'FAILED', detail: `expected to stay on this node, and did not: ${detail}` },
    );
  }

  #note(check: Check): void {
    this.checks.push(check);
    const mark = {
      verified: this.#colour.green('verified'),
      residual: this.#colour.yellow('RESIDUAL'),
      FAILED: this.#colour.red('FAILED'),
    };
    const [first = '', ...rest] = wrap(`${check.what}: ${check.detail}`, 82);
    this.#print([`  ${mark[check.outcome]}  ${first}`, ...rest.map((line) => `            ${line}`)].join('\n'));
  }

  /** The incident's own steps as its status has them: what it verified, and what it could not. */
  steps(steps: readonly { readonly name: string; readonly outcome: string; readonly way: string; readonly detail: string }[]): void {
    const table = new Table({
      head: ['step', 'outcome', 'way', 'detail'],
      colWidths: [18, 12, 8, 70],
      wordWrap: true,
      style: { head: [], border: [] },
    });
    for (const { name, outcome, way, detail } of steps)
      table.push([name, outcome, way, detail.length > 140 ? `${detail.slice(0, 139)}…` : detail]);
    this.#print(`\n${table.toString()}`);
  }

  table(): void {
    const table = new Table({
      head: ['looked at', 'result', 'what was seen'],
      colWidths: [38, 10, 60],
      wordWrap: true,
      style: { head: [], border: [] },
    });
    for (const { what, outcome, detail } of this.checks) table.push([what, outcome, detail]);
    this.#print(`\n${table.toString()}`);
  }

  #print(text: string): void {
    process.stdout.write(`${text}\n`);
  }
}

function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last === undefined || last.length + word.length + 1 > width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}
