import { z } from 'zod';
import type { HostDone, IncidentRef, PeerRef, StepResult } from '../src/contract/steps.ts';
import { findCapabilities } from '../src/stigmem/capabilities.ts';
import { StigmemHttpError } from '../src/stigmem/errors.ts';
import { collectAudit, collectQuarantine } from '../src/stigmem/paging.ts';
import { assertBoundNode, cancelSignal, type Deps, evidenceOf, firstSealed, headOf, isOf, seal } from './deps.ts';
import { fence, readRevoked, rowsOf } from './fences.ts';
import { beat } from './heartbeat.ts';

export interface ContainInput {
  readonly ref: IncidentRef;
  readonly peer: PeerRef | null;
  /** Look only: a person says it is done. */
  readonly readBack: boolean;
  /** What the host worker did about it just now: only to be read back. */
  readonly host?: HostDone;
}

/** No key of a real origin has this fingerprint: facts signed by the pinned origin no longer verify. */
const noKey = `sha256:${'0'.repeat(64)}`;

/** A warning names at most this many peers; all of them stand in the evidence. */
const maxNamed = 20;

/** Name of the evidence that holds the tokens as they were. */
const tokensBefore = 'revokeTokens before';
const SeenToken = z.looseObject({ fact_id: z.string().nullable() });
const TokensBefore = z.object({ live: z.array(SeenToken), theirs: z.array(SeenToken), events: z.int().optional() });

/** Name of the evidence that holds the pins as they were. */
export const pinsBefore = 'blockRelays before';

