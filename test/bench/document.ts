import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repoRoot } from '../../src/lab/tools.ts';
import { asRecord } from '../../src/lab/shapes.ts';
import type { Figure } from './figures.ts';

export const document = join(repoRoot, 'docs', 'explanation', 'performance.md');
const [begin, end] = ['<!-- figures: npm run bench -- --docs -->', '<!-- end of figures -->'];

export interface Machine {
  readonly cores: number;
  readonly cpu: string;
  readonly memoryGb: number;
  readonly platform: string;
  readonly node: string;
}

/** Puts the figures of this run in place of the last one's. */
export function writeDocument(figures: readonly Figure[], machine: Machine, at: string): void {
  const text = readFileSync(document, 'utf8');
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${document}: the marks around its figures are gone`);
  writeFileSync(document, `${text.slice(0, from + begin.length)}\n\n${section(figures, machine, at)}\n\n${text.slice(to)}`);
}

function section(figures: readonly Figure[], machine: Machine, at: string): string {
  const packages = asRecord(JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')));
  const sdk = String(asRecord(packages['dependencies'])['@temporalio/worker']);
  const head =
    `One run of ${at.slice(0, 10)}: ${machine.cores} cores (${machine.cpu.trim()}), ${machine.memoryGb} GB, ${machine.platform}, Node ${machine.node}, ` +
    `Temporal SDK ${sdk} and a dev server on a SQLite file, \`stigmem-node\` 0.9.0a12 on SQLite; node, server, worker and load on this one machine.`;
  const rows = figures.map((one) => {
    const { group, what, unit, value, baseline, ratio, bound, holds, samples } = one;
    const limit =
      bound === null
        ? ''
        : `${bound.of} ${bound.most === undefined ? `≥ ${bound.least}` : `≤ ${bound.most}`}: ${holds ? 'holds' : '**missed**'}`;
    const cells = [
      group,
      what,
      `${short(value)} ${unit}`,
      baseline === null ? '' : `${short(baseline)} ${unit}`,
      ratio === null ? '' : short(ratio),
      limit,
      String(samples),
    ];
    return `| ${cells.map((cell) => cell.trim()).join(' | ')} |`;
  });
  return [head, '', '| | figure | cordon | bare | ratio | bound | n |', '| --- | --- | --- | --- | --- | --- | --- |', ...rows].join('\n');
}

function short(value: number): string {
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}
