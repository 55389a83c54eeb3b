import type { HostDatabase } from './database.ts';
import { closeOverdue, type Opened } from './door.ts';

const everyMs = 1_000;

/** Told of what the keeper did, or could not do now. */
export interface KeeperLog {
  closed(opened: Opened): void;
  failed(error: unknown): void;
}

/**
 * Shuts doors whose time is over, without Temporal and whoever opened them: those that are overdue now before it
 * resolves, the others when their time comes. A node that can't be reached is asked again a second later.
 */
export async function keepDoors(database: HostDatabase, log: KeeperLog): Promise<{ stop(): Promise<void> }> {
  const look = async (): Promise<void> => {
    for (const opened of await closeOverdue(database)) log.closed(opened);
  };
  await look();
  let last: Promise<void> = Promise.resolve();
  let isBusy = false;
  const timer = setInterval(() => {
    if (isBusy) return;
    isBusy = true;
    last = look()
      .catch((error: unknown) => log.failed(error))
      .finally(() => {
        isBusy = false;
      });
  }, everyMs);
  return {
    async stop() {
      clearInterval(timer);
      await last;
    },
  };
}
