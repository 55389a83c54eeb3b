import { z } from 'zod';
import { Coverage } from '../../src/contract/schemas.ts';
import type { IncidentRef } from '../../src/contract/steps.ts';
import type { EvidenceStore, Sealed } from '../../src/evidence/store.ts';
import { DerivedFact, OtherFact, SeenFact, SeenTombstone, type Collection } from '../../src/policy/facts.ts';
import { effectKey, evidenceOf, seal, type Folder } from '../deps.ts';
import { StepFailure } from '../failures.ts';

const item = 'collectFacts';

/** One line of the sealed collection. Facts stream; what is small stands in the first line. */
const Line = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('head'),
    fencedAt: z.string().nullable(),
    complete: z.boolean(),
    unread: z.array(z.string()),
    localSources: z.array(z.string()),
    coverage: z.array(Coverage),
  }),
  z.object({ kind: z.literal('fact'), fact: SeenFact }),
  z.object({ kind: z.literal('other'), other: OtherFact }),
  z.object({ kind: z.literal('derived'), derived: DerivedFact }),
  z.object({ kind: z.literal('tombstone'), tombstone: SeenTombstone }),
  z.object({ kind: z.literal('retracted'), factId: z.string(), by: z.string() }),
  z.object({ kind: z.literal('promoted'), factId: z.string(), events: z.array(z.string()) }),
]);
type Line = z.infer<typeof Line>;

/** Seals a collection as NDJSON under this round's key; a later one of the same round is its next revision. */
export async function sealCollection(deps: Folder, ref: IncidentRef, collection: Collection): Promise<Sealed> {
  return seal(deps, ref, item, 'facts', lines(collection));
}

async function* lines(collection: Collection): AsyncGenerator<Line> {
  const { fencedAt, complete, unread, localSources, coverage } = collection;
  yield { kind: 'head', fencedAt, complete, unread: [...unread], localSources: [...localSources], coverage: [...coverage] };
  // By id, so that the same facts are the same bytes in whatever order the node gave them.
  for (const fact of [...collection.facts].sort(byId)) yield { kind: 'fact', fact };
  for (const other of [...collection.others].sort(byId)) yield { kind: 'other', other };
  for (const derived of collection.derived) yield { kind: 'derived', derived };
  for (const tombstone of collection.tombstones) yield { kind: 'tombstone', tombstone };
  for (const [factId, by] of collection.retracted) yield { kind: 'retracted', factId, by };
  for (const [factId, events] of collection.promoted) yield { kind: 'promoted', factId, events: [...events] };
}

function byId(a: { readonly id: string }, b: { readonly id: string }): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/** Evidence id of the newest collection of this incident's round, or undefined when there is none. */
export async function findCollection(deps: Folder, ref: IncidentRef): Promise<string | undefined> {
  const key = effectKey({ ...ref, phase: 'investigate' }, item);
  const entries = await (await evidenceOf(deps, ref)).entries();
  const found = entries.findLast((entry) => entry.key === key);
  return found && `sha256:${found.sha256}`;
}

/** Reads a sealed collection back. */
export async function readCollection(store: EvidenceStore, id: string): Promise<Collection> {
  const facts: SeenFact[] = [];
  const others: OtherFact[] = [];
  const derived: DerivedFact[] = [];
  const tombstones: SeenTombstone[] = [];
  const retracted = new Map<string, string>();
  const promoted = new Map<string, readonly string[]>();
  let head: Extract<Line, { kind: 'head' }> | undefined;
  for await (const raw of store.lines(id)) {
    const line = parsed(Line, raw, id);
    if (line.kind === 'head') head = line;
    else if (line.kind === 'fact') facts.push(line.fact);
    else if (line.kind === 'other') others.push(line.other);
    else if (line.kind === 'derived') derived.push(line.derived);
    else if (line.kind === 'tombstone') tombstones.push(line.tombstone);
    else if (line.kind === 'retracted') retracted.set(line.factId, line.by);
    else promoted.set(line.factId, line.events);
  }
  if (head === undefined) throw new StepFailure('EvidenceUnavailable', `${id} holds no collection of facts`);
  const { fencedAt, complete, unread, localSources, coverage } = head;
  const known = { fencedAt, complete, unread, coverage, localSources: new Set(localSources) };
  return { facts, others, derived, tombstones, retracted, promoted, ...known };
}

/** What cordon sealed must still have the shape it was sealed in. */
export function parsed<T>(schema: z.ZodType<T>, raw: unknown, id: string): T {
  const result = schema.safeParse(raw);
  if (result.success) return result.data;
  throw new StepFailure(
    'EvidenceUnavailable',
    `${id} is not in the shape it was sealed in: ${result.error.issues[0]?.path.join('.') ?? ''}`,
  );
}
