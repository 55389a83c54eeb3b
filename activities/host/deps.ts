import { lostHead } from '../evidence-loss.ts';
import type { HostDatabase } from '../../src/host/database.ts';
import type { Effect, Operation } from '../../src/host/effect.ts';
import type { Origin } from '../../src/host/facts.ts';
import { readHostNode } from '../../src/host/schema.ts';
import type { SnapshotSettings } from '../../src/host/snapshot.ts';
import type { Signer } from '../../src/host/tombstones.ts';
import type { TrustSettings } from '../../src/host/trust.ts';
import { HostSchemaError } from '../../src/host/database.ts';
import type { HostThere, IncidentRef, PeerRef } from '../../src/contract/steps.ts';
import type { AllowPrivate } from '../../src/stigmem/address-policy.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import { effectKey, type Folder } from '../deps.ts';
import { StepFailure } from '../failures.ts';
import type { Fate, Holder } from './fate.ts';

/** What the host worker's activities work with, all of it from its own configuration: no message names a path. */
export interface HostDeps extends Folder {
  readonly database: HostDatabase;
  readonly trust: TrustSettings;
  /** Undefined where no `stigmem` command is configured. */
  readonly snapshot: SnapshotSettings | undefined;
  /** The program that pauses and resumes promotion from quarantine, if this deployment has one. */
  readonly promotionCommand: string | undefined;
  /** What became of another incident, whose effects may stand in the way. */
  readonly fateOf: (holder: Holder) => Promise<Fate>;
  readonly federation: FederationSettings;
}

/** How our node federates, as it reads it itself. */
export interface FederationSettings {
  /** A secret. Undefined where the node keeps its key in its database. */
  readonly privateKey: string | undefined;
  /** How long the node takes facts signed with a key that was rotated away. */
  readonly graceHours: number;
  /** Where a peer may be asked although the address is not public. */
  readonly peerAllow: AllowPrivate;
}

/**
 * Is this the incident's node, with a schema that cordon knows, and is the evidence folder the incident's own? Asked by
 * every activity before it reads or changes anything: the node may have been upgraded since.
 */
export async function assertServes(deps: HostDeps, ref: IncidentRef): Promise<HostThere> {
  const { nodeId, migration } = await readHostNode(deps.database);
  if (ref.nodeId !== undefined && nodeId !== ref.nodeId)
    throw new HostSchemaError(`node_meta.node_id: expected ${ref.nodeId}, which this incident is about, came ${nodeId.slice(0, 200)}`);
  const store = await EvidenceStore.open(deps.evidenceDir, ref.incident, ref.at);
  if ((await lostHead(store, ref)) !== undefined)
    throw new StepFailure(
      'HostUnsupported',
      `CORDON_EVIDENCE_DIR: expected the folder that the worker seals into, came ${deps.evidenceDir}, where ${ref.evidenceHead ?? ''} is not in the incident's chain`,
    );
  return { storage: deps.database.kind, migration };
}

/** One change of this incident: a retry of the same attempt makes nothing twice, a later attempt is a change of its own. */
export function effectOf(ref: IncidentRef, step: string, operation: Operation, item = ref.at): Effect {
  return { key: effectKey(ref, `${operation} ${item}`), incident: ref.incident, step, operation };
}

/** Every name under which our node may have given the peer something. */
export function holderOf(peer: PeerRef): { holds: (entity: string) => boolean; deliversTo: (address: string) => boolean } {
  const names = new Set([peer.entityUri, ...peer.nodeIds, ...peer.peerIds].filter((name) => name !== ''));
  const origin = URL.parse(peer.url)?.origin;
  return {
    holds: (entity) => names.has(entity),
    deliversTo: (address) => origin !== undefined && URL.parse(address)?.origin === origin,
  };
}

/** Whose tombstones are the peer's: what one of its names signed, and what it brought. */
export function signerOf(peer: PeerRef): Signer {
  return { signs: holderOf(peer).holds, nodeIds: peer.nodeIds };
}

/** Whose facts are the peer's: what it delivered or sent through others. */
export function originOf({ nodeIds, entityUri }: PeerRef): Origin {
  return { nodeIds, entityUris: entityUri === '' ? [] : [entityUri] };
}
