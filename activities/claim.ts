import { isGrpcServiceError } from '@temporalio/client';
import { defaultPayloadConverter, WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError } from '@temporalio/common';
import { activityInfo } from '@temporalio/activity';
import { createHash } from 'node:crypto';
import { alertSignal, noteSignal } from '../src/contract/messages.ts';
import type { Alert } from '../src/contract/schemas.ts';
import type { ClaimAnswer, IncidentRef, PeerRef } from '../src/contract/steps.ts';
import { effectKey, type Deps } from './deps.ts';

/** gRPC's NOT_FOUND: also what the server says of a workflow that has closed. */
const notFound = 5;

interface Holder {
  readonly incident: string;
  readonly firstRun: string;
}

/** Who holds a peer: one claim workflow for each of its names, since starting an id is atomic. */
export function claimActivities(deps: Deps) {
  const { temporal } = deps;

  async function claimOne(id: string, holder: Holder): Promise<string | null> {
    const { taskQueue } = activityInfo();
    try {
      await temporal.workflow.start('PeerClaim', {
        workflowId: id,
        taskQueue,
        workflowIdConflictPolicy: 'FAIL',
        workflowIdReusePolicy: 'ALLOW_DUPLICATE',
        memo: { holder },
        staticSummary: `${holder.incident.slice(0, 150)} holds this peer`,
      });
      return null;
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    }
    const claim = await temporal.workflow.getHandle(id).describe();
    if (claim.status.name !== 'RUNNING') return claimOne(id, holder);
    const known = asHolder(claim.memo?.['holder']);
    if (known?.incident === holder.incident && known.firstRun === holder.firstRun) return null;
    if (known && (await isAlive(known))) return known.incident;
    // A dead holder's claim is taken over. Naming the run means that of two that try, one ends it, and one starts the next.
    await endClaim(id, claim.runId, `its holder ${known?.incident ?? 'unknown'} is dead`);
    return claimOne(id, holder);
  }

  async function isAlive({ incident, firstRun }: Holder): Promise<boolean> {
    try {
      const described = await temporal.workflow.getHandle(incident).describe();
      // Another incident under the same id later on is not this holder.
      const first = described.raw.workflowExecutionInfo?.firstRunId ?? '';
      return described.status.name === 'RUNNING' && (first === '' || first === firstRun);
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) return false;
      throw error;
    }
  }

  async function endClaim(id: string, runId: string, why: string): Promise<void> {
    try {
      await temporal.workflow.getHandle(id, runId).terminate(why);
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error;
    }
  }

  async function releaseAll(holder: Holder, ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      try {
        const claim = await temporal.workflow.getHandle(id).describe();
        const known = asHolder(claim.memo?.['holder']);
        if (claim.status.name === 'RUNNING' && known?.incident === holder.incident && known.firstRun === holder.firstRun) {
          await endClaim(id, claim.runId, 'the incident is closed');
        }
      } catch (error) {
        if (!(error instanceof WorkflowNotFoundError)) throw error;
      }
    }
  }

  /** The server takes a request id once in a run: what a worker that died had sent already is not counted twice. */
  async function signalOnce(workflowId: string, requestId: string, signalName: string, payload: object): Promise<void> {
    const { namespace, identity } = temporal.options;
    const input = { payloads: [defaultPayloadConverter.toPayload(payload)] };
    await temporal.workflowService.signalWorkflowExecution({
      namespace,
      identity,
      workflowExecution: { workflowId },
      signalName,
      input,
      requestId,
    });
  }

  return {
    /** Claims the peer under each of its names, in one order for all, or says who holds it and lets go again. */
    async claimPeer({ ref, peer, ourNodeId }: { ref: IncidentRef; peer: PeerRef; ourNodeId: string }): Promise<ClaimAnswer> {
      const holder = { incident: ref.incident, firstRun: ref.firstRun };
      const ids = claimIds(peer, ourNodeId);
      for (const id of ids) {
        const heldBy = await claimOne(id, holder);
        if (heldBy === null) continue;
        await releaseAll(holder, ids);
        return { heldBy };
      }
      return { heldBy: null };
    },

    /** Gives a duplicate's alerts to the incident that holds the peer. Done when the server has accepted them; `gone`: it has closed. */
    async handOverAlerts(input: {
      ref: IncidentRef;
      to: string;
      alerts: readonly Alert[];
      reportedBy?: string;
      reason?: string;
    }): Promise<{ handedOver: number; gone?: true }> {
      const { ref, to, alerts, reportedBy = 'cordon', reason = 'no reason given' } = input;
      const once = (item: string, name: string, payload: object) => signalOnce(to, effectKey(ref, `handOver ${item}`), name, payload);
      try {
        for (const [n, alert] of alerts.entries()) await once(`alert ${n}`, alertSignal.name, alert);
        await once('note', noteSignal.name, {
          by: reportedBy,
          text: `${ref.incident} was started for the same peer and joined with ${alerts.length} alerts: ${reason}`.slice(0, 4_000),
        });
      } catch (error) {
        if (!isGrpcServiceError(error) || error.code !== notFound) throw error;
        return { handedOver: 0, gone: true };
      }
      return { handedOver: alerts.length };
    },

    /** Lets go of the peer at the end. */
    async releasePeer({ ref, peer, ourNodeId }: { ref: IncidentRef; peer: PeerRef; ourNodeId: string }): Promise<{ released: true }> {
      await releaseAll({ incident: ref.incident, firstRun: ref.firstRun }, claimIds(peer, ourNodeId));
      return { released: true };
    },
  };
}

/** Names chosen outside never become part of an id: each is hashed. */
function claimIds(peer: PeerRef, ourNodeId: string): string[] {
  const names = [...peer.nodeIds.map((id) => `node ${id}`), `url ${peer.url.toLowerCase().replace(/\/+$/, '')}`];
  return [...new Set(names)]
    .map((name) => `cordon-claim:${createHash('sha256').update(`${ourNodeId} ${name}`).digest('hex').slice(0, 32)}`)
    .toSorted();
}

function asHolder(memo: unknown): Holder | undefined {
  if (typeof memo !== 'object' || memo === null || !('incident' in memo) || !('firstRun' in memo)) return undefined;
  const { incident, firstRun } = memo;
  return typeof incident === 'string' && typeof firstRun === 'string' ? { incident, firstRun } : undefined;
}
