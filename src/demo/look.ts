import { storedFacts, type StoredFact } from '../lab/federation.ts';
import { asRecord, field, list, text } from '../lab/shapes.ts';
import type { StigmemNode } from '../lab/stigmem-node.ts';

// What the demo looks at on the node itself, past cordon: the node's own rows, and what an agent is told.

/** Rows of facts that came from the peer, notes of receipt left out. */
export async function deliveredBy(node: StigmemNode, peerNodeId: string): Promise<StoredFact[]> {
  return (await storedFacts(node)).filter((fact) => fact.receivedFrom === peerNodeId);
}

/** Retractions that cordon wrote: how many there are for each fact they are about. */
export async function retractionsPerFact(node: StigmemNode): Promise<Map<string, number>> {
  const rows = await node.sql(
    "SELECT derived_from FROM facts WHERE confidence = 0.0 AND received_from IS NULL AND derived_from LIKE '%fact_id%'",
  );
  const counts = new Map<string, number>();
  for (const row of rows) {
    for (const source of list(JSON.parse(text(row['derived_from'])))) {
      const id = String(field(source, 'fact_id'));
      counts.set(id, (counts.get(id) ?? 0) + 1);
    }
  }
  return counts;
}

/** Facts that the host worker let expire, and in how many changes of its own each was. */
export async function suppressionsPerFact(node: StigmemNode): Promise<Map<string, number>> {
  const rows = await node.sql(
    "SELECT json_extract(one.value, '$.id') AS id FROM fact_audit_log, json_each(fact_audit_log.detail, '$.record.suppressed') AS one WHERE source = 'cordon host-worker'",
  );
  const counts = new Map<string, number>();
  for (const row of rows) counts.set(text(row['id']), (counts.get(text(row['id'])) ?? 0) + 1);
  return counts;
}

/** What the memory card of an entity tells an agent; empty when there is none. */
export async function cardOf(node: StigmemNode, agentKey: string, entity: string, refresh = false): Promise<string> {
  const path = `/v1/cards/${encodeURIComponent(entity)}?scope=company${refresh ? '&refresh=true' : ''}`;
  const { body } = await node.request('GET', path, undefined, agentKey);
  // 404: there is none.
  const summary = field(body, 'summary');
  return typeof summary === 'string' ? summary : '';
}

/** What an ordinary agent recalls for these words, in one scope: the values. */
export async function recalled(node: StigmemNode, agentKey: string, query: string, scope = 'company'): Promise<string[]> {
  const answer = await node.request('POST', '/v1/recall', { query, scope, min_confidence: 0, token_budget: 200_000 }, agentKey);
  return list(field(answer.body, 'facts')).map((hit) => String(field(field(field(hit, 'fact'), 'value'), 'v')));
}

/** What the default query gives an agent about an entity: the values. */
export async function told(node: StigmemNode, agentKey: string, entity: string): Promise<string[]> {
  const answer = await node.request('GET', `/v1/facts?entity=${encodeURIComponent(entity)}&limit=100`, undefined, agentKey);
  return list(field(answer.body, 'facts')).map((fact) => String(field(field(fact, 'value'), 'v')));
}

/** The peers row of a node_id, as the database has it. */
export async function peersRow(node: StigmemNode, nodeId: string): Promise<Record<string, unknown>> {
  const [row] = await node.sql('SELECT * FROM peers WHERE node_id = ?', [nodeId]);
  return asRecord(row);
}
