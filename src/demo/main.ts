import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Status } from '../contract/schemas.ts';
import { listIncidentFolders } from '../evidence/find.ts';
import { verifyFolder } from '../evidence/verify.ts';
import { connectTemporal, loadTemporalSettings } from '../temporal.ts';
import { attack } from './attack.ts';
import { deliveredBy } from './look.ts';
import { Narrator } from './narrate.ts';
import { Operator } from './operator.ts';
import { liveHonestly, startParties } from './parties.ts';
import { alertAndContain, approveAndUndo, askAgain, expel, secondIncidentJoins, type Scene } from './story.ts';

const usage = `usage: npm run demo [-- --interactive] [-- --http-only] [-- --json FILE]
  --interactive   stop at the gates and leave them to you
  --http-only     without a host worker: what HTTP alone can do, and what it leaves
  --json FILE     write what was checked to FILE, for scripts`;

/**
 * The whole runbook on real parts on this machine, told step by step. Ends by itself.
 * @returns the exit code: 0 when all that was expected was seen, 1 when not, 2 for wrong usage
 */
export async function runDemo(args: readonly string[]): Promise<number> {
  let options: {
    interactive?: boolean | undefined;
    'http-only'?: boolean | undefined;
    json?: string | undefined;
    help?: boolean | undefined;
  };
  try {
    options = parseArgs({
      args: [...args],
      options: {
        interactive: { type: 'boolean' },
        'http-only': { type: 'boolean' },
        json: { type: 'string' },
        help: { type: 'boolean' },
      },
    }).values;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}\n`);
    return 2;
  }
  if (options.help) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  const story = new Narrator();
  story.chapter('Four Stigmem nodes and a Temporal server start, all real, all on loopback');
  const parties = await startParties();
  let result: Result;
  try {
    story.say(
      `home is ours (${parties.ours.url}), mallory is the peer that will turn (${parties.peer.url}), innocent and downstream are peers too.`,
    );
    story.say(`Temporal Web UI: ${parties.temporal.uiUrl}`);
    const temporal = await connectTemporal(loadTemporalSettings({ TEMPORAL_ADDRESS: parties.temporal.address }), { timeoutMs: 10_000 });
    const operator = new Operator(parties, story, temporal);
    try {
      const how = { interactive: options.interactive ?? false, httpOnly: options['http-only'] ?? false };
      result = await tell(parties, story, operator, how);
    } finally {
      await operator.stop();
      await temporal.close();
    }
  } finally {
    await parties.stop();
  }
  story.chapter('What the incident verified by itself, and what it could not');
  story.steps(result.status.steps);
  story.chapter('What the demo looked at on the parts themselves');
  story.table();
  const count = (outcome: string): number => story.checks.filter((check) => check.outcome === outcome).length;
  if (options.json !== undefined) {
    const { status, report, audit } = result;
    await writeFile(
      options.json,
      `${JSON.stringify({ outcome: status.outcome, checks: story.checks, steps: status.steps, residual: status.residual, coverage: status.coverage, report, audit }, null, 2)}\n`,
    );
  }
  story.say(
    `${count('verified')} verified, ${count('residual')} residual (said, not hidden), ${count('FAILED')} failed; the incident names ${result.status.residual.length} residual risks.`,
  );
  story.say(`Report: ${result.report}`);
  story.say(`Audit:  ${result.audit}`);
  return count('FAILED') === 0 ? 0 : 1;
}

/** What the story ends with: the last status, and where the papers lie. */
interface Result {
  readonly status: Status;
  readonly report: string;
  readonly audit: string;
}

async function tell(
  parties: Scene['parties'],
  story: Narrator,
  operator: Operator,
  how: Pick<Scene, 'interactive' | 'httpOnly'>,
): Promise<Result> {
  story.chapter('The peer behaves: everybody writes, everybody gets it');
  const benignIds = await liveHonestly(parties);
  const arrived = await deliveredBy(parties.ours, parties.peer.nodeId);
  story.check(
    'federation works',
    benignIds.every((id) => arrived.some((fact) => fact.id === id)),
    'facts of the peer and of the innocent peer arrived with us, ours arrived downstream',
  );
  story.chapter('The peer turns');
  const { hostile } = await attack(parties, story, benignIds);
  const scene: Scene = { parties, story, operator, hostile, benignIds, ...how };
  try {
    const incident = await alertAndContain(scene);
    await secondIncidentJoins(scene, incident);
    await approveAndUndo(scene, incident);
    await askAgain(scene);
    await expel(scene, incident);
    return await report(scene, incident);
  } finally {
    await hostile.stop();
  }
}

/** Notices, report and audit lie beside the evidence, and the evidence verifies without any of the parts. */
async function report({ parties, story, operator }: Scene, incident: string): Promise<Result> {
  story.chapter('What is left behind: notices, report, evidence');
  const folder = (await listIncidentFolders(parties.evidenceDir)).find((found) => found.incident === incident);
  if (!folder) throw new Error('no evidence folder');
  const audit = join(parties.dir, 'audit');
  const audited = await operator.cordon('audit', incident, '--out', audit);
  story.check(
    'the audit passes',
    audited.code === 0,
    'made from history and evidence alone: every change that needed people has a valid approval before it',
  );
  const verified = await verifyFolder(folder.dir);
  story.check(
    'evidence verifies offline',
    verified.ok,
    verified.firstProblem
      ? `${verified.firstProblem.where}: ${verified.firstProblem.what}`
      : `${verified.entries} entries, ${verified.objects} objects, every hash fits`,
  );
  const files = await readdir(join(folder.dir, 'files'));
  const written = (part: string): boolean => files.some((name) => name.includes(part));
  story.check('notices are written', written('peer') && written('downstream'), files.join(', '));
  const status = await operator.status(incident);
  await operator.cordon('verify', folder.dir);
  return { status, report: join(folder.dir, 'files', 'report.md'), audit };
}

if (import.meta.filename === process.argv[1]) process.exitCode = await runDemo(process.argv.slice(2));
