import { Context } from '@temporalio/activity';
import { z } from 'zod';
import type { IncidentRef, PeerRef, Registered, StepResult, VerifiedKeys } from '../src/contract/steps.ts';
import { StigmemHttpError } from '../src/stigmem/errors.ts';
import type { Peer } from '../src/stigmem/wire.ts';
import { assertApprovedHere } from './approved.ts';
import { assertBoundNode, cancelSignal, effectKey, evidenceOf, headOf, seal, type Deps } from './deps.ts';
import { StepFailure } from './failures.ts';
import { fence, inboundFence, outboundFence } from './fences.ts';
import { clusterOf } from './peers.ts';

const approving = (peerId: string): string => `registerPeer approving ${peerId}`;

/** What the peer signed for its registration, from outside. */
const Declaration = z.strictObject({
  node_id: z.string().min(1),
  node_url: z.string().min(1),
  federation_pubkey: z.string().min(1),
  allowed_scopes: z.array(z.string()).min(1),
  signed_at: z.string().min(1),
  declaration_sig: z.string().min(1),
});

interface Registering {
  readonly ref: IncidentRef;
  /** The peer as it was. */
  readonly peer: PeerRef;
  /** What verifyKeys found, and people approved by its fingerprint. */
  readonly keys: VerifiedKeys;
  readonly approvedInRun: string;
  /** The peer's own signed registration, where its operator sent it; else the peer registers itself. */
  readonly declaration?: unknown;
}

/** Recover 4: "Re-register the peer only after you verify its new manifest/key material out of band". */
export function reregisterActivities(deps: Deps) {
  const rowOf = async ({ nodeId }: VerifiedKeys): Promise<Peer | undefined> =>
    (await deps.node.peers(cancelSignal())).find((row) => row.node_id === nodeId);

  return {
    /**
     * Over HTTP, a peer that comes back as a new node: registers it if the peer has not done so itself, fences its row both
     * ways while it is still pending, and only then approves it by the fingerprint. Each read back. It stays fenced.
     */
    async registerPeer(input: Registering): Promise<Registered> {
      const { ref, peer, keys, approvedInRun } = input;
      assertApprovedHere(approvedInRun);
      await assertBoundNode(deps, ref);
      const before = await rowOf(keys);
      const done = async (outcome: StepResult['outcome'], detail: string, more: Partial<StepResult> = {}): Promise<Registered> => {
        await assertBoundNode(deps, ref);
        const now = await rowOf(keys);
        const sealed = await seal(deps, ref, 'registerPeer after', 'registration', { keys, row: now ?? null, detail });
        const result = { outcome, way: 'http', detail, evidence: headOf(sealed), ...more } as const;
        return { ...result, peer: now === undefined || outcome !== 'verified' ? peer : joined(peer, keys, now) };
      };
      const byHand = (why: string, how: string): Promise<Registered> => done('unverified', why, { way: 'manual', manual: { why, how } });
      await seal(deps, ref, 'registerPeer before', 'registration', { keys, row: before ?? null, declaration: input.declaration ?? null });

      if (peer.nodeIds.includes(keys.nodeId)) return byHand(knownWhy(keys), knownHow(peer, keys));
      const declaration = declared(input);
      if (ref.mode === 'drill')
        return done('unverified', `DRILL: would register ${keys.nodeId}, fence it and approve it with ${keys.fingerprint}`);
      if (before === undefined && declaration === undefined)
        return byHand(
          `node ${keys.nodeId} has not registered here yet, and only it can sign its registration`,
          `Give its operator a key of our node with permission federate alone, and ask for: stigmem federation register-peer --remote-url ${shellText(deps.nodeUrl)} --local-url ${shellText(peer.url)} --scopes ${shellText(peer.allowedScopes.join(',') || 'SCOPES')} --api-key <that key>. Then retry, and delete the key.`,
        );
      if (before === undefined && declaration !== undefined) await register(deps, declaration);

      const row = await rowOf(keys);
      const wrong = row === undefined ? 'the node lists no such row after registering it' : wrongWith(row, peer);
      if (row === undefined || wrong !== undefined)
        return byHand(
          `${wrong ?? ''}`,
          `Look at the row of ${keys.nodeId} in GET ${deps.nodeUrl}/v1/federation/peers; once it is right, retry.`,
        );
      // Pending rows are neither asked nor answered: fenced before it is approved, it is never open.
      const known = { ...peer, peerIds: [...peer.peerIds, row.peer_id], nodeIds: [...peer.nodeIds, row.node_id] };
      for (const side of ['ingest_tenant', 'pull_tenant'] as const) await fence(deps, { ref, peer: known, readBack: false }, side);
      const fenced = await rowOf(keys);
      if (fenced === undefined || !isFenced(ref, fenced))
        return done('unverified', `the fence does not read back on ${row.peer_id}: not approved`);
      if (fenced.status === 'pending_approval') {
        await seal(deps, ref, approving(fenced.peer_id), 'registration', { keys, row: fenced });
        await assertBoundNode(deps, ref);
        await approve(deps, fenced.peer_id, keys);
      } else if (!(await wasApprovedByUs(deps, ref, fenced.peer_id)))
        return byHand(
          `row ${fenced.peer_id} was ${fenced.status} already, approved by another hand: with which key, HTTP does not show`,
          `Compare peers.federation_pubkey of ${fenced.peer_id} in the node's database with ${keys.publicKey}; the row is fenced.`,
        );
      await settle(deps, fenced.peer_id);
      const after = await rowOf(keys);
      if (after?.status !== 'active')
        return done(
          'unverified',
          `approved, but ${keys.nodeId} is ${after?.status ?? 'not listed'} now: a node in trust mode strict asks for a transparency log`,
        );
      if (!isFenced(ref, after)) return done('unverified', `approved and active, but the fence on ${after.peer_id} does not read back`);
      return done(
        'verified',
        `${keys.nodeId} active with key ${keys.fingerprint} and fenced both ways, read back on row ${after.peer_id}; whether its facts are taken, only a test pull shows`,
        {
          changed: 1,
          residual: [
            {
              what: 'the old registration and its key',
              why: `HTTP can only fence ${peer.nodeIds.join(', ')}: calls signed with the old key under the old node_id are still answered, with nothing; status revoked on the host refuses them`,
              count: peer.peerIds.length,
            },
          ],
        },
      );
    },
  };
}

