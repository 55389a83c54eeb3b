import type { HostDone, HostPeerRows, IncidentRef, PeerRef } from '../../src/contract/steps.ts';
import { readAccess, revokeAccess, type Access } from '../../src/host/access.ts';
import { sourcesOf } from '../../src/host/facts.ts';
import { readPeers, revokePeers, type HostPeer } from '../../src/host/peers.ts';
import { distrusted, lowersAnything, lowerTrust, sourcesAtOnce } from '../../src/host/trust.ts';
import { authorityOf } from '../../src/policy/entity.ts';
import type { HostDatabase } from '../../src/host/database.ts';
import { clusterOf } from '../peers.ts';
import { headOf, seal } from '../deps.ts';
import { assertServes, effectOf, holderOf, originOf, type HostDeps } from './deps.ts';
import { runPromotionCommand } from './promotion.ts';

export interface HostContainInput {
  readonly ref: IncidentRef;
  readonly peer: PeerRef;
  /** Look only: a person says it is done. */
  readonly readBack: boolean;
}

/** Contain, on the node's own machine: each seals what it changes before it does so. All of it can be undone. */
export function hostContainActivities(deps: HostDeps) {
  return {
    /** Every peers row of this attacker, by what HTTP does not show too: the pinned key and the entity URI. */
    async findPeerRows({ ref, peer, ours }: { ref: IncidentRef; peer: PeerRef; ours: string }): Promise<HostPeerRows> {
      await assertServes(deps, ref);
      const all = await readPeers(deps.database);
      const said = all.find(({ node_id }) => node_id === peer.nodeId)?.entity_uri ?? '';
      // A manifest may name any entity, ours or an innocent peer's: who believes it revokes their keys.
      const doubt = peer.entityUri !== '' || said === '' ? undefined : await doubtful(deps.database, all, { peer, ours, said });
      const entityUri = peer.entityUri || (doubt === undefined ? said : '');
      const rows = rowsOf(all, { ...peer, entityUri });
      const sealed = await seal(deps, ref, 'peers rows on the host', 'peers', { rows, said, doubt: doubt ?? null });
      const more = rows.filter(({ id }) => !peer.peerIds.includes(id));
      return {
        peer: {
          ...peer,
          entityUri,
          peerIds: [...new Set([...peer.peerIds, ...rows.map(({ id }) => id)])],
          nodeIds: [...new Set([...peer.nodeIds, ...rows.map(({ node_id }) => node_id)])],
        },
        coverage: [
          {
            what: 'peers rows of the same attacker',
            seen: rows.length,
            complete: true,
            why: "by node_id, URL, entity URI and pinned key, in the node's database",
          },
          {
            what: 'pinned key and pull status',
            seen: rows.filter(({ federation_pubkey: key }) => key !== '').length,
            complete: true,
            why: `sealed from the node's database (peers.federation_pubkey, replication_cursors): ${cursorWords(rows)}`,
          },
        ],
        warnings: [
          ...more.map(
            ({ id, node_id, node_url }) =>
              `Peers row ${id} (${node_id} at ${node_url}) has the key or the entity URI of the peer: it is taken for the same attacker and fenced too.`,
          ),
          ...(doubt === undefined
            ? []
            : [
                `The peer's row names the entity ${said.slice(0, 300)}, which is not believed (${doubt}): nothing is revoked for that name.`,
              ]),
        ],
        evidence: headOf(sealed),
      };
    },

    /** "Disable or remove the peer registration": `revoked`, which is the door, both ways, and stalls no innocent peer. */
    async revokePeers({ ref, peer, readBack }: HostContainInput): Promise<HostDone> {
      await assertServes(deps, ref);
      const before = rowsOf(await readPeers(deps.database), peer);
      const sealed = await seal(deps, ref, 'peers before revoked', 'peers', before);
      if (readBack || ref.mode === 'drill')
        return { done: 0, detail: `would revoke ${before.length} peers row(s)`, evidence: headOf(sealed) };
      const { record } = await revokePeers(
        deps.database,
        effectOf(ref, 'fenceInbound', 'revokePeers'),
        before.map(({ id }) => id),
      );
      const after = await seal(deps, ref, 'peers revoked', 'peers', record);
      return { done: record.peers.length, detail: `${record.peers.length} peers row(s) revoked on the host`, evidence: headOf(after) };
    },

    /** "Revoke capability tokens issued to that peer", its API keys, agent keys, subscriptions and memberships: all that is listed. */
    async revokeAccess({ ref, peer, readBack, part }: HostContainInput & { readonly part: Part }): Promise<HostDone> {
      await assertServes(deps, ref);
      const holder = holderOf(peer);
      const before = await readAccess(deps.database, holder);
      const sealed = await seal(deps, ref, 'access before', 'access', before);
      const drill = ref.mode === 'drill';
      if (!readBack && !drill) await revokeAccess(deps.database, effectOf(ref, 'revokeKeys', 'revokeAccess'), holder);
      const after = await readAccess(deps.database, holder);
      const left = stillGood(partOf(after, part));
      const resealed = drill ? sealed : await seal(deps, ref, 'access after', 'access', { after, left });
      const leftOver = left.length > 0 ? `; still good: ${left.slice(0, 10).join(', ')}` : '';
      return {
        done: drill ? 0 : stillGood(partOf(before, part)).length - left.length,
        detail: `${words(before, part)}${drill ? ': would be revoked' : `; ${left.length} of them still good, read back from the database${leftOver}`}`,
        residual:
          left.length > 0 && !drill
            ? [
                {
                  what: "ways of the peer's entities into the node",
                  why: `still good after revoking: ${left[0] ?? ''}`,
                  count: left.length,
                },
              ]
            : [],
        coverage: [
          { what: 'capability tokens', seen: before.tokens.length, complete: true, why: `by query on the host: ${namesOf(peer)}` },
          { what: "the peer's API keys", seen: before.apiKeys.length, complete: true, why: `by query on the host: ${namesOf(peer)}` },
          {
            what: 'agent keys, subscriptions and garden memberships of the peer',
            seen: before.agentKeys.length + before.subscriptions.length + before.members.length,
            complete: true,
            why: `by query on the host: ${namesOf(peer)}; a key it was given under another entity is not known to be its`,
          },
        ],
        evidence: headOf(resealed),
      };
    },

    /** "Lower the peer's trust score": a never_trust rule for each source that only it speaks for. */
    async lowerTrustRules({ ref, peer, readBack, ours }: HostContainInput & { readonly ours: string }): Promise<HostDone> {
      await assertServes(deps, ref);
      const origin = originOf(peer);
      const claimed = [...new Set([...(peer.entityUri === '' ? [] : [peer.entityUri]), ...(await sourcesOf(deps.database, origin))])];
      // A peer may claim any source: one of ours, or of an innocent peer, that has said nothing here yet must not be silenced.
      const known = await knownHere(deps.database, peer, ours);
      const sources = claimed.filter((source) => !known(source));
      const spared = claimed.length - sources.length;
      const { mode } = deps.trust;
      const sealed = await seal(deps, ref, 'sources before', 'trust', { claimed, sources, mode });
      if (!lowersAnything(deps.trust)) {
        const garden = mode === 'strict' ? ' without STIGMEM_QUARANTINE_GARDEN_ID' : '';
        return {
          works: false,
          done: 0,
          detail: `STIGMEM_TRUST_MODE is ${mode}${garden}: on this node a rule lowers nothing`,
          evidence: headOf(sealed),
        };
      }
      if (ref.mode === 'drill')
        return { works: true, done: 0, detail: `would distrust ${sources.length} source(s)`, evidence: headOf(sealed) };
      if (readBack) {
        const rules = new Set(await distrusted(deps.database));
        const without = sources.filter((source) => !rules.has(source)).length;
        return {
          works: true,
          done: sources.length - without,
          detail: `${sources.length - without} of ${sources.length} source(s) have a never_trust rule in the table`,
          residual: without > 0 ? [{ what: 'sources of the peer without a rule', why: 'read back from the table', count: without }] : [],
          evidence: headOf(sealed),
        };
      }
      const of = { nodeIds: peer.nodeIds, holds: holderOf(peer).holds };
      const theirs: string[] = [];
      const shared: string[] = [];
      for (let from = 0; from < sources.length; from += sourcesAtOnce) {
        const effect = effectOf(ref, 'lowerTrust', 'lowerTrust', `${ref.at} from ${from}`);
        const { record } = await lowerTrust(deps.database, deps.trust, effect, { sources: sources.slice(from, from + sourcesAtOnce), of });
        theirs.push(...record.sources);
        shared.push(...record.shared);
      }
      const rules = new Set(await distrusted(deps.database));
      const missing = theirs.filter((source) => !rules.has(source));
      const after = await seal(deps, ref, 'sources distrusted', 'trust', { theirs, shared, missing });
      return {
        works: true,
        done: theirs.length - missing.length,
        detail: `never_trust for ${theirs.length} source(s) that only the peer speaks for; ${shared.length + spared} that others use too, or that are ours or another peer's, were left`,
        residual: [
          {
            what: 'sources the peer claimed that others use too',
            why: 'distrusting them would quarantine facts of others',
            count: shared.length + spared,
          },
          { what: 'sources without the rule that was set for them', why: 'it does not read back from the table', count: missing.length },
        ].filter(({ count }) => count > 0),
        evidence: headOf(after),
      };
    },

    /** "Pause any automated promotion from quarantine": the program that this deployment named for it, if any. */
    async pausePromotionJob({ ref, readBack }: HostContainInput): Promise<HostDone> {
      return runPromotionCommand(deps, ref, readBack ? 'status' : 'pause', 'paused');
    },
  };
}

