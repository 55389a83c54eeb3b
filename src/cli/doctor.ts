import { constants } from 'node:fs';
import { access, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { parseNodeConfig, type NodeConfig } from '../config.ts';
import { PolicyFile } from '../contract/policy.ts';
import { Stigmem } from '../stigmem/client.ts';
import { StigmemHttpError } from '../stigmem/errors.ts';
import type { Answer, Cli } from './cli.ts';
import { temporalChecks, type Finding } from './doctor-temporal.ts';
import { CliError, type Exit } from './exit.ts';
import { checked, readDataFile } from './input.ts';
import { clean } from './text.ts';

const maxSkewMs = 5_000;
const nodeMs = 3_000;

/** `doctor`: everything an incident needs, checked without changing anything. */
export async function doctor(cli: Cli): Promise<Answer> {
  const { config } = cli;
  const connected = await cli.temporal().catch((error: unknown) => messageOf(error));
  const reach: Finding =
    typeof connected === 'string'
      ? { check: 'Temporal', state: 'fail', found: connected, mend: 'set TEMPORAL_ADDRESS, or start the server' }
      : { check: 'Temporal', state: 'ok', found: connected.settings.address };
  const checks = [
    ...(typeof connected === 'string' ? [] : temporalChecks(connected, config.taskQueue)),
    ...nodeChecks(cli),
    () => evidenceCheck(config.evidenceDir),
    () => fileCheck('policy', 'CORDON_POLICY_FILE', config.policyFile, 'the built-in policy is used'),
    () => fileCheck('contacts', 'CORDON_CONTACTS_FILE', config.contactsFile, 'notices are written but nobody is named'),
  ];
  const found = await cli.working('checking', Promise.all(checks.map(guarded)));
  const findings = [reach, ...found];
  const bad = findings.filter((f) => f.state !== 'ok');
  const failed = bad.some((f) => f.state === 'fail');
  const first = bad.find((f) => f.state === 'fail') ?? bad[0];
  const next = first === undefined ? 'all is well' : `next: ${first.mend ?? first.found}`;
  const exit: Exit = reach.state === 'fail' ? 'unreachable' : failed ? 'failed' : 'ok';
  const text = findings.flatMap((f) => {
    const label = { ok: cli.colors.green('ok  '), warn: cli.colors.yellow('warn'), fail: cli.colors.red('FAIL') }[f.state];
    return [`${label}  ${f.check}: ${f.found}`, ...(f.mend === undefined || f.state === 'ok' ? [] : [`      mend: ${f.mend}`])];
  });
  return { next, text: ['', ...text], json: { findings }, exit };
}

async function guarded(check: () => Promise<Finding>): Promise<Finding> {
  try {
    return await check();
  } catch (error) {
    return { check: 'check', state: 'fail', found: `could not be made: ${messageOf(error)}` };
  }
}

function nodeChecks(cli: Cli): (() => Promise<Finding>)[] {
  let node: NodeConfig | undefined;
  try {
    node = parseNodeConfig(cli.io.env);
  } catch (error) {
    const found = messageOf(error);
    return [async () => ({ check: 'Stigmem node', state: 'fail', found, mend: 'docs/reference/config.md' })];
  }
  if (node === undefined) {
    const found = 'not configured here: STIGMEM_URL and the admin key are for the worker, and for this check';
    return [async () => ({ check: 'Stigmem node', state: 'warn', found, mend: 'set STIGMEM_URL and STIGMEM_ADMIN_KEY_FILE' })];
  }
  const { url, adminKey } = node;
  return [() => identityCheck(cli, url), () => rightsCheck(url, adminKey)];
}

/** Reachable, who it is, and whether its clock and ours agree: first bad times are told by these clocks. */
async function identityCheck(cli: Cli, url: string): Promise<Finding> {
  const check = 'Stigmem node';
  const mend = 'check STIGMEM_URL and that the node runs';
  try {
    const answer = await fetch(`${url}/.well-known/stigmem`, { redirect: 'manual', signal: AbortSignal.timeout(nodeMs) });
    await answer.body?.cancel();
    if (answer.status !== 200) return { check, state: 'fail', found: `${url} answers ${answer.status}`, mend };
    const skew = Date.parse(answer.headers.get('date') ?? '') - cli.io.now();
    if (Number.isNaN(skew)) return { check, state: 'warn', found: `${url} answers; it tells no time`, mend: 'compare its clock by hand' };
    const state = Math.abs(skew) > maxSkewMs ? 'warn' : 'ok';
    return { check, state, found: `${url} answers; its clock is ${(skew / 1_000).toFixed(1)} s from ours`, mend: 'set both clocks by NTP' };
  } catch (error) {
    return { check, state: 'fail', found: `${url}: ${messageOf(error)}`, mend };
  }
}

/** May the key read what an incident reads first? Only reads: peers and both audits. */
async function rightsCheck(url: string, adminKey: string): Promise<Finding> {
  const check = 'admin key';
  const client = new Stigmem({ url, adminKey, timeoutMs: nodeMs });
  try {
    const peers = await client.peers();
    await client.federationAuditPage({ limit: 1 });
    // Not the JSON page: one event without a fact id makes that a 500 on this node.
    await client.auditExport(1);
    return { check, state: 'ok', found: `reads ${peers.length} peers and the audit` };
  } catch (error) {
    const isRefused = error instanceof StigmemHttpError && (error.status === 401 || error.status === 403);
    const mend = isRefused ? 'use a key with admin and federation rights' : "look at the node's log: this is not about the key";
    return { check, state: 'fail', found: messageOf(error), mend };
  } finally {
    await client.close();
  }
}

async function evidenceCheck(dir: string): Promise<Finding> {
  const check = 'evidence folder';
  const path = resolve(dir);
  const exists = await stat(path).then(
    (s) => s.isDirectory(),
    () => false,
  );
  const mend = 'make it writable, or set CORDON_EVIDENCE_DIR';
  try {
    if (!exists) {
      await access(dirname(path), constants.W_OK);
      return { check, state: 'ok', found: `${path} will be made` };
    }
    const probe = join(path, `.doctor-${process.pid}`);
    await writeFile(probe, '', { flag: 'wx' });
    await rm(probe, { force: true });
    return { check, state: 'ok', found: `${path} is writable` };
  } catch (error) {
    return { check, state: 'fail', found: `${path}: ${messageOf(error)}`, mend };
  }
}

async function fileCheck(what: 'policy' | 'contacts', variable: string, file: string | undefined, without: string): Promise<Finding> {
  const check = `${what} file`;
  if (file === undefined) {
    return { check, state: what === 'policy' ? 'ok' : 'warn', found: `none: ${without}`, mend: `set ${variable}` };
  }
  const value = readDataFile(file, variable);
  if (what === 'policy') checked(PolicyFile, value, file);
  else if (typeof value !== 'object' || value === null) throw new CliError('usage', `${file}: expected a list or map of contacts`);
  return { check, state: 'ok', found: file };
}

const messageOf = (error: unknown) => clean(error instanceof Error ? error.message : String(error));
