import type { Client } from '@temporalio/client';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { runAudit } from '../../src/audit/run-audit.ts';
import { incidentFolderName } from '../../src/evidence/names.ts';
import type { Lane } from './lane.ts';
import type { Operator } from './operator.ts';
import { readTables } from './scene.ts';

/** What one run left behind, with times and chosen ids made alike: two runs of a scenario must tell the same. */
export interface Told {
  /** Per incident: outcome, residual, and each section of the report with its lines sorted (steps end in any order). */
  readonly reports: readonly string[];
  /** Rows of our node. */
  readonly rows: readonly string[];
  /** Each notice by its idempotency key, once. */
  readonly notices: readonly string[];
  /** How often each opening of each gate was opened. */
  readonly openings: readonly string[];
  /** What no run may ever show. */
  readonly problems: readonly string[];
  /** Deliveries that repeated an earlier one under its key. */
  readonly repeats: number;
}

const queries = {
  ourFacts: 'SELECT entity, relation, scope, confidence, value_v, source, quarantine_status FROM facts WHERE received_from IS NULL',
  received:
    'SELECT id, entity, relation, scope, confidence, value_v, quarantine_status, quarantine_reason FROM facts WHERE received_from IS NOT NULL',
  peers: 'SELECT id, node_id, status, ingest_tenant, pull_tenant FROM peers',
  tenantMap: 'SELECT peer_id, origin_tenant, local_tenant FROM peer_tenant_map',
  pins: 'SELECT entity_uri, node_id, key_fingerprint FROM origin_pins',
  tokens:
    "SELECT id, issuer, subject, revoked_at IS NOT NULL AS revoked, json_extract(revoke_log, '$.reason') AS reason FROM capability_tokens",
  federationAudit: 'SELECT peer_id, event_type, detail FROM federation_audit',
  audit: "SELECT event_type, entity_uri, source FROM fact_audit_log WHERE event_type <> 'fact_read'",
  conflicts: 'SELECT status FROM conflicts',
  overrides: 'SELECT fact_id, confidence, reason FROM fact_validity_overrides',
  retractions: 'SELECT fact_id, retracted_by FROM fact_retractions',
} as const;

const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;
const known = new Map<string, Promise<Set<string>>>();

/** Ids that were there before the run: they stay as they are. */
function knownIds(lane: Lane): Promise<Set<string>> {
  let ids = known.get(lane.templateDb);
  ids ??= readTables(lane.templateDb, queries).then((tables) => new Set(JSON.stringify(tables).match(uuid) ?? []));
  known.set(lane.templateDb, ids);
  return ids;
}

const Audited = z.object({ decisions: z.array(z.object({ approved: z.boolean().optional() })), problems: z.array(z.string()) });

/** Looks at everything the run left: reports, evidence, audit, the node's rows, the receiver. */
export async function tell(lane: Lane, people: readonly Operator[]): Promise<Told> {
  const ids = await knownIds(lane);
  const problems: string[] = [];
  const reports: string[] = [];
  const openings: string[] = [];
  const alike = (text: string): string => {
    let plain = text;
    for (const one of people) {
      plain = plain.replaceAll(one.id, '<incident>').replaceAll(one.firstRun, '<run>').replaceAll(one.firstRun.slice(0, 8), '<run8>');
    }
    return plain
      .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|\+00:00)/g, '<time>')
      .replaceAll(/sha256:(?!(0|a){64})[0-9a-f]{12,64}/g, '<digest>')
      .replaceAll(/cordon-[0-9a-f]{12}/g, '<fence>')
      .replaceAll(/http:\/\/127\.0\.0\.1:\d+/g, '<url>')
      .replaceAll(/\d+ entries/g, '<n> entries')
      .replaceAll(uuid, (id) => (ids.has(id) ? id : '<id>'));
  };
  for (const one of people) {
    const { outcome, residual } = await one.result();
    const folder = join(lane.evidenceDir, incidentFolderName(one.id));
    const report = join(folder, 'files', 'report.md');
    if (!existsSync(report)) problems.push(`${one.id}: there is no report`);
    const text = existsSync(report) ? alike(readFileSync(report, 'utf8')) : '';
    reports.push([outcome, alike(JSON.stringify(residual)), ...sections(text)].join('\n'));
    const { refused } = await one.status();
    if (refused.count > 0) problems.push(`${one.id}: ${refused.count} messages refused: ${JSON.stringify(refused.last)}`);
    const audit = await runAudit({
      source: { kind: 'workflow', id: one.id, client: lane.client },
      evidenceDir: lane.evidenceDir,
      outDir: join(lane.dir, 'audit'),
    });
    const { decisions, problems: found } = Audited.parse(JSON.parse(readFileSync(audit.jsonPath, 'utf8')));
    problems.push(...found.map((problem) => `${one.id}: audit: ${problem}`));
    if (decisions.length !== one.decisions) problems.push(`${one.id}: ${one.decisions} decisions were sent, ${decisions.length} counted`);
    const opened = await openingsOf(lane.client, one.id);
    openings.push(...opened);
    if (new Set(opened).size !== opened.length) problems.push(`${one.id}: a gate was opened twice: ${opened.join(', ')}`);
  }
  const tables = await readTables(lane.node.dbPath, queries);
  const rows = Object.entries(tables).flatMap(([name, found]) => found.map((row) => alike(`${name} ${JSON.stringify(row)}`)));
  const byKey = new Map<string, Set<string>>();
  for (const { key, body } of lane.receiver.deliveries) byKey.set(key, (byKey.get(key) ?? new Set()).add(body));
  for (const [key, bodies] of byKey) if (bodies.size > 1) problems.push(`${bodies.size} different notices under one key ${key}`);
  // How often people were reminded hangs on how long it took; that no reminder repeats under another key does not.
  const notices = [...byKey].flatMap(([, [body = '']]) => (body.includes('"reminder"') ? [] : [noticeOf(alike(body))]));
  return {
    reports,
    rows: rows.toSorted(),
    notices: notices.toSorted(),
    openings: openings.toSorted(),
    problems,
    repeats: lane.receiver.deliveries.length - byKey.size,
  };
}