async function register(deps: Deps, declaration: z.infer<typeof Declaration>): Promise<void> {
  try {
    await deps.node.registerPeer(declaration, cancelSignal());
  } catch (error) {
    // Registered meanwhile, by the peer or by an attempt whose answer was lost: what is listed decides.
    if (!(error instanceof StigmemHttpError && error.status === 409)) throw error;
  }
}

async function approve(deps: Deps, peerId: string, { fingerprint }: VerifiedKeys): Promise<void> {
  try {
    await deps.node.approvePeer(peerId, fingerprint, cancelSignal());
  } catch (error) {
    if (error instanceof StigmemHttpError && error.status === 400)
      throw new StepFailure(
        'PreconditionChanged',
        `row ${peerId} was registered with another key than ${fingerprint}: nothing was approved`,
      );
    if (!(error instanceof StigmemHttpError && error.status === 409)) throw error;
  }
}

/** Our own approval whose answer was lost? It was about to be sent, and our node refused none that named another key. */
async function wasApprovedByUs(deps: Deps, ref: IncidentRef, peerId: string): Promise<boolean> {
  const key = effectKey(ref, approving(peerId));
  if (!(await (await evidenceOf(deps, ref)).entries()).some((entry) => entry.key === key)) return false;
  const { entries } = await deps.node.federationAuditPage({ peerId, eventType: 'peer_approval_failed', limit: 1 }, cancelSignal());
  return entries.length === 0;
}

/** After its answer our node still reads the peer's manifest, and in trust mode strict takes the approval back: until it says so. */
async function settle(deps: Deps, peerId: string): Promise<void> {
  for (let tries = 0; tries < 20; tries += 1) {
    for (const eventType of ['tl_proof_missing', 'tl_proof_verified']) {
      const { entries } = await deps.node.federationAuditPage({ peerId, eventType, limit: 1 }, cancelSignal());
      if (entries.length > 0) return;
    }
    await Context.current().sleep(250);
  }
}

