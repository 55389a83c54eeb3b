import { setTimeout as sleep } from 'node:timers/promises';
import type { DoorKeeper } from './doors.ts';
import type { Lane } from './lane.ts';
import type { Trouble } from './episode.ts';

// What can happen to an incident.

/** The worker dies at these points, one after the other, and each time the next one starts at once. */
export function dieAt(...points: readonly string[]): Trouble {
  return { name: `SIGKILL ${points.join(', ')}`, points };
}

/** The worker ends while the gate waits; the decision comes while nobody is there. */
export function endAtGate(wanted: string, by: 'kill' | 'term'): Trouble {
  return {
    name: `${by === 'kill' ? 'SIGKILL' : 'SIGTERM'} gate ${wanted}`,
    atGate: (lane) => async (gate, decide) => {
      if (gate === wanted) await lane.crew[by](decide);
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

/** Our node dies before it sees the n-th such request, while it works on it, or when it is done and its answer lost; it comes back on its file. */
export function nodeDies(request: string, n: number, when: (typeof nodeMoments)[number]): Trouble {
  return {
    name: `node SIGKILL ${when} ${request}#${n}`,
    before: async (lane) => {
      let seen = 0;
      const isIt = ({ method, route }: { readonly method: string; readonly route: string }): boolean => {
        if (`${method} ${route}` !== request) return false;
        seen += 1;
        return seen === n;
      };
      lane.door.keeper = keeperOf(lane, when, isIt);
    },
    fired: (lane) => lane.door.fired,
  };
}

function keeperOf(
  lane: Lane,
  when: (typeof nodeMoments)[number],
  isIt: (of: { readonly method: string; readonly route: string }) => boolean,
): DoorKeeper {
  const die = async (): Promise<void> => {
    lane.door.fired = true;
    await lane.node.kill();
    void lane.node.start();
  };
  if (when === 'meanwhile') {
    return {
      meanwhile: (of) => {
        if (isIt(of)) void sleep(2).then(die);
      },
    };
  }
  const act = async (of: { readonly method: string; readonly route: string }): Promise<boolean> => {
    if (!isIt(of)) return true;
    await die();
    return false;
  };
  return { [when]: act };
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
