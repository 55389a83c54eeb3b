import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { z } from 'zod';
import { suppressAtOnce } from '../../src/host/suppress.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { figure, quantile, type Figure } from './figures.ts';

const peer = 'stigmem:node:bench-peer';
const Done = z.object({ facts: z.int(), seconds: z.number(), overIdleMb: z.number() });
const run = promisify(execFile);

/** What the host worker does with very many facts, on the file of a node that serves. */
export async function hostFigures({ facts }: { facts: number }): Promise<Figure[]> {
  const dir = join(repoRoot, '.test', 'bench', 'host');
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  const node = await startStigmemNode({ name: 'ours', dir: join(dir, 'ours') });
  try {
    await seedFacts(node, peer, facts);
    const listed = await child(node, dir, 'list');
    if (listed.facts !== facts) throw new Error(`${listed.facts} of ${facts} facts were listed`);
    const bareSeconds = bare(node, dir);
    const judged = await child(node, dir, 'judge');
    const suppressed = await suppress(node, dir);
    const [row] = await node.sql("SELECT COUNT(*) AS n FROM fact_validity_overrides WHERE reason = 'bench'");
    if (row?.['n'] !== facts) throw new Error(`${String(row?.['n'])} of ${facts} facts were suppressed`);
    const group = 'host';
    return [
      figure({
        group,
        what: `facts a second into evidence, ${facts}`,
        unit: '/s',
        value: facts / listed.seconds,
        baseline: facts / bareSeconds,
        bound: { of: 'value', least: 20_000 },
        samples: facts,
        note: 'bare: the node’s Python reads the same rows and writes them as JSON lines, without a join, a hash or a sync',
      }),
      figure({
        group,
        what: 'memory above idle while listing',
        unit: 'MB',
        value: listed.overIdleMb,
        bound: { of: 'value', most: 300 },
        samples: 1,
      }),
      figure({
        group,
        what: `judging and sealed plan, ${facts} facts`,
        unit: 's',
        value: judged.seconds,
        bound: { of: 'value', most: 5 },
        samples: 1,
      }),
      figure({
        group,
        what: `facts suppressed a second, ${suppressAtOnce} at a time`,
        unit: '/s',
        value: facts / suppressed.seconds,
        samples: facts,
      }),
      figure({
        group,
        what: 'GET /v1/facts beside it, p95 (bare: before it)',
        unit: 'ms',
        value: quantile(suppressed.during, 0.95),
        baseline: quantile(suppressed.before, 0.95),
        samples: suppressed.during.length,
      }),
    ];
  } finally {
    await node.stop();
  }
}

/** Facts of a peer straight into the database: over federation it would take hours. */
export async function seedFacts(node: StigmemNode, from: string, facts: number, entities = 5_000, relations = 1): Promise<void> {
  await node.exec(`
    CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${facts}) SELECT i, lower(hex(randomblob(16))) AS id FROM n;
    INSERT INTO facts (id, entity, relation, value_type, value_v, source, timestamp, confidence, scope, received_from, origin_node_id)
      SELECT id, 'stigmem://ours.test/svc/' || (i % ${entities}), 'memory:note-' || (i % ${relations}), 'string', 'what the peer said, number ' || i, 'stigmem://peer.test/agent/' || (i % 7),
        '2026-11-23T01:00:00+00:00', 0.9, 'company', '${from}', '${from}' FROM n;
    INSERT INTO facts (id, entity, relation, value_type, value_v, source, timestamp, confidence, scope)
      SELECT lower(hex(randomblob(16))), id, 'stigmem:received_from', 'ref', '${from}', 'system:stigmem', '2026-11-23T01:00:05+00:00', 1.0, 'local' FROM n;`);
}

/** The same rows read and written by the node's own Python, once over. Gives seconds. */
function bare(node: StigmemNode, dir: string): number {
  const script = `
import json, sqlite3, sys, time
began = time.perf_counter()
conn = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
conn.row_factory = sqlite3.Row
with open(sys.argv[2], "w") as out:
    for row in conn.execute("SELECT * FROM facts WHERE received_from = ?", (sys.argv[3],)):
        out.write(json.dumps(dict(row)) + "\\n")
print(time.perf_counter() - began)
`;
  return Number(execFileSync('python3', ['-c', script, node.dbPath, join(dir, 'bare.ndjson'), peer], { encoding: 'utf8' }));
}

/** The host worker's part, in a process of its own. */
async function child(node: StigmemNode, dir: string, what: 'list' | 'judge' | 'suppress'): Promise<z.infer<typeof Done>> {
  const command = fileURLToPath(new URL('host-child.js', import.meta.url));
  const { stdout } = await run(process.execPath, [command, what, node.dbPath, join(dir, 'evidence'), peer]);
  return Done.parse(JSON.parse(stdout));
}

/** Suppresses all of them while somebody reads; gives how long the reads took before and meanwhile, in ms. */
async function suppress(node: StigmemNode, dir: string) {
  const read = async (into: number[]): Promise<void> => {
    const began = performance.now();
    const { status } = await node.request('GET', '/v1/facts?entity=stigmem://ours.test/svc/1&limit=50');
    if (status !== 200) throw new Error(`GET /v1/facts answered ${status}`);
    into.push(performance.now() - began);
  };
  const [before, during]: [number[], number[]] = [[], []];
  for (let round = 0; round < 100; round += 1) await read(before);
  let isOver = false;
  const working = child(node, dir, 'suppress').finally(() => (isOver = true));
  while (!isOver) await read(during);
  return { before, during, ...(await working) };
}
