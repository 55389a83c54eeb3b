import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { assertFact, federate, waitForFact } from '../lab/federation.ts';
import { startStigmemNode, type StigmemNode } from '../lab/stigmem-node.ts';
import { startTemporal, type TemporalServer } from '../lab/temporal-server.ts';
import { repoRoot } from '../lab/tools.ts';

/** The four parties, federated on loopback, and Temporal. */
export interface Parties {
  readonly dir: string;
  readonly evidenceDir: string;
  readonly contactsFile: string;
  readonly ours: StigmemNode;
  readonly peer: StigmemNode;
  readonly innocent: StigmemNode;
  readonly downstream: StigmemNode;
  readonly temporal: TemporalServer;
  /** Key of an ordinary agent of ours: reads and writes, no more. */
  readonly agentKey: string;
  /** A key that was once issued to the peer's entity. */
  readonly peerApiKey: string;
  stop(): Promise<void>;
}

/** Entities of ours that the story is about. */
export const pay = 'stigmem://home.test/svc/pay';
export const search = 'stigmem://home.test/svc/search';
export const mallorySvc = 'stigmem://mallory.test/svc/cdn';

/** Starts all of it in `.demo/`, fresh. */
export async function startParties(): Promise<Parties> {
  const dir = join(repoRoot, '.demo');
  await rm(dir, { recursive: true, force: true });
  const at = (name: string): string => join(dir, name);
  const [temporal, ours, peer, innocent, downstream] = await Promise.all([
    startTemporal({ dir: at('temporal') }),
    startStigmemNode({ name: 'home', dir: at('home'), quarantineGarden: true }),
    startStigmemNode({ name: 'mallory', dir: at('mallory') }),
    startStigmemNode({ name: 'innocent', dir: at('innocent') }),
    startStigmemNode({ name: 'downstream', dir: at('downstream') }),
  ]);
  // The peer that turns comes first in our node's list, so that the price of the HTTP fence shows.
  await federate(ours, peer);
  await federate(ours, innocent);
  await federate(ours, downstream);
  const contactsFile = at('contacts.json');
  const contacts = {
    ours: { name: 'On-call, home', contact: 'oncall@home.test' },
    peers: { [peer.nodeId]: { name: 'Operator of mallory', contact: 'ops@mallory.test' } },
    downstream: { [downstream.nodeId]: { name: 'Operator of downstream', contact: 'ops@downstream.test' } },
    agents: { 'stigmem://home.test/': { name: 'Agents team', contact: 'agents@home.test' } },
  };
  await writeFile(contactsFile, JSON.stringify(contacts, null, 2));
  return {
    dir,
    evidenceDir: at('evidence'),
    contactsFile,
    ours,
    peer,
    innocent,
    downstream,
    temporal,
    agentKey: await ours.issueKey({ entityUri: 'stigmem://home.test/agent/helper', permissions: ['read', 'write'] }),
    peerApiKey: await ours.issueKey({ entityUri: peer.entityUri, permissions: ['read', 'write'] }),
    stop: async () => {
      await Promise.all([ours, peer, innocent, downstream, temporal].map((part) => part.stop()));
    },
  };
}

/** Before anything goes wrong: everybody writes, everybody gets it. Returns the peer's benign facts as ours has them. */
export async function liveHonestly({ ours, peer, innocent, downstream }: Parties): Promise<string[]> {
  await assertFact(ours, { entity: pay, relation: 'memory:runbook', value: 'restart pay with the blue button', scope: 'company' });
  await assertFact(ours, { entity: search, relation: 'memory:owner', value: 'team search owns it', scope: 'company' });
  await assertFact(ours, { entity: mallorySvc, relation: 'memory:note', value: 'we depend on this CDN', scope: 'company' });
  await assertFact(innocent, {
    entity: 'stigmem://innocent.test/svc/dns',
    relation: 'memory:status',
    value: 'dns is healthy',
    scope: 'company',
  });
  for (const [relation, value] of [
    ['memory:status', 'the CDN is healthy'],
    ['memory:region', 'it runs in two regions'],
    ['memory:contact', 'mallory on-call answers in ten minutes'],
  ] as const) {
    await assertFact(peer, { entity: mallorySvc, relation, value, scope: 'public' });
  }
  await waitForFact(ours, (fact) => fact.value === 'dns is healthy');
  await waitForFact(downstream, (fact) => fact.value === 'restart pay with the blue button');
  const benign: string[] = [];
  for (const value of ['the CDN is healthy', 'it runs in two regions', 'mallory on-call answers in ten minutes']) {
    const { id } = await waitForFact(ours, (fact) => fact.value === value && fact.receivedFrom === peer.nodeId);
    benign.push(id);
  }
  return benign;
}