/** Is a source under our own authority or another active peer's, or an entity that holds a key of our node? */
async function knownHere(database: HostDatabase, peer: PeerRef, ours: string): Promise<(source: string) => boolean> {
  const others = (await readPeers(database)).filter(({ id, status }) => status === 'active' && !peer.peerIds.includes(id));
  const authorities = new Set([ours, ...others.map(({ entity_uri: uri }) => uri ?? '')].map(authorityOf).filter((one) => one !== null));
  const { apiKeys, agentKeys } = await readAccess(database, { holds: (entity) => entity !== peer.entityUri, deliversTo: () => false });
  const keyed = new Set([...apiKeys, ...agentKeys].map(({ entity_uri: entity }) => entity));
  return (source) => keyed.has(source) || (authorityOf(source) !== null && authorities.has(authorityOf(source) ?? ''));
}

/** By node_id, URL, pinned key, or the entity URI where that is believed. */
function rowsOf(all: readonly HostPeer[], peer: PeerRef): HostPeer[] {
  const ids = new Set(kinOf(all, peer).map(({ id }) => id));
  return all.filter(({ id, entity_uri: uri }) => ids.has(id) || (peer.entityUri !== '' && uri === peer.entityUri));
}

/** By what nobody else can have: node_id, URL and pinned key. */
function kinOf(all: readonly HostPeer[], peer: PeerRef): HostPeer[] {
  const known = all.filter(({ id, node_id: nodeId }) => peer.peerIds.includes(id) || peer.nodeIds.includes(nodeId));
  const near = known.flatMap((row) => clusterOf(all, row));
  const keys = new Set(near.map(({ federation_pubkey: key }) => key).filter((key) => key !== ''));
  const ids = new Set(near.map(({ id }) => id));
  return all.filter(({ id, federation_pubkey: key }) => ids.has(id) || keys.has(key));
}

