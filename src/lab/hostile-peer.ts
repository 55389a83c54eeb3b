import { join } from 'node:path';
import { httpAnswers, managedProcess, waitUntil } from './processes.ts';
import type { HostileFact } from './hostile-facts.ts';
import { asRecord, field, list, number, text } from './shapes.ts';
import type { StigmemNode } from './stigmem-node.ts';
import { freePort, labScripts, stigmemPython } from './tools.ts';

/** What the peer shows on `/.well-known/stigmem` and as its manifest. */
export type WellKnownMode = 'normal' | 'huge' | 'slow' | 'otherNode' | 'garbage';

/** Options of {@link turnHostile}. */
export interface HostileOptions {
  /** The node that is attacked: replays, pulls and pushes go there. */
  readonly target: StigmemNode;
  /** @default 'normal' */
  readonly wellKnown?: WellKnownMode;
}

/** Answer of the attacked node to one request. */
export interface HostileAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** The peer after it turned: same URL, node_id and key, but it serves what it is told to. */
export interface HostilePeer {
  readonly node: StigmemNode;
  readonly url: string;
  readonly logFile: string;
  readonly pid: number | undefined;
  /** Puts facts in the queue that pullers read. Resolves at once, with the facts' ids in order. */
  deliver(facts: readonly HostileFact[]): Promise<string[]>;
  /** Takes facts out of the queue again (a node that has them keeps them). Returns how many there were. */
  withdraw(ids: readonly string[]): Promise<number>;
  /**
   * Waits until the target asks for what comes after the last fact, so it has taken or skipped all.
   * Throws after `timeoutMs` (default 20000): behind a fence, or when a fact stalls its pull loop.
   */
  settled(timeoutMs?: number): Promise<void>;
  /** How often the target has pulled facts (of the last 200 pulls by anyone), and when last (ms since 1970). */
  pullsSeen(): Promise<{ readonly count: number; readonly lastAt: number | undefined }>;
  /** Uses one peer token once and then `times` times more. Returns all statuses, 401 for each replay. */
  replayToken(times: number): Promise<number[]>;
  /** Pulls one scope from the target; 403 and a scope_violation when it was not granted. */
  pullScope(scope: string): Promise<HostileAnswer>;
  /** What the target gives us, in its own wire form, from the first page (up to 500). Throws unless 200. */
  pullFromUs(): Promise<Record<string, unknown>[]>;
  /** The push route of the target (405 unless it runs with STIGMEM_FEDERATION_PUSH_ENABLED=true). */
  push(facts: readonly HostileFact[]): Promise<HostileAnswer & { readonly ids: string[] }>;
  /** From now on. */
  setWellKnown(mode: WellKnownMode): Promise<void>;
  /** After it `node.start()` brings the honest node back. */
  stop(): Promise<void>;
  kill(): Promise<void>;
}

/** Stops the real node and puts a hostile stub with its identity on the same port. Throws with the log's tail. */
export async function turnHostile(node: StigmemNode, options: HostileOptions): Promise<HostilePeer> {
  await node.stop();
  const controlPort = await freePort();
  const target = { url: options.target.url, nodeId: options.target.nodeId };
  const child = managedProcess({
    name: `hostile peer ${node.name}`,
    command: stigmemPython(),
    args: ['-B', join(labScripts, 'hostile_peer.py'), String(node.port), String(controlPort)],
    cwd: node.dir,
    env: node.env,
    logFile: join(node.dir, 'hostile.log'),
    ready: () => httpAnswers(`${node.url}/healthz`),
  });
  await child.start();

  const order = async (verb: string, body: object): Promise<Record<string, unknown>> => {
    const response = await fetch(`http://127.0.0.1:${controlPort}/control/${verb}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`hostile peer: ${verb} answered ${response.status}: ${await response.text()}`);
    const answer: unknown = await response.json();
    return asRecord(answer);
  };

  const pull = async (request: object): Promise<HostileAnswer[]> =>
    list(field(await order('pull', { ...target, ...request }), 'answers')).map(answered);

  const targetPulls = async (): Promise<Record<string, unknown>[]> => {
    const pulls = list((await order('pulls', {}))['pulls']).map(asRecord);
    return pulls.filter((seen) => seen['nodeId'] === target.nodeId);
  };

  const setWellKnown = async (mode: WellKnownMode): Promise<void> => {
    await order('well-known', { mode });
  };
  if (options.wellKnown) await setWellKnown(options.wellKnown);

  return {
    node,
    url: node.url,
    logFile: child.logFile,
    get pid() {
      return child.pid;
    },
    deliver: async (facts) => list((await order('deliver', { facts }))['ids']).map(text),
    withdraw: async (ids) => number((await order('withdraw', { ids }))['withdrawn']),
    async settled(timeoutMs = 20_000) {
      await waitUntil(`${options.target.name} to have pulled everything`, async () => (await targetPulls()).at(-1)?.['waiting'] === 0, {
        timeoutMs,
        everyMs: 200,
      });
    },
    async pullsSeen() {
      const pulls = await targetPulls();
      const last = pulls.at(-1)?.['at'];
      return { count: pulls.length, lastAt: last === undefined ? undefined : number(last) * 1000 };
    },
    replayToken: async (times) => (await pull({ times: times + 1, limit: 1 })).map((answer) => answer.status),
    async pullScope(scope) {
      const [answer] = await pull({ scope });
      if (!answer) throw new Error('hostile peer: no answer to its pull');
      return answer;
    },
    async pullFromUs() {
      const [answer] = await pull({ limit: 500 });
      if (answer?.status !== 200) throw new Error(`hostile peer: its pull was answered ${JSON.stringify(answer)}`);
      return list(field(answer.body, 'facts')).map((entry) => asRecord(field(entry, 'fact')));
    },
    async push(facts) {
      const answer = await order('push', { ...target, facts });
      return { ...answered(answer), ids: list(answer['ids']).map(text) };
    },
    setWellKnown,
    stop: () => child.stop(),
    kill: () => child.kill(),
  };
}

function answered(value: unknown): HostileAnswer {
  const answer = asRecord(value);
  return { status: number(answer['status']), body: answer['body'] };
}
