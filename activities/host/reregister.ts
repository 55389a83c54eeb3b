import { z } from 'zod';
import { canonicalJson } from '../../src/contract/canonical.ts';
import type { HostDone, IncidentRef, VerifiedKeys } from '../../src/contract/steps.ts';
import { graceOf, SignedManifest } from '../../src/host/manifest.ts';
import { effectsOf } from '../../src/host/effect.ts';
import { readBinding, rebindPeer, unbindPeer, type Binding, type Unbound } from '../../src/host/rebind.ts';
import { StepFailure } from '../failures.ts';
import { assertApprovedHere } from '../approved.ts';
import { evidenceOf, headOf, seal } from '../deps.ts';
import { assertServes, effectOf, type HostDeps } from './deps.ts';

export interface RebindInput {
  readonly ref: IncidentRef;
  /** The run whose approval this acts on. */
  readonly approvedInRun: string;
  /** Whose fingerprint people brought from outside. */
  readonly keys: VerifiedKeys;
  /** Evidence id of what verifyKeys read: the manifest is taken from there, not from a message. */
  readonly sealed: string;
  /** Look only: is it bound? */
  readonly readBack?: boolean;
}

/** What a rebound peer is checked with, read back; `graceUntil`: how long facts signed with the key before are taken too. */
export interface HostRebound extends HostDone {
  readonly chain: 'same key' | 'chain' | 'none';
  readonly graceUntil: string | null;
}

/** The capability tokens that the node takes by a key that was rotated away (identity/key_rotation.py, _DUAL_TRUST_DAYS). */
const tokenDays = 90;

/** Rotate and reregister, on the node's own machine, behind gate `reregister`. */
export function hostReregisterActivities(deps: HostDeps) {
  return {
    /** A known node_id gets its new key and manifest; the door stays shut. Both are read back. */
    async rebindPeer({ ref, approvedInRun, keys, sealed: id, readBack = false }: RebindInput): Promise<HostRebound> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const { database, federation, trust } = deps;
      const { publicKey, nodeId } = keys;
      const manifest = await sealedManifest(deps, ref, keys, id);
      const before = await readBinding(database, nodeId);
      await seal(deps, ref, `key before ${ref.at}`, 'peers', before);
      if (readBack) {
        const isBound = before.publicKey === publicKey && before.manifest?.public_key === publicKey;
        const sealed = await seal(deps, ref, `key looked at ${ref.at}`, 'peers', before);
        const detail = `${nodeId} is ${isBound ? '' : 'not '}bound to the new key, and its row is ${before.status}`;
        return { done: isBound ? 1 : 0, detail, chain: 'none', graceUntil: null, evidence: headOf(sealed) };
      }
      if (ref.mode === 'drill') {
        const sealed = await seal(deps, ref, `key offered ${ref.at}`, 'peers', { publicKey, manifest });
        return { done: 0, detail: 'DRILL: would bind the new key', chain: 'none', graceUntil: null, evidence: headOf(sealed) };
      }
      const binding: Binding = { nodeId, publicKey, manifest, trustMode: trust.mode };
      const { record } = await rebindPeer(database, effectOf(ref, 'rebindPeer', 'rebindPeer', `${nodeId} ${publicKey}`), binding);
      const after = await readBinding(database, nodeId);
      const sealed = await seal(deps, ref, `key bound ${ref.at}`, 'peers', { record, after });
      if (after.publicKey !== publicKey || after.manifest?.public_key !== publicKey)
        throw new StepFailure(
          'PreconditionChanged',
          'peers.federation_pubkey: expected the key that was just bound, came another: somebody else changes it too',
        );
      const grace = graceOf(manifest, federation.graceHours);
      return {
        done: 1,
        detail: `${nodeId} is bound to the new key (${record.chain === 'none' ? 'without a chain from the old one' : record.chain}), its manifest with it; its row is ${after.status}`,
        chain: record.chain,
        graceUntil: grace?.until ?? null,
        residual: grace === null ? [] : graceResidual(grace.until),
        evidence: headOf(sealed),
      };
    },

    /** The keys as they were before this incident bound others, the last one first, where nobody has changed them since. */
    async unbindPeer({ ref, approvedInRun }: Pick<RebindInput, 'ref' | 'approvedInRun'>): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const bound = (await effectsOf(deps.database, { operation: 'rebindPeer', undo: 'unbindPeer' })).filter(({ key }) =>
        key.startsWith(`${ref.firstRun}:`),
      );
      const done: Unbound[] = [];
      for (const { key: of } of ref.mode === 'drill' ? [] : bound.toReversed()) {
        const effect = { key: `${of} undone`, incident: ref.incident, step: 'rebindPeer', operation: 'unbindPeer', of } as const;
        done.push((await unbindPeer(deps.database, effect)).record);
      }
      const sealed = await seal(deps, ref, 'keys given back', 'peers', done);
      const left = done.filter(({ back }) => !back).length;
      return {
        done: done.length - left,
        detail: `${done.length - left} of ${bound.length} keys given back`,
        residual:
          left > 0 ? [{ what: 'keys that somebody changed since', why: 'they are not ours any more, so they were left', count: left }] : [],
        evidence: headOf(sealed),
      };
    },
  };
}

function graceResidual(until: string) {
  return [
    {
      what: 'facts signed with the old key',
      why: `the manifest names it as the key before, so the node takes them until ${until} (STIGMEM_FEDERATION_KEY_ROTATION_GRACE_HOURS=0 and a restart end that)`,
      count: 1,
    },
    {
      what: 'capability tokens signed with the old key',
      why: `the node takes them for ${tokenDays} days after the rotation; those it knows are revoked by name`,
      count: 1,
    },
  ];
}

const SealedKeys = z.object({ keys: z.unknown(), manifest: z.unknown() });

/** The manifest that was verified, with the key that was approved. */
async function sealedManifest(deps: HostDeps, ref: IncidentRef, keys: VerifiedKeys, id: string): Promise<SignedManifest> {
  const content = SealedKeys.parse(await (await evidenceOf(deps, ref)).readJson(id));
  if (canonicalJson(content.keys) !== canonicalJson(keys))
    throw new StepFailure('PreconditionChanged', `keys: expected those that ${id} was sealed with, came others`);
  const parsed = SignedManifest.safeParse(content.manifest);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new StepFailure('HostRefused', `manifest.${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not as expected'}`);
}
