import { z } from 'zod';
import { sha256Id } from '../contract/canonical.ts';
import { HostRefusedError, placeholders, type HostDatabase, type Session } from './database.ts';
import { auditSource, once, recorded, type Effect, type Made } from './effect.ts';

/** How the node judges trust, by the environment it reads itself. */
export interface TrustSettings {
  /** STIGMEM_TRUST_MODE. */
  readonly mode: string;
  /** STIGMEM_QUARANTINE_GARDEN_ID. */
  readonly quarantineGarden: string | undefined;
}

/** Whose trust is lowered: the peer's node_ids, and the entities it holds keys for. */
export interface Distrusted {
  readonly nodeIds: readonly string[];
  readonly holds: (entity: string) => boolean;
}

/** Sources in one change. */
export const sourcesAtOnce = 500;

/** `shared`: sources that others speak for too, on this node or from another peer, which are left alone. */
export const TrustLowered = z.object({ sources: z.array(z.string()), shared: z.array(z.string()) });
export type TrustLowered = z.infer<typeof TrustLowered>;
export const TrustRaised = z.object({ sources: z.array(z.string()) });
export type TrustRaised = z.infer<typeof TrustRaised>;

/** Only so does a low score keep a fact out; in any other mode a rule changes nothing that anybody could see. */
export function lowersAnything({ mode, quarantineGarden }: TrustSettings): boolean {
  return mode === 'strict' && quarantineGarden !== undefined;
}

/**
 * Never trust these sources any more, letter by letter as their facts claim them. In the table, whatever file there is: a
 * `never_trust` there comes before every other rule (source_trust.py, is_blocklisted), it is part of the change, and
 * a source can hold what a YAML file does not survive. At most {@link sourcesAtOnce}.
 * @throws HostRefusedError - where a low score would not quarantine a fact but stop the pull from every peer
 */
export async function lowerTrust(
  database: HostDatabase,
  settings: TrustSettings,
  effect: Effect,
  wanted: { readonly sources: readonly string[]; readonly of: Distrusted },
): Promise<Made<TrustLowered>> {
  const sources = [...new Set(wanted.sources)];
  if (sources.length > sourcesAtOnce)
    throw new RangeError(`expected at most ${sourcesAtOnce} sources in one change, came ${sources.length}`);
  if (settings.mode === 'strict' && settings.quarantineGarden === undefined)
    throw new HostRefusedError(
      'STIGMEM_TRUST_MODE is strict and STIGMEM_QUARANTINE_GARDEN_ID is not set: a fact of low trust would end the pull from every peer',
    );
  // Before the change: it looks at every fact that claims one of them.
  const shared = await database.read((session) => sharedSources(session, sources, wanted.of));
  return once(database, effect, TrustLowered, async (session) => {
    await session.lock('quarantine_rules');
    const theirs = sources.filter((source) => !shared.has(source));
    const now = new Date().toISOString();
    for (const source of theirs)
      await session.run(
        "INSERT INTO quarantine_rules (id, rule_type, org_uri, reason, created_by, created_at) VALUES (?, 'never_trust', ?, ?, ?, ?)",
        ruleId(effect.key, source),
        source,
        effect.incident,
        auditSource,
        now,
      );
    return { sources: theirs, shared: [...shared] };
  });
}

/** Takes off what the effect `of` set. A rule of another incident for the same source is a row of its own. */
export async function raiseTrust(database: HostDatabase, effect: Effect & { readonly of: string }): Promise<Made<TrustRaised>> {
  const { sources } = (await recorded(database, effect.of, TrustLowered)) ?? { sources: [] };
  return once(database, effect, TrustRaised, async (session) => {
    for (const source of sources)
      await session.run('DELETE FROM quarantine_rules WHERE id = ? AND created_by = ?', ruleId(effect.of, source), auditSource);
    return { sources };
  });
}

/** Every source the table says never to trust. */
export async function distrusted(database: HostDatabase): Promise<string[]> {
  const rows = await database.read((session) =>
    session.rows(
      z.object({ source: z.string() }),
      "SELECT org_uri AS source FROM quarantine_rules WHERE rule_type = 'never_trust' ORDER BY id",
    ),
  );
  return rows.map(({ source }) => source);
}

const Claim = z.object({ source: z.string(), writer: z.string().nullable() });

/**
 * Sources that somebody else speaks for as well: facts from other peers claim them, or facts that were written here by
 * anyone but who holds the peer's own keys. Else a peer could have others distrusted, or stay trusted by one write of its own.
 */
async function sharedSources(session: Session, sources: readonly string[], { nodeIds, holds }: Distrusted): Promise<Set<string>> {
  if (sources.length === 0) return new Set();
  const list = placeholders(sources);
  const notTheirs = nodeIds.length === 0 ? '' : `AND f.received_from NOT IN (${placeholders(nodeIds)})`;
  const foreign = await session.rows(
    z.object({ source: z.string() }),
    `SELECT DISTINCT f.source AS source FROM facts f WHERE f.source IN (${list}) AND f.received_from IS NOT NULL ${notTheirs}`,
    ...sources,
    ...nodeIds,
  );
  const local = await session.rows(
    Claim,
    `SELECT DISTINCT f.source AS source, a.entity_uri AS writer FROM facts f
       LEFT JOIN fact_audit_log a ON a.fact_id = f.id AND a.event_type = 'fact_write'
     WHERE f.source IN (${list}) AND f.received_from IS NULL AND f.relation <> 'stigmem:received_from'`,
    ...sources,
  );
  return new Set([
    ...foreign.map(({ source }) => source),
    ...local.flatMap(({ source, writer }) => (writer !== null && holds(writer) ? [] : [source])),
  ]);
}

function ruleId(key: string, source: string): string {
  return `cordon_${sha256Id(JSON.stringify([key, source])).slice('sha256:'.length)}`;
}
