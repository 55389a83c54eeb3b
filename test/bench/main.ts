import { DefaultLogger, Runtime } from '@temporalio/worker';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, platform, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { repoRoot } from '../../src/lab/tools.ts';
import { approvalFigures } from './approval.ts';
import { daysFigures } from './days.ts';
import { document, writeDocument } from './document.ts';
import { factsFigures } from './facts.ts';
import { fenceFigures } from './fence.ts';
import { table, type Figure } from './figures.ts';
import { hostFigures } from './host.ts';
import { largeFigures } from './large.ts';
import { memoryFigures } from './memory.ts';
import { startFigures } from './start.ts';

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    facts: { type: 'string' },
    parked: { type: 'string' },
    docs: { type: 'boolean', default: false },
    out: { type: 'string', default: join(repoRoot, '.test', 'bench.json') },
  },
});
const { quick } = flags;
const whole = (flag: 'facts' | 'parked', otherwise: number): number => {
  const value = Number(flags[flag] ?? otherwise);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${flag}: expected a whole number, got ${flags[flag] ?? ''}`);
  return value;
};
const parked = whole('parked', 1_000);

const perEntity = 10;
const patienceMs = 3_600_000;
/** Where the bounds come from stands in docs/explanation/performance.md. */
const groups: Readonly<Record<string, () => Promise<Figure[]>>> = {
  fence: () => fenceFigures(quick ? { rounds: 1, facts: 20 } : { rounds: 12, facts: 1_000 }),
  approval: () => approvalFigures({ rounds: quick ? 1 : 20 }),
  facts: () => factsFigures({ facts: quick ? 20 : 1_000, perEntity, most: { events: 300, kb: 300 }, patienceMs }),
  memory: () => memoryFigures({ parked: quick ? 10 : parked }),
  host: () => hostFigures({ facts: quick ? 2_000 : 100_000 }),
  worker: () => startFigures({ rounds: quick ? 1 : 5 }),
  days: () => daysFigures({ days: quick ? 2 : 30 }),
  large: () => largeFigures({ facts: quick ? 3_000 : whole('facts', 100_000), most: { events: 400, kb: 1_024 } }),
  // The longest by far, so the others are on paper by then.
  many: () => factsFigures({ facts: whole('facts', 10_000), perEntity, most: { events: 400, kb: 1_024 }, analyze: true, patienceMs }),
};
/** What shows within a minute that the command works; its figures mean nothing. */
const quickGroups = ['fence', 'facts', 'large', 'worker'];

const machine = {
  cores: cpus().length,
  cpu: cpus()[0]?.model ?? '',
  memoryGb: Math.round(totalmem() / 2 ** 30),
  platform: platform(),
  node: process.version,
};

/** After each group: what was measured is kept, whatever becomes of the next. */
function keep(): void {
  const at = new Date().toISOString();
  mkdirSync(join(repoRoot, '.test'), { recursive: true });
  writeFileSync(flags.out, `${JSON.stringify({ at, quick, machine, figures, broken }, null, 2)}\n`);
  if (flags.docs) writeDocument(figures, machine, at);
}

Runtime.install({ logger: new DefaultLogger('ERROR'), shutdownSignals: [] });
const wanted = flags.only?.split(',') ?? (quick ? quickGroups : Object.keys(groups));
const figures: Figure[] = [];
const broken: string[] = [];
for (const name of wanted) {
  const group = groups[name];
  if (!group) throw new Error(`--only: expected some of ${Object.keys(groups).join(', ')}, got ${name}`);
  console.log(`── ${name} ──`);
  const began = Date.now();
  try {
    const found = await group();
    figures.push(...found);
    console.log(table(found));
  } catch (error) {
    // The others are worth having all the same.
    broken.push(name);
    console.log(error);
  }
  keep();
  console.log(`   ${((Date.now() - began) / 1_000).toFixed(1)} s`);
}
if (wanted.length > 1) console.log(table(figures));
console.log(`written to ${flags.out}${flags.docs ? ` and ${document}` : ''}`);
const missed = figures.filter(({ holds }) => holds === false);
if (missed.length > 0) console.log(`${missed.length} bound(s) missed: ${missed.map(({ group, what }) => `${group}: ${what}`).join('; ')}`);
if (broken.length > 0) {
  console.log(`could not be measured: ${broken.join(', ')}`);
  process.exitCode = 1;
}
