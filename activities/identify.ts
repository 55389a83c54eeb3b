import { activityInfo } from '@temporalio/activity';
import { searchAttributes } from '../src/contract/names.ts';
import type { Alert, Coverage, StartPayload } from '../src/contract/schemas.ts';
import { earlierFence } from '../src/contract/steps.ts';
import type { AlertsHeld, CapturedLocal, HeldAlert, IncidentRef, OpenedRun, PeerRef, ResolvedPeer } from '../src/contract/steps.ts';
import { holdAlert, suspiciousEvents, type AuditedEvent } from '../src/policy/alerts.ts';
import { loadPolicy } from '../src/policy/load.ts';
import { findCapabilities, leverWords } from '../src/stigmem/capabilities.ts';
import { collectFederationAudit } from '../src/stigmem/federation-audit.ts';
import { collectAudit, collectQuarantine } from '../src/stigmem/paging.ts';
import type { FederationAuditEvent, Peer } from '../src/stigmem/wire.ts';
import { assertBoundNode, cancelSignal, headOf, seal, sealAll, type Deps } from './deps.ts';
import { StepFailure } from './failures.ts';
import { beat } from './heartbeat.ts';
import { clusterOf, matchPeers } from './peers.ts';
import { fenceMarker } from './fences.ts';

/** Identify: "Capture the current evidence before changing state", from our own node only. Changes nothing. */
export function identifyActivities(deps: Deps) {
  return {
    /** Which run is this? Local: its answer is what tells a reset copy from the run it was copied from. */
    async whichRun(): Promise<{ run: string }> {
      return { run: currentRun() };
    },

    /** Pins the policy in force and opens the evidence folder. Reads no node. */
    async openRun(input: { ref: IncidentRef; originalRun: string; start: StartPayload; previousRun?: string }): Promise<OpenedRun> {
      const { ref, originalRun, start, previousRun } = input;
      const policy = await loadPolicy(deps.policyFile);
      const run = currentRun();
      const sealed = await seal(deps, ref, `opened ${run}`, 'start', { start, policy, run, previousRun: previousRun ?? null });
      const registered = await deps.temporal.connection.operatorService.listSearchAttributes({
        namespace: deps.temporal.options.namespace,
      });
      return {
        run,
        isReset: run !== originalRun,
        policy,
        registeredSearchAttributes: Object.values(searchAttributes).filter((name) => registered.customAttributes?.[name] === keyword),
        evidence: headOf(sealed),
      };
    },

    /** Finds the peer, and every other peers row that shares its URL or node_id, and binds the incident to our node. */
    async resolvePeer({ ref, peer }: { ref: IncidentRef; peer: string }): Promise<ResolvedPeer> {
      const signal = cancelSignal();
      const ours = await deps.node.wellKnown(signal);
      const rows = await deps.node.peers(signal);
      const found = await matchPeers(deps.node, rows, peer, signal);
      if ('failure' in found) throw new StepFailure(found.failure, found.why);
      const cluster = clusterOf(rows, found.row);
      // The list came from the node that the incident is bound to from now on.
      await assertBoundNode(deps, { ...ref, nodeId: ref.nodeId ?? ours.node_id });
      const sealed = await seal(deps, ref, 'resolvePeer', 'peer', {
        asked: peer,
        row: found.row,
        cluster,
        ours: { node_id: ours.node_id, node_url: ours.node_url },
      });
      const { node_id: nodeId, node_url: url, allowed_scopes: allowedScopes } = found.row;
      return {
        outcome: 'verified',
        way: 'http',
        detail: `${nodeId} at ${url}, ${cluster.length} peers row${cluster.length === 1 ? '' : 's'} (${found.by})`,
        coverage: [
          { what: 'peers rows', seen: rows.length, complete: true, why: 'the node lists all of them in one answer' },
          {
            what: 'peers rows of the same attacker',
            seen: cluster.length,
            complete: false,
            why: "by node_id and URL; a row's entity URI and pinned key are not shown over HTTP",
          },
        ],
        ourNode: { nodeId: ours.node_id, url: deps.nodeUrl, ...(ours.entity_uri ? { entityUri: ours.entity_uri } : {}) },
        peer: {
          nodeId,
          url,
          entityUri: found.entityUri ?? '',
          peerIds: cluster.map(({ peer_id }) => peer_id),
          nodeIds: [...new Set(cluster.map(({ node_id }) => node_id))],
          allowedScopes,
        },
        evidence: headOf(sealed),
      };
    },

    /** Seals what the node says before anything changes: audit, peers with their original fences, quarantine, keys, pins. */
    async captureLocal({
      ref,
      peer,
      alerts,
    }: {
      ref: IncidentRef;
      peer: PeerRef | null;
      alerts: readonly Alert[];
    }): Promise<CapturedLocal> {
      const signal = cancelSignal();
      const onPage = () => beat();
      const names = namesOf(peer);
      const rows = await deps.node.peers(signal);
      const capabilities = await findCapabilities(deps.node, signal);
      const federation = await collectFederationAudit(deps.node, { peerIds: names, signal, onPage });
      const audit = await collectAudit(deps.node, { signal, onPage });
      const quarantine = await collectQuarantine(deps.node, { signal, onPage });
      const pins = capabilities.originPins ? await deps.node.originPins(signal) : [];
      const keys = capabilities.listKeys ? await deps.node.keysExpiringSoon(365, signal) : [];
      await assertBoundNode(deps, ref);
      const held = holdAll(alerts, federation.items, federation.complete);
      const own = rows.filter(({ peer_id }) => peer?.peerIds.includes(peer_id));
      const leftovers = own.filter((row) => isOurFence(row));
      const parts = {
        peers: rows,
        capabilities,
        federationAudit: federation.items,
        audit: audit.items,
        quarantine: quarantine.items,
        pins,
        keys,
        alerts: held,
      };
      const summary = {
        summary: { federation: { ...federation, items: federation.items.length }, audit: { ...audit, items: audit.items.length } },
        leftoverFences: leftovers,
      };
      const sealed = await sealAll(deps, ref, [
        { item: 'captureLocal', kind: 'local', content: summary },
        ...Object.entries(parts).map(([name, content]) => ({ item: `captureLocal ${name}`, kind: name, content })),
      ]);
      const coverage: Coverage[] = [
        { what: 'federation audit events', seen: federation.items.length, complete: federation.complete, why: federation.why },
        { what: 'local audit events', seen: audit.items.length, complete: audit.complete, why: audit.why },
        { what: 'documented routes of the node', ...leverWords(capabilities) },
        { what: 'quarantined facts', seen: quarantine.items.length, complete: quarantine.complete, why: quarantine.why },
        {
          what: "the peer's API keys",
          seen: keys.filter(({ entity_uri }) => names.includes(entity_uri)).length,
          complete: false,
          why: 'over HTTP only keys that expire within a year are listed; keys without an expiry are not',
        },
        {
          what: 'pinned key and pull status',
          seen: 0,
          complete: false,
          why: 'this node shows neither over HTTP; both stand in its database (peers.federation_pubkey, replication_cursors)',
        },
      ];
      return {
        outcome: 'verified',
        way: 'http',
        detail: `${federation.items.length} federation events of the peer, ${audit.items.length} local events, ${quarantine.items.length} quarantined facts sealed; ${held.filter(({ corroborated }) => corroborated).length} of ${held.length} alerts corroborated`,
        coverage,
        warnings: leftovers.map(
          (row) =>
            `Peers row ${row.peer_id} ${earlierFence} (${row.ingest_tenant ?? row.pull_tenant}): it is not taken for the original state.`,
        ),
        residual: [],
        alerts: held.map((alert) => ({ ...alert, eventIds: alert.eventIds.slice(0, 20) })),
        firstSuspicious: firstSuspicious(federation.items),
        evidence: headOf(sealed),
      };
    },

    /** Holds alerts that came later against the audit. */
    async holdAlerts({ ref, peer, alerts }: { ref: IncidentRef; peer: PeerRef | null; alerts: readonly Alert[] }): Promise<AlertsHeld> {
      const federation = await collectFederationAudit(deps.node, { peerIds: namesOf(peer), signal: cancelSignal(), onPage: () => beat() });
      await assertBoundNode(deps, ref);
      const held = holdAll(alerts, federation.items, federation.complete);
      const sealed = await seal(deps, ref, `alerts held at ${ref.at}`, 'alerts', { held, events: federation.items });
      return { alerts: held.map((alert) => ({ ...alert, eventIds: alert.eventIds.slice(0, 20) })), evidence: headOf(sealed) };
    },
  };
}

