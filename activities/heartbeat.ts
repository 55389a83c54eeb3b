import { Context } from '@temporalio/activity';

const progress = new WeakMap<object, unknown>();

/** Heartbeats; `details` is what the next attempt resumes from, and is repeated until a newer one comes. */
export function beat(details?: unknown): void {
  const context = Context.current();
  if (details !== undefined) progress.set(context, details);
  if (!context.info.isLocal) context.heartbeat(progress.get(context));
}
