import { z } from 'zod';
import type { HostDatabase, Session } from './database.ts';
import { auditSource, once, recorded, standing, type Effect, type Made } from './effect.ts';

const Text = z.string().nullable();

// No column that is a secret is ever read: not key_hash, not token_json, not the nonce.
export const TokenRow = z.object({
  id: z.string(),
  issuer: z.string(),
  subject: z.string(),
  verb: z.string(),
  object: z.string(),
  issued_at: z.string(),
  expiry: z.string(),
  revoked_at: Text,
});
const ApiKeyRow = z.object({
  id: z.string(),
  entity_uri: z.string(),
  permissions: z.string(),
  description: Text,
  created_at: z.string(),
  expires_at: Text,
  tenant_id: z.string(),
});
const AgentKeyRow = z.object({ id: z.string(), entity_uri: z.string(), description: Text, registered_at: z.string(), status: z.string() });
const SubscriptionRow = z.object({
  id: z.string(),
  subscriber_identity: z.string(),
  target: z.string(),
  target_kind: z.string(),
  on_change: z.string(),
  /** Scheme and host alone: the path of a webhook is often the right to post there. */
  delivery_origin: z.string(),
  created_at: z.string(),
  tenant_id: z.string(),
  circuit_open: z.int(),
});
const MemberRow = z.object({ garden_id: z.string(), entity_uri: z.string(), role: z.string(), added_by: z.string(), added_at: z.string() });

/** Everything by which somebody may use our node without being a peer. */
export const Access = z.object({
  tokens: z.array(TokenRow),
  apiKeys: z.array(ApiKeyRow),
  agentKeys: z.array(AgentKeyRow),
  subscriptions: z.array(SubscriptionRow),
  members: z.array(MemberRow),
});
export type Access = z.infer<typeof Access>;

const Key = z.object({ id: z.string(), expires_at: Text, takenAt: z.string() });
const Member = MemberRow;

/** What was taken, with what undoing it needs; also what another incident had taken already, as it was before that. */
export const Taken = z.object({
  tokens: z.array(z.string()),
  apiKeys: z.array(Key),
  agentKeys: z.array(z.string()),
  subscriptions: z.array(z.string()),
  members: z.array(Member),
});
export type Taken = z.infer<typeof Taken>;

/** Ids of what came back; `held`: another incident keeps it; `lost`: memberships of a garden that is gone. */
export const GivenBack = z.object({ back: z.array(z.string()), held: z.array(z.string()), lost: z.array(z.string()) });
export type GivenBack = z.infer<typeof GivenBack>;

/** Whose access it is; a subscription is theirs by where it delivers to, too. */
export interface Holder {
  readonly holds: (entity: string) => boolean;
  readonly deliversTo: (address: string) => boolean;
}

const taking = { operation: 'revokeAccess', undo: 'restoreAccess' } as const;
const tables = ['capability_tokens', 'api_keys', 'agent_keys', 'subscriptions', 'garden_members'] as const;
const memberId = ({ garden_id: garden, entity_uri: entity }: z.infer<typeof Member>): string => JSON.stringify([garden, entity]);

/** What a holder has, revoked and expired included. */
export async function readAccess(database: HostDatabase, holder: Holder): Promise<Access> {
  return database.read((session) => accessOf(session, holder));
}

/**
 * Revokes all of it that still counts: keys expire, tokens and agent keys are revoked, subscriptions deliver no more,
 * memberships go.
 */
export async function revokeAccess(database: HostDatabase, effect: Effect, holder: Holder): Promise<Made<Taken>> {
  return once(database, effect, Taken, async (session) => {
    for (const table of tables) await session.lock(table);
    // As the node writes times: it compares them as text.
    const past = new Date(Date.now() - 1_000).toISOString().replace('Z', '+00:00');
    const now = await accessOf(session, holder);
    const earlier = await standing(session, taking, Taken);
    const live: Taken = {
      tokens: now.tokens.flatMap(({ id, revoked_at: at }) => (at === null ? [id] : [])),
      // An empty time is none: the node lets such a key in for ever.
      apiKeys: now.apiKeys.flatMap(({ id, expires_at: at }) => (!at || at > past ? [{ id, expires_at: at, takenAt: past }] : [])),
      agentKeys: now.agentKeys.flatMap(({ id, status }) => (status === 'active' ? [id] : [])),
      subscriptions: now.subscriptions.flatMap(({ id, circuit_open: open }) => (open === 0 ? [id] : [])),
      members: now.members,
    };
    await take(session, live, effect);
    return {
      tokens: merged(live.tokens, earlier.flatMap(({ tokens }) => tokens).filter(isAmong(now.tokens))),
      apiKeys: [
        ...live.apiKeys,
        ...earlier.flatMap(({ apiKeys }) => apiKeys).filter(({ id }) => isAmong(now.apiKeys)(id) && !isAmong(live.apiKeys)(id)),
      ],
      agentKeys: merged(live.agentKeys, earlier.flatMap(({ agentKeys }) => agentKeys).filter(isAmong(now.agentKeys))),
      subscriptions: merged(live.subscriptions, earlier.flatMap(({ subscriptions }) => subscriptions).filter(isAmong(now.subscriptions))),
      members: [...live.members, ...earlier.flatMap(({ members }) => members).filter((one) => holder.holds(one.entity_uri))],
    };
  });
}

