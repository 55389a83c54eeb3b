import { MockActivityEnvironment } from '@temporalio/testing';
import { readListing } from '../../activities/facts/host-listing.ts';
import { sealPlan } from '../../activities/facts/plans.ts';
import { createHostActivities } from '../../activities/host/index.ts';
import { defaultPolicy } from '../../src/contract/policy.ts';
import type { HostListing, IncidentRef, PeerRef } from '../../src/contract/steps.ts';
import { EvidenceStore } from '../../src/evidence/store.ts';
import { walkFacts, type HostFact } from '../../src/host/facts.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { judgeInTurns } from '../../src/policy/judge.ts';
import { suppressAtOnce, suppressFacts } from '../../src/host/suppress.ts';

// The host worker's work on very many facts, in a process of its own, whose weight is its own: `list|judge|suppress
// path evidenceDir nodeId`. Prints one line of JSON.

const [what = '', path = '', evidenceDir = '', nodeId = ''] = process.argv.slice(2);
const at = '2026-11-23T01:00:00.000Z';
const origin = { nodeIds: [nodeId], entityUris: [] };
const database = openSqlite(path);

async function list() {
  const store = await EvidenceStore.open(evidenceDir, 'bench', at);
  await database.read((session) => session.run('SELECT 1'));
  const idle = process.memoryUsage().rss;
  let peak = idle;
  const weighing = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 5);
  let facts = 0;
  async function* counted(): AsyncGenerator<HostFact> {
    for await (const fact of walkFacts(database, origin)) {
      facts += 1;
      yield fact;
    }
  }
  const began = performance.now();
  await store.seal({ key: 'bench:investigate:1:facts', kind: 'facts', name: 'facts', phase: 'investigate', round: 1, at }, counted());
  const seconds = (performance.now() - began) / 1_000;
  clearInterval(weighing);
  peak = Math.max(peak, process.memoryUsage().rss);
  return { facts, seconds, overIdleMb: (peak - idle) / 2 ** 20 };
}

async function suppress() {
  const ids: string[] = [];
  for await (const { id } of walkFacts(database, origin)) ids.push(id);
  const began = performance.now();
  for (let from = 0; from < ids.length; from += suppressAtOnce) {
    const effect = { key: `bench:retract:1:${from}`, incident: 'bench', step: 'undoFacts', operation: 'suppressFacts' as const };
    await suppressFacts(database, effect, ids.slice(from, from + suppressAtOnce));
  }
  return { facts: ids.length, seconds: (performance.now() - began) / 1_000, overIdleMb: 0 };
}

/** Listed as the host worker's activity does, read again and judged as the worker's do: the judgement and its sealed plan are timed. */
async function judge() {
  const peer = { nodeId, url: 'http://peer.test', entityUri: '', peerIds: [], nodeIds: [nodeId], allowedScopes: ['public'] };
  const ref = { incident: 'bench-judge', firstRun: 'bench', mode: 'live', phase: 'investigate', round: 1, at } as const;
  const trust = { mode: 'relaxed', quarantineGarden: undefined };
  const host = createHostActivities({
    database,
    evidenceDir,
    trust,
    snapshot: undefined,
    promotionCommand: undefined,
    fateOf: async () => 'open',
    federation: { privateKey: undefined, graceHours: 168, peerAllow: ['loopback'] },
  });
  const { evidenceId } = await new MockActivityEnvironment().run<[{ ref: IncidentRef; peer: PeerRef }], HostListing, typeof host.listFacts>(
    host.listFacts,
    {
      ref,
      peer,
    },
  );
  const listed = await readListing(await EvidenceStore.open(evidenceDir, ref.incident, at), evidenceId);
  const collection = { ...listed, others: [], promoted: new Map<string, readonly string[]>(), fencedAt: null, unread: [] };
  const names = { nodeIds: new Set([nodeId]), entityUris: new Set<string>(), allowedScopes: new Set(peer.allowedScopes) };
  const began = performance.now();
  const { judged } = await judgeInTurns({
    collection,
    evidenceId,
    policy: defaultPolicy,
    peer: names,
    ourEntityUri: 'stigmem://ours.test',
    firstBad: null,
    ways: { host: true },
  });
  const { plan } = await sealPlan({ evidenceDir }, ref, 'plan', judged);
  const seconds = (performance.now() - began) / 1_000;
  if (plan.counts.suppress !== listed.facts.length)
    throw new Error(`${JSON.stringify(plan.counts)}: expected all of them to be suppressed`);
  return { facts: plan.total, seconds, overIdleMb: 0 };
}

const jobs = { list, suppress, judge };
console.log(JSON.stringify(await (what === 'list' || what === 'judge' ? jobs[what]() : jobs.suppress())));
await database.close();