/** Why the entity that the peer's own manifest names may be somebody else's; undefined: nothing speaks against it. */
async function doubtful(
  database: HostDatabase,
  all: readonly HostPeer[],
  { peer, ours, said }: { peer: PeerRef; ours: string; said: string },
): Promise<string | undefined> {
  if (authorityOf(said) === null || authorityOf(said) === authorityOf(ours)) return 'it is no URI of its own';
  const kin = new Set(kinOf(all, peer).map(({ id }) => id));
  if (all.some(({ id, entity_uri: uri, status }) => uri === said && !kin.has(id) && status === 'active'))
    return 'another active peer with another key has it too';
  const { apiKeys } = await readAccess(database, { holds: (entity) => entity === said, deliversTo: () => false });
  return apiKeys.some(({ permissions }) => /admin/.test(permissions)) ? 'a key with admin rights is issued to it' : undefined;
}

function cursorWords(rows: readonly HostPeer[]): string {
  const cursors = rows.flatMap(({ cursors: all }) => all);
  return cursors.length === 0 ? 'no cursor' : cursors.map(({ direction, updatedAt }) => `${direction} last moved ${updatedAt}`).join(', ');
}

function namesOf(peer: PeerRef): string {
  return [peer.entityUri, ...peer.nodeIds]
    .filter((name) => name !== '')
    .join(', ')
    .slice(0, 300);
}

/** Two steps of the runbook share what is one change on the host. */
type Part = 'tokens' | 'keys';

function partOf(access: Access, part: Part): Access {
  if (part === 'keys') return { ...access, tokens: [] };
  return { tokens: access.tokens, apiKeys: [], agentKeys: [], subscriptions: [], members: [] };
}

function words({ tokens, apiKeys, agentKeys, subscriptions, members }: Access, part: Part): string {
  if (part === 'tokens') return `${tokens.length} capability tokens found`;
  return `${apiKeys.length} API keys, ${agentKeys.length} agent keys, ${subscriptions.length} subscriptions and ${members.length} memberships found`;
}

/** What the holder could still use now, as names that are no secret. */
function stillGood({ tokens, apiKeys, agentKeys, subscriptions, members }: Access): string[] {
  const now = Date.now();
  const isOpen = (at: string | null): boolean => !at || !(Date.parse(at) <= now);
  return [
    ...tokens.flatMap(({ id, revoked_at: at }) => (at === null ? [`token ${id}`] : [])),
    ...apiKeys.flatMap(({ id, expires_at: at }) => (isOpen(at) ? [`key ${id}`] : [])),
    ...agentKeys.flatMap(({ id, status }) => (status === 'active' ? [`agent key ${id}`] : [])),
    ...subscriptions.flatMap(({ id, circuit_open: open }) => (open === 0 ? [`subscription ${id}`] : [])),
    ...members.map(({ garden_id: garden, entity_uri: entity }) => `membership of ${entity} in ${garden}`),
  ];
}
