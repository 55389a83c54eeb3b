import { Context } from '@temporalio/activity';
import type { IncidentRef } from '../src/contract/steps.ts';
import type { EvidenceStore } from '../src/evidence/store.ts';

/** Kind of the entry that says that others are gone. */
export const lossKind = 'lost';

const noticed = new WeakMap<object, string>();

/**
 * The head that the workflow was last told must still be in the chain. When it is not, lines were cut off the index or
 * the folder is another one: that is put on record in the chain itself, once, and said in status. It stops nothing,
 * for an attacker's peer must not stay open because a file was damaged.
 */
export async function noticeLoss(store: EvidenceStore, ref: IncidentRef): Promise<void> {
  const head = await lostHead(store, ref);
  if (head === undefined) return;
  const hash = head.replace('sha256:', '');
  const entries = await store.entries();
  const key = `lost:${hash}`;
  noticed.set(
    Context.current(),
    `Evidence was lost: the entry ${head} that this incident had sealed is not in ${store.dir}/index.jsonl any more (lines were cut off its end, or the folder is another one). It goes on with what is there; keep the folder, run \`cordon verify\` on it, and look for the missing part in a copy.`,
  );
  if (entries.some((entry) => entry.key === key)) return;
  const { phase, round, at } = ref;
  const name = `the entry ${head} is not in the index any more`;
  await store.seal({ key, kind: lossKind, name, phase, round, at }, { head, entriesFound: entries.length });
}

/** The head that the workflow was last told, where it is not in this folder's chain. */
export async function lostHead(store: EvidenceStore, { evidenceHead: head }: IncidentRef): Promise<string | undefined> {
  if (head === undefined) return undefined;
  const hash = head.replace('sha256:', '');
  return (await store.entries()).some((entry) => entry.hash === hash) ? undefined : head;
}

/** What the activity that runs now noticed, added to what it found out. */
export function withLoss<T>(result: T): T {
  const loss = noticed.get(Context.current());
  if (loss === undefined || typeof result !== 'object' || result === null || !('evidence' in result)) return result;
  const before: readonly unknown[] = 'warnings' in result && Array.isArray(result.warnings) ? result.warnings : [];
  return { ...result, warnings: [...before, loss] };
}
