import { parseNodeConfig, type NodeConfig } from '../config.ts';
import { Stigmem } from '../stigmem/client.ts';
import { StigmemHttpError } from '../stigmem/errors.ts';
import type { Cli } from './cli.ts';
import { about, type Check, type Finding } from './doctor-finding.ts';
import { messageOf } from './text.ts';

const maxSkewMs = 5_000;
const nodeMs = 3_000;
/** No peer and no fact has this id: asked about it, a node says whether it would have been allowed, and does nothing. */
const nobody = 'cordon-doctor-asks-only';

export function nodeChecks(cli: Cli): Check[] {
  const name = 'Stigmem node';
  let node: NodeConfig | undefined;
  try {
    node = parseNodeConfig(cli.io.env);
  } catch (error) {
    const finding = about(name).fail(messageOf(error), 'docs/reference/config.md');
    return [{ name, look: () => Promise.resolve(finding) }];
  }
  if (node === undefined) {
    const found = 'not configured here: STIGMEM_URL and the admin key are for the worker, and for this check';
    const finding = about(name).warn(found, 'set STIGMEM_URL and STIGMEM_ADMIN_KEY_FILE');
    return [{ name, look: () => Promise.resolve(finding) }];
  }
  const { url, adminKey } = node;
  return [
    { name, look: () => identityCheck(cli, url) },
    { name: 'admin key', look: () => rightsCheck(url, adminKey) },
  ];
}

/** Reachable, who it is, and whether its clock and ours agree: first bad times are told by these clocks. */
async function identityCheck(cli: Cli, url: string): Promise<Finding> {
  const { ok, warn, fail } = about('Stigmem node');
  const mend = 'check STIGMEM_URL and that the node runs';
  try {
    const asked = cli.io.now();
    const answer = await fetch(`${url}/.well-known/stigmem`, { redirect: 'manual', signal: AbortSignal.timeout(nodeMs) });
    const body: unknown = await answer.json().catch(() => undefined);
    if (answer.status !== 200) return fail(`${url} answers ${answer.status}`, mend);
    if (typeof body !== 'object' || body === null || !('node_id' in body)) {
      return fail(`${url} answers, but not as a Stigmem node does`, 'look what listens there, and correct STIGMEM_URL');
    }
    const skew = Date.parse(answer.headers.get('date') ?? '') - (asked + cli.io.now()) / 2;
    if (Number.isNaN(skew)) return warn(`${url} answers; it tells no time`, 'compare its clock by hand');
    const found = `${url} answers; its clock is ${(skew / 1_000).toFixed(1)} s from ours`;
    return Math.abs(skew) > maxSkewMs ? warn(found, 'set both clocks by NTP: first bad times are told by them') : ok(found);
  } catch (error) {
    return fail(`${url}: ${messageOf(error)}`, mend);
  }
}

interface Right {
  /** The permission, as the node names it. */
  readonly permission: string;
  readonly without: string;
  readonly ask: readonly [method: string, path: string, body?: object];
  /** What the node answers to a key that has it: nobody has the id that is asked about. */
  readonly answers: readonly number[];
}

/** What an incident does with the key. Each asks in a way that changes nothing, whatever the answer. */
const rights: readonly Right[] = [
  {
    permission: 'federate',
    without: 'peers and the federation audit can not be read',
    ask: ['GET', '/v1/federation/audit?limit=1'],
    answers: [200],
  },
  {
    permission: 'admin:federation',
    without: 'no fence can be put up',
    ask: ['PATCH', `/v1/federation/peers/${nobody}`, {}],
    answers: [400, 404],
  },
  { permission: 'write', without: 'no fact can be retracted', ask: ['POST', `/v1/quarantine/${nobody}/reject`], answers: [404] },
  {
    permission: 'admin',
    without: 'keys and the whole audit can not be seen',
    ask: ['GET', '/v1/auth/keys/expiring-soon?within_days=1'],
    answers: [200],
  },
];

async function rightsCheck(url: string, adminKey: string): Promise<Finding> {
  const { ok, fail } = about('admin key');
  const client = new Stigmem({ url, adminKey, timeoutMs: nodeMs });
  try {
    const [peers, ...statuses] = await Promise.all([client.peers(), ...rights.map(({ ask }) => statusOf(url, adminKey, ask))]);
    // Not the JSON page: one event without a fact id makes that a 500 on this node.
    await client.auditExport(1);
    const isDenied = (status: number | undefined) => status === 401 || status === 403;
    const missing = rights.filter((_right, i) => isDenied(statuses[i]));
    const unknown = rights.flatMap(({ permission, answers }, i) => {
      const status = statuses[i] ?? 0;
      return isDenied(status) || answers.includes(status) ? [] : [`${permission} (the node, or a proxy before it, answered ${status})`];
    });
    if (missing.length === 0 && unknown.length > 0)
      return fail(
        `not known whether it may ${unknown.join(', ')}`,
        'look at the node and at what stands before it; 429: wait, its hourly quota is used up',
      );
    if (missing.length === 0)
      return ok(`reads ${peers.length} peers and the audit; may ${rights.map(({ permission }) => permission).join(', ')}`);
    const found = missing.map(({ permission, without }) => `has no permission ${permission}: ${without}`).join('; ');
    return fail(found, `use a key with ${rights.map(({ permission }) => permission).join(', ')} and read`);
  } catch (error) {
    const isRefused = error instanceof StigmemHttpError && (error.status === 401 || error.status === 403);
    return fail(
      messageOf(error),
      isRefused ? 'use a key with admin and federation rights' : "look at the node's log: this is not about the key",
    );
  } finally {
    await client.close();
  }
}

/** The status of one answer; the key goes nowhere but into its header. */
async function statusOf(url: string, adminKey: string, [method, path, body]: Right['ask']): Promise<number> {
  const answer = await fetch(`${url}${path}`, {
    method,
    redirect: 'manual',
    signal: AbortSignal.timeout(nodeMs),
    headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  await answer.body?.cancel();
  return answer.status;
}