const Notice = z.object({ notice: z.string(), subject: z.string(), text: z.string() });

function noticeOf(body: string): string {
  const { notice, subject, text } = Notice.parse(JSON.parse(body));
  return [notice, subject, ...sections(text)].join('\n');
}

/** Section by section, the lines of each in one order. */
function sections(markdown: string): string[] {
  return markdown.split(/^(?=## )/m).map((section) =>
    section
      .split('\n')
      .filter((line) => line.trim() !== '')
      .toSorted()
      .join('\n'),
  );
}

const GateMemo = z.object({ gates: z.array(z.string()).default([]) });

/** Each time an opening came up in the memo that was not there before. */
async function openingsOf(client: Client, id: string): Promise<string[]> {
  const { events = [] } = await client.workflow.getHandle(id).fetchHistory();
  let open: readonly string[] = [];
  const opened: string[] = [];
  for (const { workflowPropertiesModifiedEventAttributes: modified } of events ?? []) {
    const payload = modified?.upsertedMemo?.fields?.['cordon'];
    if (!payload) continue;
    const { gates } = GateMemo.parse(JSON.parse(Buffer.from(payload.data ?? []).toString('utf8')));
    opened.push(...gates.filter((gate) => !open.includes(gate)));
    open = gates;
  }
  return opened;
}

/** What this run tells differently than the undisturbed one. Empty: nothing. */
export function differences(told: Told, expected: Told): string[] {
  return (['reports', 'rows', 'notices', 'openings'] as const).flatMap((what) => {
    const [more, less] = [without(linesOf(told[what]), linesOf(expected[what])), without(linesOf(expected[what]), linesOf(told[what]))];
    return [...more.map((line) => `${what}: + ${line.slice(0, 500)}`), ...less.map((line) => `${what}: - ${line.slice(0, 500)}`)];
  });
}

/** Changes of ours that may be under way at once. */
const inFlight = 3;
const note = /^rows: - federationAudit .*"event_type":"(peer_policy_updated|origin_pin_set|origin_pin_deleted)"/;

/**
 * The node commits a change and only then writes its own audit event, so one that dies in between keeps the change and
 * has no note of it (routes/federation/peers.py, pins.py). That is the node's loss: the change itself must be there.
 */
export function lessLostNotes(found: readonly string[], nodeDeaths: number): string[] {
  let lost = nodeDeaths * inFlight;
  return found.filter((line) => !note.test(line) || (lost -= 1) < 0);
}

function linesOf(texts: readonly string[]): string[] {
  return texts.flatMap((text) => text.split('\n'));
}

/** The lines of `a` that `b` has not, each as often as it has more of it. */
function without(a: readonly string[], b: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const line of b) left.set(line, (left.get(line) ?? 0) + 1);
  return a.filter((line) => {
    const n = left.get(line) ?? 0;
    left.set(line, n - 1);
    return n <= 0;
  });
}
