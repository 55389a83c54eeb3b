import { EvidenceStore } from '../../src/evidence/store.ts';
import { walkFacts, type HostFact } from '../../src/host/facts.ts';
import { openSqlite } from '../../src/host/sqlite.ts';
import { suppressAtOnce, suppressFacts } from '../../src/host/suppress.ts';

// The host worker's work on very many facts, in a process of its own, whose weight is its own: `list|suppress path
// evidenceDir nodeId`. Prints one line of JSON.

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

console.log(JSON.stringify(await (what === 'list' ? list() : suppress())));
await database.close();
