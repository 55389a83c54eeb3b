import type { HostDatabase } from '../../src/host/database.ts';
import type { Effect, Operation } from '../../src/host/effect.ts';
import { openPostgres } from '../../src/host/postgres.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { hostileScene, type Scene, type Storage } from './hostile-scene.ts';

/** A node that runs and pulls all the while, and its database as the host worker has it. */
export interface HostScene {
  readonly scene: Scene;
  readonly database: HostDatabase;
  stop(): Promise<void>;
}

export async function hostScene(name: string, storage: Storage): Promise<HostScene> {
  const scene = await hostileScene(`${name}-${storage}`, 30, { storage });
  const dsn = scene.ours.env['STIGMEM_PG_DSN'] ?? '';
  const database = storage === 'sqlite' ? openSqlite(scene.ours.dbPath) : openPostgres({ dsn });
  return {
    scene,
    database,
    async stop() {
      await database.close();
      await scene.stop();
    },
  };
}

/** A change of one incident, by the name of the item it is about. */
export function effectOf(operation: Operation, item: string, incident = 'one'): Effect {
  return { key: `run-${incident}:contain:1:${item}`, incident: `peer-compromise:${incident}`, step: 'fenceInbound', operation };
}

/** What undoes it. */
export function undoing(effect: Effect, operation: Operation): Effect & { readonly of: string } {
  return { ...effect, key: `${effect.key} undone`, operation, of: effect.key };
}
