import { z } from 'zod';
import type { HostDone, IncidentRef } from '../../src/contract/steps.ts';
import { restoreAccess } from '../../src/host/access.ts';
import { effectsOf, type Operation, type Recorded } from '../../src/host/effect.ts';
import { PeersRevoked, reinstatePeers } from '../../src/host/peers.ts';
import { restoreFacts, suppressAtOnce, suppressFacts } from '../../src/host/suppress.ts';
import { hideAgain } from '../../src/host/tombstones.ts';
import { raiseTrust } from '../../src/host/trust.ts';
import { assertApprovedHere } from '../approved.ts';
import { firstSealed, headOf, seal } from '../deps.ts';
import { readUndone } from '../facts/undo-log.ts';
import { beat } from '../heartbeat.ts';
import { assertServes, effectOf, type HostDeps } from './deps.ts';
import type { Holder } from './fate.ts';
import { promotionBefore, runPromotionCommand } from './promotion.ts';

export interface HostRestoreInput {
  readonly ref: IncidentRef;
  /** The run whose approval this acts on. */
  readonly approvedInRun: string;
  readonly readBack: boolean;
  /** A peer that is restored: nothing but trust is given back, and its rows of these nodes alone. Absent: all of it, after a false alarm. */
  readonly restored?: { readonly nodeIds: readonly string[]; readonly keepTrustRules: boolean };
}