/** Gives back what the effect `of` took, as it was, where no other incident keeps it and nobody has changed it since. */
export async function restoreAccess(database: HostDatabase, effect: Effect & { readonly of: string }): Promise<Made<GivenBack>> {
  const taken = await recorded(database, effect.of, Taken);
  return once(database, effect, GivenBack, async (session) => {
    const done: GivenBack = { back: [], held: [], lost: [] };
    if (taken === undefined) return done;
    for (const table of tables) await session.lock(table);
    const others = await standing(session, { ...taking, except: effect.of }, Taken);
    const held = new Set(others.flatMap(idsOf));
    const give = async (id: string, restore: () => Promise<number>, otherwise: string[] = []): Promise<void> => {
      if (held.has(id)) done.held.push(id);
      else ((await restore()) > 0 ? done.back : otherwise).push(id);
    };
    const ours = `%${JSON.stringify(auditSource)}%`;
    for (const id of taken.tokens)
      await give(id, () =>
        session.run('UPDATE capability_tokens SET revoked_at = NULL, revoke_log = NULL WHERE id = ? AND revoke_log LIKE ?', id, ours),
      );
    for (const { id, expires_at: at, takenAt } of taken.apiKeys)
      await give(id, () => session.run('UPDATE api_keys SET expires_at = ? WHERE id = ? AND expires_at = ?', at, id, takenAt));
    for (const id of taken.agentKeys)
      await give(id, () => session.run("UPDATE agent_keys SET status = 'active' WHERE id = ? AND status = 'revoked'", id));
    for (const id of taken.subscriptions)
      await give(id, () => session.run('UPDATE subscriptions SET circuit_open = 0 WHERE id = ? AND circuit_open = 1', id));
    for (const row of uniqueMembers(taken.members)) await give(memberId(row), () => join(session, row), done.lost);
    return done;
  });
}

async function take(session: Session, live: Taken, effect: Effect): Promise<void> {
  const at = new Date().toISOString();
  const log = JSON.stringify({ revoked_by: auditSource, reason: effect.incident, revoked_at: at });
  for (const id of live.tokens)
    await session.run('UPDATE capability_tokens SET revoked_at = ?, revoke_log = ? WHERE id = ? AND revoked_at IS NULL', at, log, id);
  for (const { id, takenAt } of live.apiKeys) await session.run('UPDATE api_keys SET expires_at = ? WHERE id = ?', takenAt, id);
  for (const id of live.agentKeys) await session.run("UPDATE agent_keys SET status = 'revoked' WHERE id = ?", id);
  for (const id of live.subscriptions) await session.run('UPDATE subscriptions SET circuit_open = 1 WHERE id = ?', id);
  for (const { garden_id: garden, entity_uri: entity } of live.members)
    await session.run('DELETE FROM garden_members WHERE garden_id = ? AND entity_uri = ?', garden, entity);
}

/** A garden may be gone since; who is a member again already stays as that. */
async function join(session: Session, row: z.infer<typeof Member>): Promise<number> {
  return session.run(
    `INSERT INTO garden_members (garden_id, entity_uri, role, added_by, added_at)
       SELECT id, ?, ?, ?, ? FROM gardens WHERE id = ? ON CONFLICT (garden_id, entity_uri) DO NOTHING`,
    row.entity_uri,
    row.role,
    row.added_by,
    row.added_at,
    row.garden_id,
  );
}

const idsOf = ({ tokens, apiKeys, agentKeys, subscriptions, members }: Taken): string[] => [
  ...tokens,
  ...apiKeys.map(({ id }) => id),
  ...agentKeys,
  ...subscriptions,
  ...members.map(memberId),
];
const merged = (some: readonly string[], more: readonly string[]): string[] => [...new Set([...some, ...more])];
const isAmong = (rows: readonly { readonly id: string }[]) => {
  const ids = new Set(rows.map(({ id }) => id));
  return (id: string): boolean => ids.has(id);
};
const uniqueMembers = (rows: readonly z.infer<typeof Member>[]): z.infer<typeof Member>[] => [
  ...new Map(rows.map((row) => [memberId(row), row])).values(),
];

const DeliveryRow = SubscriptionRow.omit({ delivery_origin: true }).extend({ delivery_address: z.string() });

async function accessOf(session: Session, { holds, deliversTo }: Holder): Promise<Access> {
  const select = (shape: z.ZodObject, table: string, order: string): string =>
    `SELECT ${Object.keys(shape.shape).join(', ')} FROM ${table} ORDER BY ${order}`;
  const tokens = await session.rows(TokenRow, select(TokenRow, 'capability_tokens', 'id'));
  const apiKeys = await session.rows(ApiKeyRow, select(ApiKeyRow, 'api_keys', 'id'));
  const agentKeys = await session.rows(AgentKeyRow, select(AgentKeyRow, 'agent_keys', 'id'));
  const deliveries = await session.rows(DeliveryRow, select(DeliveryRow, 'subscriptions', 'id'));
  const members = await session.rows(MemberRow, select(MemberRow, 'garden_members', 'garden_id, entity_uri'));
  return {
    tokens: tokens.filter(({ issuer, subject }) => holds(issuer) || holds(subject)),
    apiKeys: apiKeys.filter(({ entity_uri: entity }) => holds(entity)),
    agentKeys: agentKeys.filter(({ entity_uri: entity }) => holds(entity)),
    subscriptions: deliveries
      .filter(({ subscriber_identity: who, delivery_address: where }) => holds(who) || deliversTo(where))
      .map(({ delivery_address: where, ...row }) => ({ ...row, delivery_origin: URL.canParse(where) ? new URL(where).origin : '' })),
    members: members.filter(({ entity_uri: entity }) => holds(entity)),
  };
}
