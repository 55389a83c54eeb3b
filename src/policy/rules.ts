import { RECEIVED_FROM } from '../stigmem/fact-index.ts';
import { authorityOf, isUnnormalised } from './entity.ts';
import { contractText, short, type Rule } from './rule.ts';
import { timeRules } from './rules-time.ts';

const controlText = 'Check for: interpret_as=instruction or agent-control relations.';

/** Rules about what a fact says, where it says it and in whose name. */
const contentRules: readonly Rule[] = [
  {
    name: 'neverGrantedScope',
    serves: contractText,
    weight: 'alone',
    marksTurn: true,
    why: 'The peer was never granted the scope, so the fact is outside the federation contract whatever it says.',
    judge: ({ fact, writtenBy }, { peer }) => {
      // What its keys may write is another grant.
      if (fact === null || writtenBy !== undefined || peer.allowedScopes.size === 0 || peer.allowedScopes.has(fact.scope)) return undefined;
      return { reason: `scope ${fact.scope} was never granted to the peer (granted: ${[...peer.allowedScopes].join(', ')})` };
    },
  },
  {
    name: 'instruction',
    serves: controlText,
    weight: 'alone',
    marksTurn: true,
    why: 'Nobody lets a federation peer instruct our agents; the node itself puts such facts into quarantine.',
    judge: ({ fact, quarantine }) => {
      const told = fact?.value.interpret_as === 'instruction';
      if (!told && quarantine?.quarantine_reason !== 'instruction_federation_inbound') return undefined;
      return { reason: 'it is an instruction to agents (interpret_as=instruction)' };
    },
  },
  {
    name: 'forgedMetaFact',
    serves: contractText,
    weight: 'alone',
    marksTurn: true,
    why: 'Notes of receipt are written by each node for itself and never federate; a delivered one is a forgery.',
    judge: ({ relation, receivedFrom, writtenBy, entity }) =>
      relation === RECEIVED_FROM && (receivedFrom !== null || writtenBy !== undefined)
        ? { reason: `it passes itself off as our node's own note on who sent ${short(entity)}` }
        : undefined,
  },
  {
    name: 'sensitiveScope',
    serves: 'Check for: facts in sensitive scopes.',
    weight: 'alone',
    marksTurn: false,
    why: 'The policy names scopes in which nothing of a compromised peer may stay. It does not tell when the peer turned.',
    judge: ({ fact }, { policy }) =>
      fact !== null && policy.sensitiveScopes.includes(fact.scope) ? { reason: `scope ${fact.scope} is sensitive` } : undefined,
  },
  {
    name: 'agentControlRelation',
    serves: controlText,
    weight: 'alone',
    marksTurn: false,
    why: 'Relations that steer agents are the damage itself. A peer may have had such facts honestly, so they do not tell when it turned.',
    judge: ({ relation }, { policy }) => {
      const found = policy.agentControlRelations.find((pattern) => matches(pattern, relation));
      return found === undefined ? undefined : { reason: `relation ${short(relation)} steers agents (${found})` };
    },
  },
  {
    name: 'promotedFromQuarantine',
    serves: 'Check for: promoted from quarantine.',
    weight: 'alone',
    marksTurn: false,
    why: 'Our node held it back on arrival and somebody let it through before the peer was known to be bad.',
    judge: ({ id, quarantine }, { promoted }) => {
      const events = promoted.get(id);
      if (events === undefined && quarantine?.quarantine_status !== 'promoted') return undefined;
      const by = quarantine?.quarantine_acted_by ?? 'somebody';
      const at = quarantine?.quarantine_acted_at ?? 'a time that is not known';
      return { reason: `it was promoted from quarantine by ${short(by)} at ${at}`, ...(events ? { evidence: events } : {}) };
    },
  },
  {
    name: 'unnormalisedEntity',
    serves: contractText,
    weight: 'alone',
    marksTurn: false,
    why: 'A node normalises what its own writers post, so an honest one has no such entity; it looks like one of ours and is none.',
    judge: ({ entity }) => (isUnnormalised(entity) ? { reason: `entity ${short(entity)} is not in the form a node stores` } : undefined),
  },
  {
    name: 'writtenWithItsKey',
    serves: contractText,
    weight: 'content',
    marksTurn: false,
    why: "A key of the peer's entity wrote it here, past the federation: damage from a peer that has turned, but what it wrote before may be honest.",
    judge: ({ writtenBy }) =>
      writtenBy === undefined ? undefined : { reason: `it was written here with an API key of ${short(writtenBy)}, an entity of the peer` },
  },
  {
    name: 'foreignSource',
    serves: contractText,
    weight: 'content',
    marksTurn: false,
    why: 'Agents write on more than one node and facts are relayed, so another name is no proof by itself.',
    judge: ({ source }, { peer, ourEntityUri, localSources }) => {
      const authority = authorityOf(source);
      if (authority !== null && authority === authorityOf(ourEntityUri)) return { reason: `it speaks as one of ours, ${short(source)}` };
      if (peer.entityUris.has(source)) return undefined;
      if (localSources.has(source)) return { reason: `it speaks as ${short(source)}, a source that writers on our own node use` };
      const own = [...peer.entityUris].map(authorityOf).filter((name) => name !== null);
      if (own.length === 0 || authority === null || own.includes(authority) || peer.nodeIds.has(source)) return undefined;
      return { reason: `it speaks as ${short(source)}, which is not the peer's own` };
    },
  },
  {
    name: 'aboutOurs',
    serves: contractText,
    weight: 'content',
    marksTurn: false,
    why: 'Peers may know something about our things; what a peer that has turned says about them is what our agents act on.',
    judge: ({ entity }, { ourEntityUri }) => {
      const authority = authorityOf(entity);
      return authority !== null && authority === authorityOf(ourEntityUri)
        ? { reason: `it is about ${short(entity)}, which is ours` }
        : undefined;
    },
  },
  {
    name: 'shadowsOurs',
    serves: contractText,
    weight: 'content',
    marksTurn: false,
    why: 'Two nodes that differ about one thing is what federation is for; it is damage only from a peer that has turned.',
    judge: (seen, { othersOn }) => {
      const others = othersOn(seen);
      if (others.length === 0) return undefined;
      return {
        reason: `it stands on the entity, relation and scope of ${others.length} fact${others.length === 1 ? '' : 's'} that are not the peer's`,
      };
    },
  },
];

/** Every way a fact can be found suspicious, in the order in which they are named. */
export const rules: readonly Rule[] = [...contentRules, ...timeRules];

/** Letter by letter, or by what stands before a final `*`. */
function matches(pattern: string, relation: string): boolean {
  return pattern.endsWith('*') ? relation.startsWith(pattern.slice(0, -1)) : relation === pattern;
}
