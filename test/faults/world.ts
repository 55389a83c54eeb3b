import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Client } from '@temporalio/client';
import { createActivities } from '../../activities/index.ts';
import type { Row } from '../../src/lab/shapes.ts';
import { startNodeProxy, type Fault, type NodeProxy, type ProxyRequest } from '../../src/lab/node-proxy.ts';
import type { StigmemNode } from '../../src/lab/stigmem-node.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import type { FaultKind } from './kinds.ts';
import { nodeState, type Template } from './template.ts';

/** One fault at one route of one activity, from its first request until cordon took it. */
export interface Cell {
  readonly activity: string;
  readonly route: string;
  readonly fault: string;
  readonly wholeActivity: boolean;
  readonly at: number;
  /** The attempt of the activity that met it last. */
  attempt: number;
  hits: number;
  /** Attempts of the activity that failed of it, with the type and the words of the failure. */
  readonly failures: { readonly type: string; readonly message: string }[];
  /** Attempts that had failed when it parked, of this and of what was met before it since it last parked. */
  attempts?: number;
  end?: 'parked' | 'absorbed' | 'recovered';
  why?: string;
  how?: string;
  /** What the activity said when it took the fault as a finding. */
  result?: unknown;
  before?: Row;
  after?: Row;
  /** Changes that this activity made on the node meanwhile: method, path and status. */
  changes: string[];
}

export interface World {
  readonly id: string;
  readonly node: StigmemNode;
  readonly proxy: NodeProxy;
  readonly evidenceDir: string;
  readonly cells: Cell[];
  readonly active: Map<string, Cell>;
  /** Each route an activity asked, in the order of its first request. */
  readonly routes: Map<string, Set<string>>;
  /** Changes asked of the node that reached it: `activity METHOD route status`. */
  readonly changes: string[];
  readonly secrets: readonly string[];
  act(name: string, input: unknown): Promise<unknown>;
  /** Ends a cell: from now on the route works for this activity. */
  release(cell: Cell, end: NonNullable<Cell['end']>): Promise<void>;
  stop(): Promise<void>;
}

export interface WorldOptions {
  readonly id: string;
  readonly template: Template;
  readonly temporal: Client;
  /** Which fault this route of this activity gets; undefined: none. */
  readonly faultAt: (activity: string, route: string) => FaultKind | undefined;
  /** Faulty requests after which a cell ends by itself. @default never: the driver ends it when the step parked */
  readonly hitsOf?: (kind: FaultKind, cell: Cell, cells: readonly Cell[]) => number;
  readonly timeoutMs?: number;
}

const changing = (method: string, path: string): boolean => method !== 'GET' && !/\/v1\/(recall|lint)/.test(path);
/** Rows are compared at the changes of these: each look costs a process. */
const mutating = new Set(['fenceInbound', 'fenceOutbound', 'blockRelays', 'revokeTokens', 'undoFacts', 'restoreTrust', 'liftFences']);
/** Activities whose lanes ask for several things side by side. */
const askedInLanes = new Set(['verifyUndone']);
/** Under way when people close: it waits for the peer. What it meets is in rotation.test.ts. */
const neverEnds = new Set(['verifyKeys']);
const webhookSecret = 'T0KEN-in-the-webhook-url';
export const webhookRoute = 'POST the webhook';

