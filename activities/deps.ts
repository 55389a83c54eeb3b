import { Context } from '@temporalio/activity';
import type { Client } from '@temporalio/client';
import type { IncidentRef, EvidenceHead } from '../src/contract/steps.ts';
import { noticeLoss } from './evidence-loss.ts';
import type { EvidenceEntry } from '../src/evidence/entry.ts';
import { listIncidentFolders } from '../src/evidence/find.ts';
import { EvidenceStore, type Sealed, type SealRequest } from '../src/evidence/store.ts';
import type { Stigmem } from '../src/stigmem/client.ts';
import { StigmemIdentityError } from '../src/stigmem/errors.ts';
import type { WellKnown } from '../src/stigmem/wire.ts';

/** What activities work with. Injected by the worker: no activity reads configuration. */
export interface Deps {
  readonly node: Stigmem;
  readonly nodeUrl: string;
  readonly temporal: Client;
  readonly evidenceDir: string;
  readonly policyFile: string | undefined;
  readonly contactsFile: string | undefined;
  readonly webhookUrl: string | undefined;
  /** Which addresses that are not public the peer's own endpoints may live at. */
  readonly peerAllow: readonly string[];
  /** Parallel writes to the node. */
  readonly concurrency: number;
  /** The node's own write limit, and the share of it that is kept free for fences. */
  readonly writesPerHour: number;
  readonly writeHeadroom: number;
  /** Where the node's host worker is looked for. */
  readonly hostTaskQueue: string;
}

/** All that sealing needs. */
export type Folder = Pick<Deps, 'evidenceDir'>;

/** Aborts when the activity is cancelled or its worker shuts down. */
export function cancelSignal(): AbortSignal {
  return Context.current().cancellationSignal;
}

/** The idempotency key of one item of this incident's round: the same for a retry, a replay and a second worker. */
export function effectKey(ref: IncidentRef, item: string): string {
  return `${ref.firstRun}:${ref.phase}:${ref.round}:${item}`;
}

/** Was it sealed by this incident? A later one under the same workflow id shares the folder. */
export function isOf(ref: IncidentRef, key: string): boolean {
  return key.startsWith(`${ref.firstRun}:`);
}

/** The incident's evidence folder. */
export async function evidenceOf(deps: Folder, ref: IncidentRef): Promise<EvidenceStore> {
  const store = await EvidenceStore.open(deps.evidenceDir, ref.incident, ref.at);
  await noticeLoss(store, ref);
  return store;
}

/** Seals one piece of evidence under this incident's key for `item`. */
export async function seal(deps: Folder, ref: IncidentRef, item: string, kind: string, content: unknown): Promise<Sealed> {
  const store = await evidenceOf(deps, ref);
  return store.seal(requestOf(ref, item, kind), content);
}

/** Seals several pieces at once, each under its own key. */
export async function sealAll(
  deps: Folder,
  ref: IncidentRef,
  pieces: readonly { readonly item: string; readonly kind: string; readonly content: unknown }[],
): Promise<Sealed> {
  const store = await evidenceOf(deps, ref);
  return store.sealAll(pieces.map(({ item, kind, content }) => ({ request: requestOf(ref, item, kind), content })));
}

/** What is said about one piece of evidence of this incident's round. */
export function requestOf(ref: IncidentRef, item: string, kind: string): SealRequest {
  const name = ref.mode === 'drill' ? `DRILL ${item}` : item;
  return { key: effectKey(ref, item), kind, name, phase: ref.phase, round: ref.round, at: ref.at };
}

/** What was sealed first under this incident's key for `item`: how it was before an attempt that died changed it. */
export async function firstSealed(deps: Folder, ref: IncidentRef, item: string): Promise<unknown> {
  const store = await evidenceOf(deps, ref);
  const key = effectKey(ref, item);
  const first = (await store.entries()).find((entry) => entry.key === key);
  return first && store.readJson(`sha256:${first.sha256}`);
}

/**
 * What was sealed under this kind or name by this incident, the first look first, and then by others, the newest
 * first: under the same workflow id earlier on, or under any other. What an older one saw may have been changed since.
 */
export async function* everSealed(deps: Folder, ref: IncidentRef, wanted: (entry: EvidenceEntry) => boolean): AsyncGenerator<unknown> {
  const matching = async (incident: string) => {
    const store = await EvidenceStore.open(deps.evidenceDir, incident, ref.at);
    return (await store.entries()).filter(wanted).map((entry) => ({ entry, store }));
  };
  const here = await matching(ref.incident);
  for (const { entry, store } of here) if (isOf(ref, entry.key)) yield store.readJson(`sha256:${entry.sha256}`);
  // Opened only where this incident's own looks do not tell: a damaged folder of another must not be in the way.
  const folders = (await listIncidentFolders(deps.evidenceDir)).flatMap(({ incident }) => incident ?? []);
  const elsewhere = await Promise.all(folders.filter((incident) => incident !== ref.incident).map(matching));
  const others = [...here.filter(({ entry }) => !isOf(ref, entry.key)), ...elsewhere.flat()];
  const newestFirst = others.toSorted((a, b) => Date.parse(b.entry.at) - Date.parse(a.entry.at) || b.entry.seq - a.entry.seq);
  for (const { entry, store } of newestFirst) yield store.readJson(`sha256:${entry.sha256}`);
}

/** The head of the chain, as history carries it. */
export function headOf(sealed: Sealed): EvidenceHead {
  return { head: sealed.head, entries: sealed.entries };
}

/**
 * Is this still the node the incident is about? Asked after every reading, before it is sealed or believed, right
 * before every change, and after the read-back: a machine may be swapped in the middle of an activity.
 */
export async function assertBoundNode(deps: Deps, ref: Pick<IncidentRef, 'nodeId'>): Promise<WellKnown> {
  const known = await deps.node.wellKnown(cancelSignal());
  const { node_id: nodeId } = known;
  if (ref.nodeId === undefined || nodeId === ref.nodeId) return known;
  throw new StigmemIdentityError({ method: 'GET', path: '/.well-known/stigmem' }, ref.nodeId, nodeId.slice(0, 200));
}
