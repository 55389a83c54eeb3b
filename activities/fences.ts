import { createHash } from 'node:crypto';
import type { Residual } from '../src/contract/schemas.ts';
import type { HostDone, IncidentRef, PeerRef, StepResult } from '../src/contract/steps.ts';
import { Peer } from '../src/stigmem/wire.ts';
import { assertBoundNode, cancelSignal, everSealed, evidenceOf, headOf, requestOf, seal, type Deps } from './deps.ts';
import { clusterOf } from './peers.ts';

/** Every tenant that cordon sets begins with this: so a fence is recognised, whoever left it. */
export const fenceMarker = 'cordon-';

/** The tenant an incident's inbound fence sends the peer's facts to: none that exists. */
export function inboundFence(ref: IncidentRef): string {
  return `${fenceMarker}${createHash('sha256').update(ref.firstRun).digest('hex').slice(0, 12)}`;
}
/** The tenant a fenced peer is given facts of: none that exists. */
export const outboundFence = `${fenceMarker}none`;
/** Closes the way around ingest_tenant; the node never shows the map, only that it was written. */
const fenceMap = { 'cordon-fence': 'default' } as const;

const originalKind = 'originalFences';
const originalName = (peerId: string): string => `original tenants of ${peerId}`;
const originalKey = (ref: IncidentRef, peerId: string): string => `${ref.firstRun}:originals:${peerId}`;

type Side = 'ingest_tenant' | 'pull_tenant';

/** How a fence ended, with what it read back: the rows of the attacker, and all that the node lists. */
interface Fenced {
  readonly result: StepResult;
  readonly rows: readonly Peer[];
  readonly all: readonly Peer[];
}

/** Every row of this attacker as the node lists them now: also those that appeared since the peer was resolved. */
export async function rowsOf(deps: Deps, peer: PeerRef): Promise<{ readonly rows: Peer[]; readonly all: Peer[] }> {
  const all = await deps.node.peers(cancelSignal());
  const known = all.filter((row) => peer.peerIds.includes(row.peer_id) || peer.nodeIds.includes(row.node_id));
  const cluster = new Map(known.flatMap((row) => clusterOf(all, row)).map((row) => [row.peer_id, row]));
  return { rows: [...cluster.values()], all };
}

/** Sets one side of the fence on each row of the peer, and reads it back. Seals the original values first. */
export async function fence(
  deps: Deps,
  { ref, peer, readBack }: { ref: IncidentRef; peer: PeerRef; readBack: boolean },
  side: Side,
): Promise<Fenced> {
  const value = side === 'ingest_tenant' ? inboundFence(ref) : outboundFence;
  const { rows: before } = await rowsOf(deps, peer);
  await assertBoundNode(deps, ref);
  await sealBefore(deps, ref, side, before);
  const drill = ref.mode === 'drill';
  for (const row of before) {
    // A row that carries our value already was written by an attempt whose answer was lost: map and tenant go in one write.
    if (drill || readBack || row[side] === value) continue;
    await assertBoundNode(deps, ref);
    await deps.node.patchPeer(
      row.peer_id,
      side === 'ingest_tenant' ? { ingest_tenant: value, tenant_map: fenceMap } : { pull_tenant: value },
      cancelSignal(),
    );
  }
  const { rows: after, all } = await rowsOf(deps, peer);
  await assertBoundNode(deps, ref);
  const sealed = await seal(deps, ref, `${side} after`, 'peers', after);
  const settled = (outcome: StepResult['outcome'], changed: number, detail: string): Fenced => ({
    result: { outcome, way: 'http', changed, detail, evidence: headOf(sealed) },
    rows: after,
    all,
  });
  const ids = after.map(({ peer_id }) => peer_id).join(', ');
  if (drill) return settled('unverified', 0, `DRILL: would set ${side} to ${value} on ${ids}`);
  if (after.length === 0) return settled('verified', 0, 'the node has no peers row of this peer any more');
  const open = after.filter((row) => row[side] !== value);
  if (open.length > 0) {
    return settled('unverified', after.length - open.length, `${side} is not ${value} on ${open.map(({ peer_id }) => peer_id).join(', ')}`);
  }
  const detail = `setting read back on ${after.length} peers row(s), enforcement not observed: ${side} = ${value} on ${ids}`;
  return settled('verified', after.length, detail);
}

/** Reads back over HTTP what the host worker did: `revoked` is the door, both ways, and no tenant has to be changed for it. */
export async function readRevoked(
  deps: Deps,
  { ref, peer, host }: { ref: IncidentRef; peer: PeerRef; host: HostDone },
  step: string,
): Promise<StepResult> {
  const { rows } = await rowsOf(deps, peer);
  await assertBoundNode(deps, ref);
  const sealed = await seal(deps, ref, `${step} after`, 'peers', rows);
  const settled = (outcome: StepResult['outcome'], detail: string): StepResult => ({
    outcome,
    way: 'host',
    changed: host.done,
    detail,
    evidence: headOf(sealed),
  });
  if (ref.mode === 'drill') return settled('unverified', `DRILL: ${host.detail}`);
  if (rows.length === 0) return settled('verified', 'the node has no peers row of this peer any more');
  const open = rows.filter(({ status }) => status !== 'revoked').map(({ peer_id, status }) => `${peer_id} (${status})`);
  if (open.length > 0) return settled('unverified', `${host.detail}; not revoked over HTTP: ${open.join(', ')}`);
  return settled('verified', `status revoked read back over HTTP on ${rows.length} peers row(s): neither asked nor answered any more`);
}