/** Undoes what this incident did on the host, behind gate `restore`. What another incident holds as well stays as it is. */
export function hostRestoreActivities(deps: HostDeps) {
  /** Undoes each effect of this incident; one that an attempt before has undone tells again what came of it. */
  const undoAll = async <T>(
    ref: IncidentRef,
    pair: Pair,
    undo: (effect: { key: string; incident: string; step: string; operation: Operation; of: string }) => Promise<{ record: T }>,
  ): Promise<T[]> => {
    const done: T[] = [];
    for (const { key: of } of await toUndo(deps, ref, pair)) {
      const { record } = await undo({ key: `${of} undone`, incident: ref.incident, step: 'restore', operation: pair.undo, of });
      done.push(record);
      beat();
    }
    return done;
  };

  /** After a real compromise: what was suppressed stays so, and so do keys and tokens, which somebody else may have. */
  const trustAgain = async (ref: IncidentRef, readBack: boolean, keepsRules: boolean): Promise<HostDone> => {
    const access = {
      what: 'API keys, agent keys, tokens, subscriptions and memberships of the peer',
      why: 'they stay revoked, for whoever held its key may have them: issue new ones',
      count: 1,
    };
    const sealed = await seal(deps, ref, 'kept for a restored peer', 'restored', { keepsRules });
    const probation = { what: "trust rules against the peer's sources", why: 'kept: the peer is on probation', count: 1 };
    const kept = { residual: [access, ...(keepsRules ? [probation] : [])], evidence: headOf(sealed) };
    if (keepsRules) return { done: 0, detail: 'on the host: trust rules kept, the peer is on probation', ...kept };
    if (readBack || ref.mode === 'drill') return stillStanding(deps, ref, [pairs.trust]);
    const raised = await undoAll(ref, pairs.trust, (effect) => raiseTrust(deps.database, effect));
    const sources = new Set(raised.flatMap((one) => one.sources)).size;
    const after = await seal(deps, ref, 'trusted again on the host', 'restored', { raised });
    return { ...kept, done: sources, detail: `on the host: ${sources} trust rules off`, evidence: headOf(after) };
  };

  return {
    /** Trust rules off, keys, tokens and memberships given back, suppressed facts shown again, lifted tombstones back. */
    async restoreOnHost({ ref, approvedInRun, readBack, restored }: HostRestoreInput): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      if (restored) return trustAgain(ref, readBack, restored.keepTrustRules);
      if (readBack || ref.mode === 'drill') return stillStanding(deps, ref, [pairs.trust, pairs.access, pairs.facts, pairs.tombstones]);
      const { database } = deps;
      const raised = await undoAll(ref, pairs.trust, (effect) => raiseTrust(database, effect));
      const access = await undoAll(ref, pairs.access, (effect) => restoreAccess(database, effect));
      const facts = await undoAll(ref, pairs.facts, (effect) => restoreFacts(database, effect));
      const tombstones = await undoAll(ref, pairs.tombstones, (effect) => hideAgain(database, effect));
      const statements = await expireStatements(deps, ref);
      const sealed = await seal(deps, ref, 'restored on the host', 'restored', { raised, access, facts, tombstones, statements });
      // Another effect of this very incident may have held it until its own turn came.
      const free = new Set([
        ...access.flatMap((one) => one.back),
        ...facts.flatMap((one) => one.restored),
        ...tombstones.flatMap(({ ids }) => ids),
      ]);
      const held = new Set([...access, ...facts, ...tombstones].flatMap((one) => one.held).filter((id) => !free.has(id))).size;
      const left = new Set(facts.flatMap((one) => one.left).filter((id) => !free.has(id))).size;
      const lost = new Set(access.flatMap((one) => one.lost).filter((id) => !free.has(id))).size;
      const sources = new Set(raised.flatMap((one) => one.sources)).size;
      const back = new Set(access.flatMap((one) => one.back)).size;
      const shown = new Set(facts.flatMap((one) => one.restored)).size;
      const hidden = new Set(tombstones.flatMap(({ ids }) => ids)).size;
      const residual = [
        {
          what: 'things that another incident holds as well',
          why: 'they stay revoked, suppressed or lifted until that one is dismissed',
          count: held,
        },
        { what: 'suppressed facts that somebody changed since', why: 'their override is not ours any more, so it was left', count: left },
        { what: 'memberships that could not be given back', why: 'their garden is gone', count: lost },
        { what: 'counter-statements of ours', why: 'the node is append-only: they stay, expired and shown to nobody', count: statements },
      ].filter(({ count }) => count > 0);
      return {
        done: sources + back + shown + hidden,
        detail: `on the host: ${sources} trust rules off, ${back} keys, tokens, subscriptions and memberships back, ${shown} facts shown again, ${hidden} tombstones count again`,
        residual,
        evidence: headOf(sealed),
      };
    },

    /** The door: registrations as they were before. */
    async reinstatePeers({ ref, approvedInRun, readBack, restored }: HostRestoreInput): Promise<HostDone> {
      await assertServes(deps, ref);
      assertApprovedHere(approvedInRun);
      const { database } = deps;
      if (readBack || ref.mode === 'drill') {
        const looked = await stillStanding(deps, ref, [pairs.peers]);
        const effects = await toUndo(deps, ref, pairs.peers);
        const were = effects.flatMap(({ record }) => PeersRevoked.parse(record).peers);
        return ref.mode === 'drill' ? looked : { ...looked, reopened: Object.fromEntries(were.map(({ id, was }) => [id, was])) };
      }
      const done = await undoAll(ref, pairs.peers, (effect) => reinstatePeers(database, effect, restored?.nodeIds));
      // The last word on each row: until then another effect of this very incident may have held it.
      const rows = [...new Map(done.flatMap(({ peers }) => peers.map((row) => [row.id, row] as const))).values()];
      const sealed = await seal(deps, ref, 'peers reinstated', 'peers', rows);
      const held = rows.filter((row) => row.held).length;
      return {
        done: rows.length - held,
        reopened: Object.fromEntries(rows.map(({ id, status }) => [id, status])),
        detail: `${rows.length - held} peers row(s) reinstated on the host${held > 0 ? `, ${held} kept shut by another incident` : ''}`,
        residual:
          held > 0
            ? [{ what: 'peers rows that another incident keeps shut', why: 'they open when that one is dismissed', count: held }]
            : [],
        evidence: headOf(sealed),
      };
    },

    /** Only what this incident paused is resumed: it may have been paused before, by others, for reasons of theirs. */
    async resumePromotionJob({ ref, approvedInRun, readBack }: HostRestoreInput): Promise<HostDone> {
      assertApprovedHere(approvedInRun);
      const before = Before.safeParse(await firstSealed(deps, { ...ref, phase: 'contain' }, promotionBefore)).data;
      if (deps.promotionCommand !== undefined && before?.status !== 'running') {
        const sealed = await seal(deps, ref, 'promotion left', 'promotions', { before: before ?? null });
        const detail = `promotion was ${before?.status ?? 'not looked at'} before this incident: left as it is`;
        return { works: true, done: 0, detail, evidence: headOf(sealed) };
      }
      return runPromotionCommand(deps, ref, readBack ? 'status' : 'resume', 'running');
    },
  };
}

interface Pair {
  readonly operation: Operation;
  readonly undo: Operation;
}
const pairs = {
  trust: { operation: 'lowerTrust', undo: 'raiseTrust' },
  access: { operation: 'revokeAccess', undo: 'restoreAccess' },
  facts: { operation: 'suppressFacts', undo: 'restoreFacts' },
  tombstones: { operation: 'liftTombstones', undo: 'hideAgain' },
  peers: { operation: 'revokePeers', undo: 'reinstatePeers' },
} as const satisfies Record<string, Pair>;
const Before = z.object({ status: z.string() });

