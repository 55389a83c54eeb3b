import type { CliConfig } from '../config.ts';
import type { TemporalSession } from '../temporal.ts';
import type { Answer, Cli } from './cli.ts';
import { chatChecks } from './doctor-chat.ts';
import { about, type Check, type Finding } from './doctor-finding.ts';
import { localChecks } from './doctor-local.ts';
import { nodeChecks } from './doctor-node.ts';
import { namespaceCheck, temporalChecks } from './doctor-temporal.ts';
import { workerChecks } from './doctor-workers.ts';
import type { Exit } from './exit.ts';
import { messageOf } from './text.ts';

/** Everything is said by then: what is not known yet is said as not known. */
const answerMs = 3_800;

/** `doctor`: everything an incident needs, checked side by side without changing anything. */
export async function doctor(cli: Cli): Promise<Answer> {
  const { config } = cli;
  const until = Date.now() + answerMs;
  const here = [...nodeChecks(cli), ...localChecks(config), ...chatChecks(cli)].map((check) => looked(check, until));
  const there = askTemporal(cli, config, until);
  const [temporal, ...others] = await cli.working('checking', Promise.all([there, ...here]));
  const findings = [...temporal, ...others];
  const bad = findings.filter((f) => f.state !== 'ok');
  const first = bad.find((f) => f.state === 'fail') ?? bad[0];
  const next = first === undefined ? 'all is well' : `next: ${first.mend ?? first.found}`;
  const text = findings.flatMap((f) => {
    const label = { ok: cli.colors.green('ok  '), warn: cli.colors.yellow('warn'), fail: cli.colors.red('FAIL') }[f.state];
    return [`${label}  ${f.check}: ${f.found}`, ...(f.mend === undefined || f.state === 'ok' ? [] : [`      mend: ${f.mend}`])];
  });
  return { next, text: ['', ...text], json: { findings }, exit: exitOf(findings, temporal) };
}

function exitOf(findings: readonly Finding[], [reach]: readonly Finding[]): Exit {
  if (reach?.state === 'fail') return 'unreachable';
  return findings.some(({ state }) => state === 'fail') ? 'failed' : 'ok';
}

/** Temporal first, then its namespace; the rest only where both are there. */
async function askTemporal(cli: Cli, { taskQueue, hostTaskQueue }: CliConfig, until: number): Promise<Finding[]> {
  const { ok, fail } = about('Temporal');
  let session: TemporalSession;
  try {
    session = await cli.temporal();
  } catch (error) {
    return [fail(messageOf(error), 'set TEMPORAL_ADDRESS, or start the server')];
  }
  const reach = ok(session.settings.address);
  const namespace = await looked({ name: 'namespace', look: () => namespaceCheck(session) }, until);
  if (namespace.state === 'fail') return [reach, namespace];
  // A worker that is not there explains much of the rest.
  const checks = [...workerChecks(session, taskQueue, hostTaskQueue), ...temporalChecks(session)];
  return [reach, namespace, ...(await Promise.all(checks.map((check) => looked(check, until))))];
}

/** One finding, whatever happens, by the time it has to be there. */
async function looked({ name, look }: Check, until: number): Promise<Finding> {
  const { fail } = about(name);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Finding>((resolve) => {
    const said = fail('not known: no answer in time', 'run doctor again; if it stays so, what it asks is too slow for an incident');
    timer = setTimeout(() => resolve(said), Math.max(0, until - Date.now()));
  });
  const found = look().catch((error: unknown) =>
    fail(`could not be looked at: ${messageOf(error)}`, 'mend what it names, then run doctor again'),
  );
  return await Promise.race([found, late]).finally(() => clearTimeout(timer));
}