/** temporal.api.enums.v1.IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD */
const keyword = 2;

function currentRun(): string {
  return activityInfo().workflowExecution?.runId ?? '';
}

/** All that the audit may call the peer: row ids, node_ids, the entity URI. */
function namesOf(peer: PeerRef | null): string[] {
  return peer ? [...peer.peerIds, ...peer.nodeIds, peer.entityUri].filter((name) => name !== '') : [];
}

function isOurFence(row: Peer): boolean {
  return [row.ingest_tenant, row.pull_tenant].some((tenant) => tenant?.startsWith(fenceMarker));
}

function audited(event: FederationAuditEvent): AuditedEvent {
  return { id: event.id, type: event.event_type, at: event.ts, detail: JSON.stringify(event.detail ?? null) };
}

function holdAll(alerts: readonly Alert[], events: readonly FederationAuditEvent[], complete: boolean): HeldAlert[] {
  const known = events.map(audited);
  return alerts.map((alert) => ({ name: alert.name, at: alert.at ?? null, ...holdAlert(alert, known, complete) }));
}

function firstSuspicious(events: readonly FederationAuditEvent[]): CapturedLocal['firstSuspicious'] {
  const times = events.filter(({ event_type }) => suspiciousEvents.has(event_type)).map(({ ts }) => ts);
  const [first] = times.toSorted((a, b) => Date.parse(a) - Date.parse(b));
  return first === undefined ? null : { at: first, from: 'audit' };
}