/** What incidents before it did that came to no outcome, and then what this incident did before it was dismissed: its own word is the last. */
async function toUndo(deps: HostDeps, ref: IncidentRef, pair: Pair): Promise<Recorded[]> {
  const before = new Set((await predecessors(deps, ref)).map(({ firstRun }) => firstRun));
  const all = (await effectsOf(deps.database, pair)).filter(({ key }) => phaseOf(key) !== 'restore');
  return [...all.filter(({ key }) => before.has(firstRunOf(key))), ...all.filter(({ key }) => firstRunOf(key) === ref.firstRun)];
}

/**
 * Incidents that shut a peers row of this one's and were then ended by somebody, or by the server: nobody else is left to
 * undo what they did. One that closed meant it; of one that the server has forgotten nobody knows.
 */
async function predecessors(deps: HostDeps, ref: IncidentRef): Promise<Holder[]> {
  const all = await effectsOf(deps.database, pairs.peers);
  const rowsOf = ({ record }: Recorded): string[] => PeersRevoked.parse(record).peers.map(({ id }) => id);
  const own = new Set(all.filter(({ key }) => firstRunOf(key) === ref.firstRun).flatMap(rowsOf));
  const shared = all.filter((one) => firstRunOf(one.key) !== ref.firstRun && rowsOf(one).some((id) => own.has(id)));
  const every = (await Promise.all(Object.values(pairs).map((pair) => effectsOf(deps.database, pair)))).flat();
  const stands = new Set(every.flatMap((one) => (one.stands ? [firstRunOf(one.key)] : [])));
  const holders = new Map(
    shared.flatMap(({ key, incident }) =>
      stands.has(firstRunOf(key)) ? [[firstRunOf(key), { incident, firstRun: firstRunOf(key) }]] : [],
    ),
  );
  const dead: Holder[] = [];
  for (const holder of holders.values()) if ((await deps.fateOf(holder)) === 'dead') dead.push(holder);
  return dead;
}

// Of `<firstExecutionRunId>:<phase>:<round>:<item>`.
const firstRunOf = (key: string): string => key.split(':')[0] ?? '';
const phaseOf = (key: string): string => key.split(':')[1] ?? '';
const roundOf = (key: string): number => Number(key.split(':')[2]);

/** Look only: what of this incident still stands on the host. */
async function stillStanding(deps: HostDeps, ref: IncidentRef, of: readonly Pair[]): Promise<HostDone> {
  const standing = (await Promise.all(of.map((pair) => toUndo(deps, ref, pair)))).flat().filter(({ stands }) => stands);
  const keys = standing.map(({ key, stands }) => ({ key, stands }));
  const sealed = await seal(deps, ref, `standing ${of.map(({ operation }) => operation).join(' ')}`, 'restored', keys);
  return {
    done: 0,
    detail: `${standing.length} changes of this incident stand on the host`,
    residual: standing.length > 0 ? [{ what: 'changes on the host', why: 'they are not undone', count: standing.length }] : [],
    evidence: headOf(sealed),
  };
}

/** Our counter-statements hide what is shown again, so they expire. */
async function expireStatements(deps: HostDeps, ref: IncidentRef): Promise<number> {
  const ids: string[] = [];
  for (const [{ incident, firstRun }, rounds] of await statementsOf(deps, ref)) {
    for (let round = 1; round <= rounds; round += 1) {
      // Another incident's chain does not have the head that this one was told.
      const { evidenceHead, ...rest } = ref;
      const own = firstRun === ref.firstRun && evidenceHead !== undefined ? { evidenceHead } : {};
      const lines = await readUndone(deps, { ...rest, ...own, incident, firstRun, phase: 'retract', round });
      for (const { action, retraction } of lines.values()) if (action === 'suppress' && retraction !== undefined) ids.push(retraction);
    }
  }
  const unique = [...new Set(ids)];
  for (let from = 0; from < unique.length; from += suppressAtOnce) {
    const effect = effectOf(ref, 'restoreTrust', 'suppressFacts', `statements from ${from}`);
    await suppressFacts(deps.database, effect, unique.slice(from, from + suppressAtOnce));
    beat();
  }
  return unique.length;
}

/** Whose counter-statements are to go, with how many rounds each has had. */
async function statementsOf(deps: HostDeps, ref: IncidentRef): Promise<[Holder, number][]> {
  const suppressed = await effectsOf(deps.database, pairs.facts);
  const dead = (await predecessors(deps, ref)).map((holder): [Holder, number] => {
    const rounds = suppressed.flatMap(({ key }) => (firstRunOf(key) === holder.firstRun ? [roundOf(key)] : []));
    return [holder, Math.max(0, ...rounds)];
  });
  return [[ref, ref.round], ...dead];
}