/** A copy of the node behind a proxy of its own, and the real activities with each one's requests told apart. */
export async function makeWorld(options: WorldOptions): Promise<World> {
  const { id, template, faultAt } = options;
  const node = await template.copy(id);
  const webhook = await receiver();
  const evidenceDir = join(template.scene.dir, `${id}-evidence`);
  const canary = node.adminKey;
  const cells: Cell[] = [];
  const active = new Map<string, Cell>();
  const ended = new Set<string>();
  const routes = new Map<string, Set<string>>();
  const changes: string[] = [];

  const attempts = new Map<string, number>();
  /** Attempts of an activity that failed since it last ended or parked. */
  const failed = new Map<string, number>();

  /** Which cell a request met, by its number: its answer may come when the cell has ended. */
  const met = new Map<number, Cell>();

  const looks = new Map<Cell, Promise<void>>();
  const lookBefore = async (cell: Cell): Promise<void> => {
    cell.before = await nodeState(node);
  };

  const decide = async (activity: string, route: string, count?: number): Promise<Fault | undefined> => {
    if (neverEnds.has(activity)) return undefined;
    const seen = routes.get(activity) ?? new Set<string>();
    routes.set(activity, seen.add(route));
    const key = `${activity} ${route}`;
    const attempt = attempts.get(activity) ?? 0;
    let cell = active.get(activity);
    // The same attempt asks something else: it took the fault as an answer. (Undoing asks several things at a time.)
    if (cell !== undefined && cell.route !== route && cell.attempt === attempt && !cell.wholeActivity && activity !== 'undoFacts') {
      await release(cell, 'absorbed');
      cell = undefined;
    }
    if (cell === undefined) {
      if (ended.has(key)) return undefined;
      const kind = faultAt(activity, route);
      if (kind === undefined) return undefined;
      ended.add(key);
      const { name: fault, wholeActivity = false } = kind;
      cell = { activity, route, fault, wholeActivity, at: Date.now(), attempt, hits: 0, failures: [], changes: [] };
      cells.push(cell);
      active.set(activity, cell);
      if (mutating.has(activity) && changing(...(route.split(' ') as [string, string]))) looks.set(cell, lookBefore(cell));
    }
    // Nobody goes on, or ends it, before it is known what the node was like.
    await looks.get(cell);
    const kind = faultAt(activity, cell.route);
    if (kind === undefined || (cell.route !== route && kind.wholeActivity !== true)) return undefined;
    cell.hits += 1;
    if (count !== undefined) met.set(count, cell);
    cell.attempt = attempt;
    const fault = kind.make({ canary, otherNode: template.stranger.url });
    // Once: what other lanes ask while it is released meets the fault still.
    if (cell.hits === (options.hitsOf?.(kind, cell, cells) ?? Infinity)) await release(cell, 'recovered');
    return fault;
  };
  const release: World['release'] = async (cell, end) => {
    // It is being released already: what the node is like then must not be looked at once more, when others have gone on.
    if (cell.end !== undefined) return;
    cell.end = end;
    if (end === 'parked') {
      cell.attempts = failed.get(cell.activity) ?? 0;
      failed.delete(cell.activity);
    }
    if (cell.before) cell.after = await nodeState(node);
    if (active.get(cell.activity) === cell) active.delete(cell.activity);
  };
  /** Lanes ask side by side: what seemed taken as an answer, since another lane went on, is what the attempt failed of. */
  const takeBack = (activity: string, attempt: number, message: string): void => {
    const blamed = cells.find(
      (one) => one.activity === activity && one.attempt === attempt && one.end === 'absorbed' && names(message, one.route),
    );
    if (blamed === undefined) return;
    // What was met since then has to be met anew.
    for (const later of cells.splice(cells.indexOf(blamed) + 1)) {
      if (later.activity === activity) ended.delete(`${activity} ${later.route}`);
      else cells.push(later);
    }
    delete blamed.end;
    active.set(activity, blamed);
  };
  /** What one lane made of a fault shows only where the attempt did not fail of another lane's: it is met again. */
  const forgetDoubtful = (activity: string, attempt: number, blamed: Cell | undefined): void => {
    const isDoubtful = (cell: Cell): boolean =>
      cell.activity === activity && cell.attempt === attempt && cell !== blamed && cell.end !== undefined && cell.failures.length === 0;
    for (const one of cells.filter(isDoubtful)) {
      cells.splice(cells.indexOf(one), 1);
      ended.delete(`${activity} ${one.route}`);
    }
  };
  const named = ({ path }: ProxyRequest): [string, string] => {
    const [, activity = '', rest = ''] = /^\/~([^/]*)(.*)$/s.exec(path) ?? [];
    return [activity, rest];
  };
  const proxy = await startNodeProxy({
    target: node.url,
    toNode: (path) => path.replace(/^\/~[^/]*/, ''),
    onRequest: async (request) => {
      const [activity, path] = named(request);
      return decide(activity, template.routeOf(request.method, path), request.count);
    },
    onAnswered: (request, status) => {
      const [activity, path] = named(request);
      if (!changing(request.method, path)) return;
      // That went to another node.
      if (met.get(request.count)?.wholeActivity === true) return;
      const change = `${request.method} ${template.routeOf(request.method, path)} ${status}`;
      changes.push(`${activity} ${change}`);
      (met.get(request.count) ?? active.get(activity))?.changes.push(change);
    },
  });
  const webhookProxy = await startNodeProxy({
    target: webhook.url,
    toNode: (path) => path.replace(/^\/~[^/]*/, ''),
    onRequest: async (request) => decide(named(request)[0], webhookRoute),
  });

  const clients: Stigmem[] = [];
  const activityOf = (name: string) => {
    const client = new Stigmem({
      url: `${proxy.url}/~${name}`,
      adminKey: node.adminKey,
      agentKey: template.agentKey,
      ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
    });
    clients.push(client);
    const all: Record<string, (input: never) => Promise<unknown>> = createActivities({
      ...template.scene.deps,
      node: client,
      nodeUrl: proxy.url,
      temporal: options.temporal,
      evidenceDir,
      webhookUrl: `${webhookProxy.url}/~${name}/${webhookSecret}`,
    });
    const found = all[name];
    if (found === undefined) throw new Error(`no activity ${name}`);
    return found;
  };
  const activities = new Map<string, (input: never) => Promise<unknown>>();

  return {
    id,
    node,
    proxy,
    evidenceDir,
    cells,
    active,
    routes,
    changes,
    secrets: [node.adminKey, template.agentKey, webhookSecret],
    async act(name, input) {
      const known = activities.get(name) ?? activityOf(name);
      activities.set(name, known);
      const attempt = (attempts.get(name) ?? 0) + 1;
      attempts.set(name, attempt);
      try {
        const result = await known(input as never);
        failed.delete(name);
        const last = active.get(name);
        if (last) await release(last, 'absorbed');
        for (const cell of cells) if (cell.end === 'absorbed' && cell.activity === name && cell.attempt === attempt) cell.result = result;
        return result;
      } catch (error) {
        // The time for all attempts was over in the middle of this one: the fault was met by those before it.
        if (error instanceof CancelledFailure || (error instanceof Error && error.name === 'AbortError')) throw error;
        const type = error instanceof ApplicationFailure ? (error.type ?? '') : '';
        const message = error instanceof Error ? error.message : String(error);
        failed.set(name, (failed.get(name) ?? 0) + 1);
        takeBack(name, attempt, message);
        const isMine = (one: Cell): boolean => one.activity === name && one.attempt === attempt && names(message, one.route);
        // The one that ended after so many requests counts too: its attempt is still under way then.
        const cell =
          cells.findLast(isMine) ?? active.get(name) ?? cells.findLast((one) => one.activity === name && one.end === 'recovered');
        cell?.failures.push({ type, message });
        if (askedInLanes.has(name)) forgetDoubtful(name, attempt, cell);
        throw error;
      }
    },
    release,
    async stop() {
      await Promise.allSettled([
        ...clients.map((client) => client.close()),
        proxy.stop(),
        webhookProxy.stop(),
        webhook.stop(),
        node.kill(),
      ]);
    },
  };
}

/** Whether a failure's message is about this route: it begins with the method and the path asked. */
function names(message: string, route: string): boolean {
  return route.includes('{') ? message.includes(route.split('{')[0] ?? route) : message.includes(`${route}:`);
}

/** Takes what is posted. */
async function receiver(): Promise<{ url: string; stop(): Promise<void> }> {
  const server = createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(204).end());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    stop: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
