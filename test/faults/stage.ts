import { Client, Connection } from '@temporalio/client';
import { join } from 'node:path';
import { failureTypes } from '../../src/contract/failures.ts';
import { startTemporal } from '../../src/lab/temporal-server.ts';
import { differences, referenceOf, wrongAbout, type Reference } from './checks.ts';
import { faultWorker, play, type Played } from './drive.ts';
import { faultKinds, type FaultKind } from './kinds.ts';
import { template, type Template } from './template.ts';
import { makeWorld, type World, type WorldOptions } from './world.ts';

/** A Temporal server, one worker, and as many nodes as incidents are played. */
export interface Stage {
  readonly template: Template;
  readonly client: Client;
  /** Plays an incident in a world of its own, and gives what `look` finds before the world ends. */
  played<T>(options: Omit<WorldOptions, 'template' | 'temporal'>, look: (world: World, played: Played) => Promise<T>): Promise<T>;
  /** A world for a test that drives the incident itself. */
  world(options: Omit<WorldOptions, 'template' | 'temporal'>): Promise<World>;
  stop(): Promise<void>;
}

export async function openStage(name: string, burstFacts: number): Promise<Stage> {
  const made = await template(name, burstFacts);
  const server = await startTemporal({ dir: join(made.scene.dir, 'temporal') });
  const worlds = new Map<string, World>();
  const worker = await faultWorker(server.address, made, worlds);
  const connection = await Connection.connect({ address: server.address });
  const client = new Client({ connection });
  const world: Stage['world'] = async (options) => {
    const one = await makeWorld({ ...options, template: made, temporal: client });
    worlds.set(one.id, one);
    return one;
  };
  return {
    template: made,
    client,
    world,
    async played(options, look) {
      const one = await world(options);
      try {
        return await look(one, await play(client, one));
      } finally {
        await one.stop();
      }
    },
    async stop() {
      await Promise.allSettled([...worlds.values()].map((one) => one.stop()));
      await worker.stop();
      await connection.close();
      await server.stop();
      await made.stop();
    },
  };
}

/** An incident with nothing wrong. */
export function reference(stage: Stage): Promise<Reference> {
  return stage.played({ id: 'reference', faultAt: () => undefined }, referenceOf);
}

export interface Outcome {
  readonly name: string;
  readonly cells: number;
  readonly parked: number;
  readonly retried: number;
  readonly taken: number;
  readonly seconds: number;
  readonly wrong: readonly string[];
}

/** One incident in which every route that the reference asked has this fault once; the first of each activity until it parks. */
export async function everywhere(stage: Stage, kind: FaultKind, untouched: Reference): Promise<Outcome> {
  const retried = failureTypes[kind.type].retryable;
  return stage.played(
    {
      id: `fault-${faultKinds.indexOf(kind)}`,
      faultAt: (activity) => (kind.notAt?.has(activity) ? undefined : kind),
      hitsOf: (_kind, cell, cells) =>
        retried && cells.some((one) => one.activity === cell.activity && one.end === 'parked') ? 2 : Infinity,
      // The client's own limit is 15 s; that it is one is shown elsewhere.
      ...(kind.name === 'silence' ? { timeoutMs: 2_000 } : {}),
    },
    (world, played) => outcomeOf(kind, world, played, untouched),
  );
}

/** What came of it, held against the reference. */
export async function outcomeOf(
  { name, notAt }: Pick<FaultKind, 'name' | 'notAt'>,
  world: World,
  played: Played,
  untouched: Reference,
): Promise<Outcome> {
  const met = new Set(world.cells.map(({ activity, route }) => `${activity} ${route}`));
  // An attempt that settled all although one fact was refused has read it back by then.
  const settled = world.cells.some(({ activity, end }) => activity === 'undoFacts' && end === 'absorbed');
  const due = untouched.cells.filter((cell) => !(settled && cell.startsWith('undoFacts GET ')) && !notAt?.has(cell.split(' ')[0] ?? ''));
  const missed = due.filter((cell) => !met.has(cell)).map((cell) => `${name}: never met at ${cell}`);
  const wrong = [...world.cells.flatMap(wrongAbout), ...missed, ...(await differences(world, played, untouched))];
  const ended = (end: string) => world.cells.filter((cell) => cell.end === end).length;
  return {
    name,
    cells: world.cells.length,
    parked: ended('parked'),
    retried: ended('recovered'),
    taken: ended('absorbed'),
    seconds: Math.round(played.ms / 1_000),
    wrong,
  };
}
