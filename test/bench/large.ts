import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import type { ManagedProcess } from '../../src/lab/processes.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { figure, type Figure } from './figures.ts';
import { historyOf } from './history.ts';
import { seedFacts } from './host.ts';
import { expel, gate, startIncident, until, type Incident } from './incident.ts';
import { benchLab, type BenchLab } from './lab.ts';

const run = promisify(execFile);
const kept = 5;
/** The node's own limit of reads decides how long asking again takes: with few it is cordon that is measured. */
const entities = 50;
const patienceMs = 3_600_000;
const Planned = z.object({ items: z.array(z.object({ id: z.string() })) });

/** One incident from start to expulsion with very many facts, with a host worker: what each part takes, and what it costs. */
export async function largeFigures({ facts, most }: { facts: number; most: { events: number; kb: number } }): Promise<Figure[]> {
  const group = `${facts} facts, host worker`;
  const lab = await benchLab(`large-${facts}`, 0);
  try {
    const [peer] = lab.peers;
    if (!peer) throw new Error('no peer');
    // No two on one triple: for each that shares it with a new statement the node writes two conflict facts.
    await seedFacts(lab.ours, peer.nodeId, facts, entities, facts + 1);
    const [worker, host] = [lab.worker(), lab.hostWorker()];
    await Promise.all([worker.start(), host.start()]);
    const weights = { worker: weigh(worker), host: weigh(host) };
    const incident = await startIncident(lab.client, peer);
    const first = await gate(incident, 'retract', patienceMs);
    const seconds = await decide(lab, incident, { facts, digest: first.digest });
    const done = await until(incident, 'the end of undoing', ({ phase }) => phase === 'rotate', patienceMs);
    await assertUndone(lab, peer.nodeId, facts - kept);
    const undone = done.steps.find(({ name }) => name === 'undoFacts');
    if (undone?.outcome !== 'verified') throw new Error(`undoFacts: ${JSON.stringify(undone)}`);
    const { outcome } = await expel(incident, first.run);
    if (outcome !== 'expelled') throw new Error(`expected expelled, got ${outcome}`);
    const heaviest = { worker: weights.worker(), host: weights.host() };
    const history = await historyOf(lab.client, incident.workflowId);
    const one = (what: string, unit: string, value: number, bound?: number): Figure =>
      figure({ group, what, unit, value, ...(bound === undefined ? {} : { bound: { of: 'value', most: bound } }) });
    const took = (name: string): number =>
      history.activities.reduce((sum, { name: is, startedAt, endedAt }) => sum + (is === name ? (endedAt - startedAt) / 1_000 : 0), 0);
    const since = (name: string): number => {
      const last = history.activities.find((activity) => activity.name === name && activity.endedAt > 0);
      return ((last?.endedAt ?? Number.NaN) - (history.activities[0]?.scheduledAt ?? Number.NaN)) / 1_000;
    };
    return [
      one('start to the peer revoked', 's', since('revokePeers')),
      one('start to gate retract open', 's', since('assess')),
      ...phases.map((name) => one(`time in ${name}`, 's', took(name))),
      one('cordon show at the gate', 's', seconds.show, 5),
      one('cordon plan at the gate', 's', seconds.plan, 5),
      one('cordon plan --json, all items', 's', seconds.json),
      one(`cordon amend, ${kept} facts kept, until the next opening`, 's', seconds.amend),
      one('events in the history', '', history.events, most.events),
      one('size of the history', 'KB', history.bytes / 1_024, most.kb),
      one('worker, memory above idle', 'MB', heaviest.worker),
      one('host worker, memory above idle', 'MB', heaviest.host),
      one('size of the evidence', 'MB', (await sizeOf(join(lab.dir, 'evidence'))) / 2 ** 20),
    ];
  } finally {
    await lab.stop();
  }
}

const phases = [
  'captureLocal',
  'captureHost',
  'listFacts',
  'collectFacts',
  'assess',
  'narrowPlan',
  'remakePlan',
  'suppressFacts',
  'undoFacts',
  'coverCards',
  'verifyUndone',
] as const;

/** What people do at the gate, with the command line that they have: look, keep a few, approve. Gives seconds. */
async function decide(lab: BenchLab, incident: Incident, { facts, digest }: { facts: number; digest: string }) {
  const id = incident.workflowId;
  const show = await cordon(lab, ['show', id]);
  const plan = await cordon(lab, ['plan', id]);
  const json = await cordon(lab, ['plan', id, '--json']);
  const { items } = Planned.parse(JSON.parse(json.stdout));
  if (items.length !== facts) throw new Error(`cordon plan gave ${items.length} of ${facts} facts`);
  const keep = items.slice(0, kept).flatMap((item) => ['--keep', `${item.id}=an agent of ours wrote it there`]);
  const amend = await cordon(lab, ['amend', id, '--digest', digest, ...keep, '--by', 'alice']);
  const next = await gate(incident, 'retract', patienceMs);
  if (next.digest === digest) throw new Error('the plan was amended, and its digest is the same');
  await cordon(lab, ['approve', id, '--gate', 'retract', '--digest', next.digest, '--by', 'bob']);
  return { show: show.seconds, plan: plan.seconds, json: json.seconds, amend: amend.seconds };
}

async function cordon(lab: BenchLab, args: readonly string[]): Promise<{ stdout: string; seconds: number }> {
  const began = performance.now();
  const { stdout } = await run(process.execPath, [join(repoRoot, 'bin', 'cordon.js'), ...args], {
    cwd: lab.dir,
    env: {
      PATH: process.env['PATH'],
      HOME: lab.dir,
      TEMPORAL_ADDRESS: lab.temporal.address,
      CORDON_EVIDENCE_DIR: join(lab.dir, 'evidence'),
    },
    maxBuffer: 2 ** 30,
  });
  return { stdout, seconds: (performance.now() - began) / 1_000 };
}

/** By the node's own rows, and by what the node answers. */
async function assertUndone(lab: BenchLab, nodeId: string, expected: number): Promise<void> {
  const [row] = await lab.ours.sql(
    "SELECT COUNT(*) AS n FROM fact_validity_overrides o JOIN facts f ON f.id = o.fact_id WHERE f.received_from = ? AND o.valid_until < '2000'",
    [nodeId],
  );
  if (Number(row?.['n']) !== expected) throw new Error(`${String(row?.['n'])} of ${expected} facts were suppressed`);
}

/** Watches a process's resident set; called, it gives how far it rose above what it was, in MB. */
function weigh(watched: ManagedProcess): () => number {
  const { pid, name } = watched;
  const now = (): number => {
    const kb = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    if (kb === undefined) throw new Error(`${name}: no VmRSS of process ${pid}`);
    return Number(kb) / 1_024;
  };
  const idle = now();
  let peak = idle;
  const timer = setInterval(() => {
    // A run that failed stops its workers before anybody asks.
    if (watched.running) peak = Math.max(peak, now());
    else clearInterval(timer);
  }, 200);
  return () => {
    clearInterval(timer);
    return peak - idle;
  };
}

async function sizeOf(dir: string): Promise<number> {
  const files = (await readdir(dir, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const sizes = await Promise.all(files.map(async (file) => (await stat(join(file.parentPath, file.name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