/** @throws StepFailure where the declaration is not of what was approved */
function declared({ declaration, keys, peer }: Registering): z.infer<typeof Declaration> | undefined {
  if (declaration === undefined) return undefined;
  const parsed = Declaration.safeParse(declaration);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new StepFailure('InvalidInput', `declaration.${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'another shape'}`);
  }
  const { data } = parsed;
  const not = (field: string, expected: string, came: string): StepFailure =>
    new StepFailure('InvalidInput', `declaration.${field}: expected ${expected}, came ${came.slice(0, 300)}`);
  if (data.node_id !== keys.nodeId) throw not('node_id', keys.nodeId, data.node_id);
  if (data.federation_pubkey !== keys.publicKey) throw not('federation_pubkey', keys.publicKey, data.federation_pubkey);
  if (!isAt(peer, data.node_url)) throw not('node_url', peer.url, data.node_url);
  const more = wider(data.allowed_scopes, peer);
  if (more.length > 0) throw not('allowed_scopes', `none but ${peer.allowedScopes.join(', ')}`, more.join(', '));
  return data;
}

/** Scopes that the peer did not have: coming back is no way to get more. */
function wider(scopes: readonly string[], { allowedScopes }: PeerRef): string[] {
  return allowedScopes.length === 0 ? [] : scopes.filter((scope) => !allowedScopes.includes(scope));
}

function isAt({ url }: PeerRef, nodeUrl: string): boolean {
  return clusterOf([{ node_id: '', node_url: nodeUrl }], { node_id: 'other', node_url: url }).length > 0;
}

function wrongWith(row: Peer, peer: PeerRef): string | undefined {
  const more = wider(row.allowed_scopes, peer);
  if (more.length > 0) return `it registered for scopes it did not have: ${more.join(', ')}`;
  if (row.node_url !== peer.url)
    return `it registered at another URL, ${row.node_url.slice(0, 300)}, than the one its keys were verified at`;
  if (row.status === 'pending_approval' || row.status === 'active') return undefined;
  return `its row ${row.peer_id} is ${row.status}: our node did not find the declared key at ${row.node_url.slice(0, 300)}, or it was shut`;
}

function isFenced(ref: IncidentRef, row: Peer): boolean {
  return row.ingest_tenant === inboundFence(ref) && row.pull_tenant === outboundFence;
}

/** The peer from now on: the new node first, the old rows with it, for they stay fenced. */
function joined(peer: PeerRef, { nodeId, entityUri }: VerifiedKeys, { peer_id: peerId }: Peer): PeerRef {
  return {
    ...peer,
    nodeId,
    entityUri,
    peerIds: [...new Set([...peer.peerIds, peerId])],
    nodeIds: [...new Set([...peer.nodeIds, nodeId])],
  };
}

function knownWhy({ nodeId }: VerifiedKeys): string {
  return `node ${nodeId} is registered here already, and HTTP has no way to give it another key (409): peers.federation_pubkey and the stored manifest have to change together on the host`;
}

function knownHow({ url }: PeerRef, { nodeId, publicKey, entityUri }: VerifiedKeys): string {
  const row = `UPDATE peers SET federation_pubkey = '${sqlText(publicKey)}' WHERE node_id = '${sqlText(nodeId)}'`;
  const manifest = `DELETE FROM federation_manifests WHERE entity_uri = '${sqlText(entityUri)}'`;
  const store = `from stigmem_node.identity import manifest, trust_store; import httpx; m = manifest.manifest_from_dict(httpx.get(${JSON.stringify(`${url}/.well-known/stigmem-manifest.json`)}).json()); trust_store.store_peer_manifest(m.entity_uri, m)`;
  return `Run cordon host-worker on the node's machine, or there by hand: ${row}; ${manifest}; then with the node's Python and environment: ${store}. Or have the peer come back under a new node_id and a new entity URI, and verify its keys again.`;
}

function sqlText(value: string): string {
  return value.replaceAll("'", "''");
}

/** One word to a shell, whatever the peer called itself. */
function shellText(value: string): string {
  return `'${value.replaceAll("'", "'\\''")}'`;
}
