import type { HostDone, IncidentRef, PeerRef, StepResult } from '../src/contract/steps.ts';
import { z } from 'zod';
import { OriginPin } from '../src/stigmem/wire-read.ts';
import { pinsBefore } from './contain.ts';
import { assertBoundNode, cancelSignal, everSealed, firstSealed, headOf, seal, type Deps } from './deps.ts';
import { lift } from './fences.ts';
import { assertApprovedHere } from './approved.ts';

interface RestoreInput {
  readonly ref: IncidentRef;
  readonly peer: PeerRef | null;
  readonly readBack: boolean;
  /** The run whose approval this acts on. */
  readonly approvedInRun: string;
  /** What the host worker undid just now. */
  readonly host?: HostDone;
  /** Rows of this node alone: the others keep their fence. */
  readonly only?: string;
}

/** Name of the evidence that holds the pins as they were before any was taken off. */
const pinsBeforeRestore = 'restoreTrust before';

/** Undoes what containment did, behind gate `restore`. Acts only on an approval of its own run. */
export function restoreActivities(deps: Deps) {
  return {
    /** Takes the origin pins off that containment set; manual steps that people did are listed for them to undo. */
    async restoreTrust({ ref, peer, approvedInRun, readBack, host, only }: RestoreInput): Promise<StepResult> {
      assertApprovedHere(approvedInRun);
      const before = await deps.node.originPins(cancelSignal());
      const isOurs = (pin: OriginPin) =>
        (peer?.nodeIds.includes(pin.node_id) ?? false) && (only === undefined || pin.node_id === only) && isContainment(pin);
      const ours = before.filter(isOurs);
      await assertBoundNode(deps, ref);
      await seal(deps, ref, pinsBeforeRestore, 'pins', before);
      // What an attempt that died took off already was of this containment too.
      const first = z.array(OriginPin).parse(await firstSealed(deps, ref, pinsBeforeRestore));
      for (const own of readBack || ref.mode === 'drill' ? [] : ours) {
        const { entity_uri, node_id } = own;
        const original = await originalPin(deps, ref, own);
        await assertBoundNode(deps, ref);
        if (original) await deps.node.putOriginPin({ entity_uri, node_id, key_fingerprint: original.key_fingerprint }, cancelSignal());
        else await deps.node.deleteOriginPin({ entity_uri, node_id }, cancelSignal());
      }
      const after = await deps.node.originPins(cancelSignal());
      await assertBoundNode(deps, ref);
      const sealed = await seal(deps, ref, 'restoreTrust', 'pins', { before, after });
      const left = after.filter(isOurs);
      const byHand = {
        what: 'keys, trust rules and memberships that people changed by hand',
        why: 'cordon can not see them over HTTP: undo them on the host',
        count: 1,
      };
      const residual = [
        ...(host ? (host.residual ?? []) : [byHand]),
        ...left.map(({ entity_uri, node_id }) => ({
          what: `origin pin of ${entity_uri}, ${node_id}`,
          why: 'not taken off: it still reads back as set by containment',
          count: 1,
        })),
      ];
      const pins = `${first.filter(isOurs).length} origin pin(s) of this containment, ${left.length} left`;
      const detail = host ? `${host.detail}; ${pins}` : pins;
      const way = host ? 'host' : 'http';
      const isStanding = readBack && (host?.residual ?? []).length > 0;
      const outcome = left.length === 0 && !isStanding ? 'verified' : 'unverified';
      return { outcome, way, detail, residual, evidence: headOf(sealed) };
    },

    /** Promotion was paused outside the node, so people resume it there. */
    async resumePromotion({ ref, approvedInRun, host }: RestoreInput): Promise<StepResult> {
      assertApprovedHere(approvedInRun);
      if (host && host.works !== false) {
        const { detail, residual = [], evidence } = host;
        return { outcome: residual.length === 0 ? 'verified' : 'unverified', way: 'host', detail, residual, evidence };
      }
      const sealed = await seal(deps, ref, 'resumePromotion', 'promotions', { by: 'people' });
      return {
        outcome: 'unavailable',
        way: 'none',
        detail: 'the node has no switch for promotion: start again what was stopped by hand',
        residual: [
          { what: 'promotion from quarantine', why: 'paused outside the node; cordon can not see whether it runs again', count: 1 },
        ],
        evidence: headOf(sealed),
      };
    },

    /** Both fences off, original values back. From here on the peer delivers again, what waited included. */
    async liftFences({ ref, peer, readBack, approvedInRun, host, only }: RestoreInput): Promise<StepResult> {
      assertApprovedHere(approvedInRun);
      if (peer) {
        const lifted = await lift(deps, { ref, peer, readBack, reopened: host?.reopened, only });
        if (!host) return lifted;
        const residual = [...(host.residual ?? []), ...(lifted.residual ?? [])];
        return { ...lifted, way: 'host', detail: `${host.detail}; ${lifted.detail}`, residual };
      }
      const sealed = await seal(deps, ref, 'liftFences', 'skipped', { why: 'no peer was resolved' });
      return { outcome: 'verified', way: 'none', detail: 'no peer was resolved, so no fence was set', evidence: headOf(sealed) };
    },
  };
}

function isContainment(pin: OriginPin): boolean {
  return /^sha256:0{64}$/.test(pin.key_fingerprint);
}

/** The pin as it was before any of containment: as this incident saw it first, else as the last one before it that did. */
async function originalPin(deps: Deps, ref: IncidentRef, own: OriginPin): Promise<OriginPin | undefined> {
  for await (const look of everSealed(deps, ref, ({ name }) => name === pinsBefore)) {
    const pins = z.array(OriginPin).parse(look);
    const seen = pins.find((pin) => pin.entity_uri === own.entity_uri && pin.node_id === own.node_id);
    if (seen === undefined || !isContainment(seen)) return seen;
  }
  return undefined;
}