/** Contain: "Stop new data from the peer first. Do not delete audit events". All of it can be undone. */
export function containActivities(deps: Deps) {
  return {
    /** "Disable or remove the peer registration": nothing it sends is stored. */
    async fenceInbound(input: ContainInput): Promise<StepResult> {
      const { ref, peer } = input;
      if (!peer) return nothingResolved(deps, ref, 'fenceInbound');
      const byHost = await shutOnHost(deps, input, 'fenceInbound');
      if (byHost) return byHost;
      const { result, rows, all } = await fence(deps, { ...input, peer }, 'ingest_tenant');
      const fenced = new Set(rows.map(({ peer_id }) => peer_id));
      const listed = all.filter(({ status }) => status === 'active');
      // The node pulls in the order of its list and stops at the first fenced one.
      const first = listed.findIndex(({ peer_id }) => fenced.has(peer_id));
      const stalled = first < 0 ? [] : listed.slice(first).filter(({ peer_id }) => !fenced.has(peer_id));
      const otherPeers = stalled.slice(0, maxNamed).map(({ node_id, node_url }) => `${node_id} (${node_url})`);
      if (stalled.length > maxNamed) otherPeers.push(`and ${stalled.length - maxNamed} more`);
      if (otherPeers.length === 0) return result;
      const warning =
        `The HTTP fence has a price: as long as ${peer.nodeId} answers, this node takes nothing from peers listed after it: ${otherPeers.join(', ')}. ` +
        `What would not: a firewall rule on the node's host that rejects connections to ${peer.url}, or on its database UPDATE peers SET status='revoked' WHERE node_id='${sqlText(peer.nodeId)}'.`;
      const residual = [
        {
          what: 'innocent peers may be stalled by the HTTP fence',
          why: 'this node aborts its whole pull loop at a fenced peer that answers',
          count: stalled.length,
        },
      ];
      return { ...result, warnings: [warning], residual };
    },

    /** The other direction: what we have is not read by it any more. */
    async fenceOutbound(input: ContainInput): Promise<StepResult> {
      const { ref, peer } = input;
      if (!peer) return nothingResolved(deps, ref, 'fenceOutbound');
      const byHost = await shutOnHost(deps, input, 'fenceOutbound');
      if (byHost) return byHost;
      return (await fence(deps, { ...input, peer }, 'pull_tenant')).result;
    },

    /** A third peer that is trusted to relay must not bring the origin's facts in again. */
    async blockRelays({ ref, peer, readBack }: ContainInput): Promise<StepResult> {
      if (!peer) return nothingResolved(deps, ref, 'blockRelays');
      const how = `On the node's host find the entity URI (SELECT entity_uri FROM peers WHERE node_id='${sqlText(peer.nodeId)}'), then POST /v1/federation/origin-pins {"entity_uri":"…","node_id":"${peer.nodeId}","key_fingerprint":"${noKey}"}.`;
      const { originPins } = await findCapabilities(deps.node, cancelSignal());
      if (!originPins) {
        await assertBoundNode(deps, ref);
        const sealed = await seal(deps, ref, 'blockRelays', 'pins', { originPins: false });
        return { outcome: 'unavailable', way: 'none', changed: 0, detail: 'this node has no origin pins', evidence: headOf(sealed) };
      }
      const before = await deps.node.originPins(cancelSignal());
      await assertBoundNode(deps, ref);
      await seal(deps, ref, pinsBefore, 'pins', before);
      const drill = ref.mode === 'drill';
      if (peer.entityUri !== '' && !readBack && !drill) {
        for (const nodeId of peer.nodeIds) {
          const set = before.some((pin) => pin.entity_uri === peer.entityUri && pin.node_id === nodeId && pin.key_fingerprint === noKey);
          if (set) continue;
          await assertBoundNode(deps, ref);
          await deps.node.putOriginPin({ entity_uri: peer.entityUri, node_id: nodeId, key_fingerprint: noKey }, cancelSignal());
        }
      }
      const pins = await deps.node.originPins(cancelSignal());
      await assertBoundNode(deps, ref);
      const sealed = await seal(deps, ref, 'blockRelays after', 'pins', pins);
      const evidence = headOf(sealed);
      if (drill)
        return {
          outcome: 'unverified',
          way: 'http',
          changed: 0,
          detail: 'DRILL: would pin the origin to a key that does not exist',
          evidence,
        };
      const pinned = peer.nodeIds.every((nodeId) => pins.some((pin) => pin.node_id === nodeId && pin.key_fingerprint === noKey));
      if (!pinned) {
        const why = "The peer's entity URI is not known yet: over HTTP only its own endpoints say it, and they are asked after the fence.";
        return { outcome: 'unverified', way: 'manual', changed: 0, detail: 'no pin: entity URI unknown', manual: { why, how }, evidence };
      }
      const { rows } = await rowsOf(deps, peer);
      const isShut = rows.every(({ status }) => status === 'revoked');
      const residual = isShut
        ? []
        : [{ what: 'relays', why: 'seen to block relayed facts only once the peers row is revoked, which needs the host', count: 1 }];
      return {
        outcome: 'verified',
        way: 'http',
        changed: peer.nodeIds.length,
        detail: `pin read back for ${peer.nodeIds.length} node_id(s)${isShut ? ', and the peers row is revoked' : ''}, enforcement not observed`,
        residual,
        evidence,
      };
    },

    /** "Revoke capability tokens issued to that peer": as far as HTTP shows them. */
    async revokeTokens({ ref, peer, readBack }: ContainInput): Promise<StepResult> {
      if (!peer) return nothingResolved(deps, ref, 'revokeTokens');
      const look = () => collectAudit(deps.node, { signal: cancelSignal(), onPage: () => beat() });
      const before = await look();
      const names = [...peer.peerIds, ...peer.nodeIds, peer.entityUri].filter((name) => name !== '');
      const tokens = (events: typeof before.items) => {
        const revoked = new Set(events.filter(({ event_type }) => event_type === 'capability_revoked').map(({ fact_id }) => fact_id));
        return events.filter(({ event_type, fact_id }) => event_type === 'capability_issued' && !revoked.has(fact_id));
      };
      const live = tokens(before.items);
      const liveTheirs = live.filter(({ entity_uri }) => entity_uri !== null && names.includes(entity_uri));
      await assertBoundNode(deps, ref);
      await seal(deps, ref, tokensBefore, 'tokens', { live, theirs: liveTheirs, events: before.items.length });
      // What an attempt that died has revoked is live no more, and was revoked all the same.
      const first = TokensBefore.parse(await firstSealed(deps, ref, tokensBefore));
      const theirs = [...first.theirs, ...liveTheirs.filter(({ fact_id: id }) => !first.theirs.some(({ fact_id }) => fact_id === id))];
      const refusedIds: string[] = [];
      for (const { fact_id: id } of liveTheirs) {
        if (id === null || readBack || ref.mode === 'drill') continue;
        await assertBoundNode(deps, ref);
        try {
          await deps.node.revokeCapabilityToken(id, `cordon incident ${ref.firstRun}`, cancelSignal());
        } catch (error) {
          // 404 and 409: gone or revoked already. 403: only its issuer or subject may, so people have to.
          if (!(error instanceof StigmemHttpError) || ![403, 404, 409].includes(error.status)) throw error;
          if (error.status === 403) refusedIds.push(id);
        }
      }
      const after = await look();
      const still = tokens(after.items);
      const left = still.filter(
        ({ fact_id, entity_uri }) =>
          theirs.some((token) => token.fact_id === fact_id) || (entity_uri !== null && names.includes(entity_uri)),
      );
      await assertBoundNode(deps, ref);
      const sealed = await seal(deps, ref, 'revokeTokens after', 'tokens', { left, refused: refusedIds });
      const evidence = headOf(sealed);
      // A node may write these events where its own audit routes don't show them: none at all is no proof of none.
      const shows = [...before.items, ...after.items].some(({ event_type }) => event_type.startsWith('capability_'));
      const coverage = [
        {
          what: 'capability tokens',
          seen: Math.max(live.length, first.live.length),
          complete: after.complete && shows && live.length === 0 && first.live.length === 0,
          why: shows
            ? 'no route lists tokens; ids come from the audit, which names the issuer and not the subject'
            : 'no route lists tokens, and the audit shows no event of any token, as it does on nodes that hide them',
        },
      ];
      const ended = { way: 'http' as const, changed: 0, coverage, evidence };
      if (ref.mode === 'drill') return { ...ended, outcome: 'unverified', detail: `DRILL: would revoke ${theirs.length} tokens` };
      const others = still.length - left.length;
      const found = theirs.length === 0 ? 'zero tokens found' : `${theirs.length} tokens revoked and read back`;
      const read = `${first.events ?? before.items.length} audit events read`;
      if (left.length === 0 && others === 0 && after.complete && shows)
        return { ...ended, outcome: 'verified', changed: theirs.length, detail: `${found}; ${read}` };
      const why =
        left.length > 0
          ? `${left.length} tokens of the peer could not be revoked with this key.`
          : others > 0
            ? `${others} live tokens were issued here, and over HTTP nobody can see whether the peer is their subject.`
            : `${found}; ${read}, ${shows ? 'and the audit could not be read to its end' : 'none of them about a token, and a node may hide those'}: over HTTP nobody can tell.`;
      const how = `On the node's host: SELECT id, issuer, subject FROM capability_tokens WHERE revoked_at IS NULL; revoke those of the peer as their issuer: POST /v1/federation/capability-tokens/{id}/revoke.`;
      return { ...ended, outcome: 'unverified', way: 'manual', changed: theirs.length - left.length, detail: why, manual: { why, how } };
    },

    /** Its API and agent keys stay good behind every fence, and HTTP can neither list nor delete another entity's. */
    async revokeKeys({ ref, peer }: ContainInput): Promise<StepResult> {
      if (!peer) return nothingResolved(deps, ref, 'revokeKeys');
      const expiring = await deps.node.keysExpiringSoon(365, cancelSignal());
      const theirs = expiring.filter(({ entity_uri }) => entity_uri === peer.entityUri && peer.entityUri !== '');
      await assertBoundNode(deps, ref);
      const sealed = await seal(deps, ref, 'revokeKeys', 'keys', { expiring: expiring.length, theirs });
      const entity = peer.entityUri === '' ? "<the peer's entity URI>" : sqlText(peer.entityUri);
      const why = `Keys issued to the peer's entities are not touched by any fence: with one it writes, recalls and reads the audit. HTTP can neither list nor delete them (${theirs.length} seen that expire within a year).`;
      const how =
        `On the node's host: SELECT id, entity_uri, permissions FROM api_keys WHERE entity_uri='${entity}'; DELETE FROM api_keys WHERE entity_uri='${entity}'; ` +
        `UPDATE agent_keys SET status='revoked' WHERE entity_uri='${entity}'; and the same for every other entity the peer was given a key for. Then look at its subscriptions and garden memberships.`;
      return {
        outcome: 'unverified',
        way: 'manual',
        changed: 0,
        detail: 'keys can not be listed or revoked over HTTP, nor read back',
        manual: { why, how },
        evidence: headOf(sealed),
      };
    },

    /** "If your deployment supports source-trust rules, lower the peer's trust score": a file on the host. */
    async lowerTrust({ ref, peer, host }: ContainInput): Promise<StepResult> {
      if (!peer) return nothingResolved(deps, ref, 'lowerTrust');
      if (host) return { outcome: 'unavailable', way: 'none', changed: 0, detail: host.detail, evidence: host.evidence };
      const sealed = await seal(deps, ref, 'lowerTrust', 'trust', { peer });
      const source = peer.entityUri === '' ? "<each source the peer's facts claim; see the plan>" : peer.entityUri;
      const why =
        "Trust rules are a file on the node's host. A rule matches a fact's source letter by letter, not the peer, and lowers nothing unless STIGMEM_TRUST_MODE=strict and a quarantine garden is set.";
      const how = `In the file named by STIGMEM_TRUST_RULES_FILE, for each source only this peer speaks for: never_trust: [{org_uri: ${JSON.stringify(source)}, reason: "cordon ${ref.incident}"}]. Never one that local writers use too.`;
      return {
        outcome: 'unverified',
        way: 'manual',
        changed: 0,
        detail: 'trust rules have no HTTP route, nor can they be read back over HTTP',
        manual: { why, how },
        evidence: headOf(sealed),
      };
    },

    /** "Pause any automated promotion from quarantine": the node has no switch; its quarantine list keeps who promoted what, and when. */
    async pausePromotion({ ref, peer, readBack }: ContainInput): Promise<StepResult> {
      if (!peer) return nothingResolved(deps, ref, 'pausePromotion');
      const quarantine = await collectQuarantine(deps.node, { signal: cancelSignal(), onPage: () => beat() });
      await assertBoundNode(deps, ref);
      const promoted = quarantine.items.filter(({ quarantine_status: status }) => status === 'promoted');
      const pending = quarantine.items.filter(
        ({ quarantine_status: status, received_from: from }) => status === 'pending' && peer.nodeIds.includes(from ?? ''),
      ).length;
      const firstLook = (await (await evidenceOf(deps, ref)).entries()).find(
        ({ key, kind, round }) => isOf(ref, key) && kind === 'promotions' && round === ref.round,
      );
      const sealed = await seal(deps, ref, readBack ? `pausePromotion read back ${ref.at}` : 'pausePromotion', 'promotions', {
        promoted,
        pending,
      });
      const evidence = headOf(sealed);
      if (!readBack) {
        const why = `The node has no switch that pauses promotion: whatever promotes calls its routes from outside. ${promoted.length} facts were promoted so far, ${pending} of the peer's are pending.`;
        const how =
          'Stop the job or person that calls POST /v1/quarantine/{id}/admit or POST /v1/gardens/{id}/promote, then: cordon done <incident> pausePromotion --by <you>.';
        return { outcome: 'unverified', way: 'manual', changed: 0, detail: 'no switch on this node', manual: { why, how }, evidence };
      }
      const from = firstLook?.at ?? ref.at;
      const since = promoted.filter(({ quarantine_acted_at: at }) => at === null || Date.parse(at) >= Date.parse(from)).length;
      // Nothing promoted proves something only where there was something to promote, and the whole list was seen.
      const isPaused = since === 0 && pending > 0 && quarantine.complete && firstLook !== undefined;
      return {
        outcome: isPaused ? 'verified' : 'unverified',
        way: 'manual',
        detail: `${since} promotions since ${from}, ${pending} facts of the peer pending`,
        evidence,
      };
    },
  };
}

/** What the host worker did, read back; undefined where it does not read back and HTTP has to shut the door. */
async function shutOnHost(deps: Deps, { ref, peer, host, readBack }: ContainInput, step: string): Promise<StepResult | undefined> {
  if (!peer || !host) return undefined;
  const read = await readRevoked(deps, { ref, peer, host }, step);
  return read.outcome === 'verified' || readBack || ref.mode === 'drill' ? read : undefined;
}

async function nothingResolved(deps: Deps, ref: IncidentRef, step: string): Promise<StepResult> {
  const sealed = await seal(deps, ref, step, 'skipped', { why: 'the peer was not resolved' });
  return {
    outcome: 'unverified',
    way: 'none',
    changed: 0,
    detail: 'the peer was not resolved, so there is nothing to act on',
    evidence: headOf(sealed),
  };
}

/** For instructions that people paste: a quote in a peer's name must not end the string. */
function sqlText(text: string): string {
  return text.replaceAll("'", "''").replace(/\p{Cc}/gu, ' ');
}
