import { setTimeout as sleep } from 'node:timers/promises';
import type { AtDoor } from './doors.ts';
import type { Trouble } from './episode.ts';

// What can happen to an incident.

/** The worker dies at these points, one after the other, and each time the next one starts at once. */
export function dieAt(...points: readonly string[]): Trouble {
  return { name: `SIGKILL ${points.join(', ')}`, points };
}

/** The worker ends while these gates wait; the decisions come while nobody is there. */
export function endAtGate(gates: Readonly<Record<string, 'kill' | 'term'>>): Trouble {
  const named = Object.entries(gates).map(([gate, by]) => `${by === 'kill' ? 'SIGKILL' : 'SIGTERM'} gate ${gate}`);
  return {
    name: named.join(', '),
    atGate: (lane) => async (gate, decide) => {
      const by = gates[gate];
      if (by) await lane.crew[by](decide);
      else await decide();
    },
  };
}

/** The worker ends again and again, each time so long after it was ready. */
export function endAfter(by: 'kill' | 'term', delays: readonly number[], startedBy: Trouble['startedBy'] = 'cordon'): Trouble {
  return {
    name: `${by === 'kill' ? 'SIGKILL' : 'SIGTERM'} after ${delays.map((ms) => Math.round(ms)).join(', ')} ms${startedBy === 'cordon' ? '' : ', not started by cordon'}`,
    startedBy,
    beside: async (lane, ended) => {
      for (const delay of delays) {
        if (!(await waited(delay, ended))) return;
        await lane.crew[by]();
      }
    },
  };
}

/** The Temporal server dies again and again, and comes back on its file. */
export function serverDies(delays: readonly number[], tally: { kills: number }): Trouble {
  return {
    name: `server SIGKILL after ${delays.map((ms) => Math.round(ms)).join(', ')} ms`,
    beside: async (lane, ended) => {
      for (const delay of delays) {
        if (!(await waited(delay, ended))) return;
        await lane.server.kill();
        tally.kills += 1;
        await lane.server.start();
      }
    },
  };
}

/** When, seen from one request that changes something, the node dies. */
export const nodeMoments = ['before', 'meanwhile', 'after'] as const;

export interface NodeDeath {
  /** `METHOD /route`. */
  readonly request: string;
  /** The how many-th of them. */
  readonly n: number;
  readonly when: (typeof nodeMoments)[number];
}

/** Our node dies before it sees these requests, while it works on one, or when it is done and its answer lost; it comes back on its file. */
export function nodeDies(deaths: readonly NodeDeath[]): Trouble {
  const left = new Set<NodeDeath>();
  return {
    name: `node SIGKILL ${deaths.map(({ when, request, n }) => `${when} ${request}#${n}`).join(', ')}`,
    before: async (lane) => {
      const seen = new Map<string, number>();
      left.clear();
      for (const death of deaths) left.add(death);
      const killed = async (death: NodeDeath): Promise<void> => {
        left.delete(death);
        await lane.node.kill();
        void lane.node.start();
      };
      // Counted when they come in; which death this one is does not change until its answer is back.
      const due = new WeakMap<object, NodeDeath>();
      const at = (of: AtDoor, when: NodeDeath['when']): NodeDeath | undefined => (due.get(of)?.when === when ? due.get(of) : undefined);
      lane.door.keeper = {
        before: async (of) => {
          const request = `${of.method} ${of.route}`;
          const n = (seen.get(request) ?? 0) + 1;
          seen.set(request, n);
          const death = [...left].find((one) => one.request === request && one.n === n);
          if (!death) return true;
          due.set(of, death);
          if (death.when !== 'before') return true;
          await killed(death);
          return false;
        },
        meanwhile: (of) => {
          const death = at(of, 'meanwhile');
          if (death) void sleep(2).then(() => killed(death));
        },
        after: async (of) => {
          const death = at(of, 'after');
          if (death) await killed(death);
          return death === undefined;
        },
        // Another death took the node from under it: this one meets the request when it comes again.
        lost: (of) => {
          const death = due.get(of);
          if (death && left.has(death)) seen.set(death.request, death.n - 1);
        },
      };
    },
    fired: () => left.size === 0,
    nodeDeaths: deaths.length,
  };
}

/** False when the incident ended meanwhile. */
async function waited(ms: number, ended: () => boolean): Promise<boolean> {
  const until = Date.now() + ms;
  while (Date.now() < until && !ended()) await sleep(Math.min(20, until - Date.now()));
  return !ended();
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