/**
 * Lifts both sides: each row gets its true original back, not the fence an earlier incident had left.
 * Reads back. The old tenant_map can't be read over HTTP, so it can't be restored.
 */
export async function lift(
  deps: Deps,
  {
    ref,
    peer,
    readBack,
    reopened = {},
    only,
  }: {
    ref: IncidentRef;
    peer: PeerRef;
    readBack: boolean;
    reopened?: Readonly<Record<string, string>> | undefined;
    only?: string | undefined;
  },
): Promise<StepResult> {
  const isMeant = (row: Peer): boolean => only === undefined || row.node_id === only;
  const before = (await rowsOf(deps, peer)).rows.filter(isMeant);
  await assertBoundNode(deps, ref);
  const drill = ref.mode === 'drill';
  const wanted = new Map<string, { ingest_tenant: string; pull_tenant: string }>();
  const residual: Residual[] = [];
  for (const row of before) {
    const { original, why } = await originalOf(deps, ref, row);
    wanted.set(row.peer_id, original);
    if (why !== undefined) residual.push({ what: `original tenants of ${row.peer_id}`, why, count: 1 });
    const fenced = row.ingest_tenant?.startsWith(fenceMarker) || row.pull_tenant?.startsWith(fenceMarker);
    if (drill || readBack || !fenced) continue;
    await assertBoundNode(deps, ref);
    await deps.node.patchPeer(row.peer_id, { ...original, tenant_map: {} }, cancelSignal());
  }
  if (before.some(({ ingest_tenant: tenant }) => tenant?.startsWith(fenceMarker)) || only === undefined)
    residual.push({
      what: 'tenant_map',
      why: 'the old map of the peer can not be read over HTTP: it is empty now; enter it again on the host if there was one',
      count: before.length,
    });
  const after = (await rowsOf(deps, peer)).rows.filter(isMeant);
  await assertBoundNode(deps, ref);
  const sealed = await seal(deps, ref, 'liftFences', 'peers', { before, after, wanted: Object.fromEntries(wanted) });
  if (drill)
    return {
      outcome: 'unverified',
      way: 'http',
      changed: 0,
      detail: `DRILL: would lift the fences on ${before.length} peers row(s)`,
      evidence: headOf(sealed),
    };
  const wrong = after.filter((row) => {
    const target = wanted.get(row.peer_id);
    const status = reopened[row.peer_id];
    if (status !== undefined && row.status !== status) return true;
    return (row.ingest_tenant ?? '') !== target?.ingest_tenant || (row.pull_tenant ?? '') !== target.pull_tenant;
  });
  for (const { peer_id } of wrong)
    residual.push({ what: `fence on ${peer_id}`, why: 'not lifted: its original values do not read back', count: 1 });
  const detail =
    wrong.length === 0
      ? `original values read back on ${after.length} peers row(s)`
      : `not lifted on ${wrong.map(({ peer_id }) => peer_id).join(', ')}`;
  return { outcome: wrong.length === 0 ? 'verified' : 'unverified', way: 'http', detail, residual, evidence: headOf(sealed) };
}

/** What is about to be disturbed: the rows as they are, and of each the first look, for lifting the fence some day. */
async function sealBefore(deps: Deps, ref: IncidentRef, side: Side, rows: readonly Peer[]): Promise<void> {
  const store = await evidenceOf(deps, ref);
  const keys = new Set((await store.entries()).map(({ key }) => key));
  // The first look is the original; what a second attempt sees may be our own fence.
  const fresh = rows.filter((row) => !keys.has(originalKey(ref, row.peer_id)));
  await store.sealAll([
    { request: requestOf(ref, `${side} before`, 'peers'), content: rows },
    ...fresh.map((row) => ({
      request: {
        key: originalKey(ref, row.peer_id),
        kind: originalKind,
        name: originalName(row.peer_id),
        phase: ref.phase,
        round: ref.round,
        at: ref.at,
      },
      content: row,
    })),
  ]);
}

/** The tenants a row had before any fence of cordon: as this incident saw them, else as the last one before it that did. */
async function originalOf(
  deps: Deps,
  ref: IncidentRef,
  row: Peer,
): Promise<{ original: { ingest_tenant: string; pull_tenant: string }; why?: string }> {
  const looks = everSealed(deps, ref, ({ kind, name }) => kind === originalKind && name === originalName(row.peer_id));
  let ingest: string | undefined;
  let pull: string | undefined;
  for await (const look of looks) {
    const seen = Peer.parse(look);
    const clean = (side: Side) => ((seen[side] ?? '').startsWith(fenceMarker) ? undefined : (seen[side] ?? ''));
    ingest ??= clean('ingest_tenant');
    pull ??= clean('pull_tenant');
    if (ingest !== undefined && pull !== undefined) break;
  }
  const original = { ingest_tenant: ingest ?? '', pull_tenant: pull ?? '' };
  if (ingest !== undefined && pull !== undefined) return { original };
  return { original, why: "only fences of earlier incidents were ever seen on this row; the node's default was set" };
}
