import type { JudgedFact } from '../../src/contract/schemas.ts';
import type { IncidentRef } from '../../src/contract/steps.ts';
import { tripleKey } from '../../src/policy/facts.ts';
import { StigmemHttpError } from '../../src/stigmem/errors.ts';
import { atItsPace } from '../../src/stigmem/pace.ts';
import { collectQuarantine } from '../../src/stigmem/paging.ts';
import type { Fact } from '../../src/stigmem/wire.ts';
import { assertBoundNode, cancelSignal, effectKey, type Deps } from '../deps.ts';
import { StepFailure } from '../failures.ts';
import { beat } from '../heartbeat.ts';
import { counterConfidence, scopeOf } from './shape.ts';
import type { UndoLine } from './undo-log.ts';

/**
 * The node says that this one request is wrong or that there is nothing to do: no reason to hold up the rest. A
 * retraction names nothing that could be missing or in the way: with 404 or 409 it was not the node's own route.
 */
const refusals = {
  retract: new Set([400, 413, 422]),
  reject: new Set([400, 404, 409, 410, 413, 422]),
} as const;
/** A change is made only while the node was asked who it is within this time. */
const knownForMs = 500;
/** A node's answer to a retraction names its origins; more than this many would bloat the row. */
const maxOrigins = 500;

/** Does it take a statement of ours: a retraction, or one against the card of what the host worker suppressed? */
function isStated({ action, counter }: JudgedFact): boolean {
  return action === 'retract' || (action === 'suppress' && counter === true);
}

function confidenceOf({ action }: JudgedFact): number {
  return action === 'retract' ? 0 : counterConfidence;
}

/** Undoes facts one by one over HTTP. One attempt of the activity has one of these. */
export class Undoer {
  writes = 0;
  readonly #deps: Deps;
  readonly #ref: IncidentRef;
  readonly #source: string;
  readonly #groups = new Map<string, JudgedFact[]>();
  readonly #statements = new Map<string, Promise<Fact>>();
  /** The last one of the node's own refusals. */
  refusal: StigmemHttpError | undefined;
  #known: { readonly untilMs: number; readonly asked: Promise<unknown> } | undefined;

  constructor(deps: Deps, ref: IncidentRef, source: string, plan: readonly JudgedFact[]) {
    this.#deps = deps;
    this.#ref = ref;
    this.#source = source;
    for (const fact of plan) {
      if (!isStated(fact)) continue;
      const group = this.#groups.get(keyOf(fact));
      if (group) group.push(fact);
      else this.#groups.set(keyOf(fact), [fact]);
    }
  }

  /** Will undoing this fact cost a write that was not made yet? */
  costs(fact: JudgedFact): number {
    if (fact.action === 'reject') return 1;
    return isStated(fact) && !this.#statements.has(keyOf(fact)) ? 1 : 0;
  }

  /** Writes that undoing all of these will cost, as far as known: facts on one triple share one. */
  writesFor(facts: readonly JudgedFact[]): number {
    const costly = facts.filter((fact) => this.costs(fact) > 0);
    return new Set(costly.map((fact) => (fact.action === 'reject' ? fact.id : keyOf(fact)))).size;
  }

  /** Acts on one fact. Throws what concerns all facts: an outage, a rate limit, a key without rights. */
  async act(fact: JudgedFact): Promise<UndoLine> {
    const { id, entity, relation, scope, action, derivedFrom } = fact;
    const base = { id, entity, relation, scope, action, ...(derivedFrom === undefined ? {} : { derivedFrom }) };
    try {
      if (isStated(fact)) {
        const made = await this.#state(fact);
        const isThere = made.entity === fact.entity && made.relation === fact.relation && made.scope === fact.scope;
        const right = isThere && made.confidence === confidenceOf(fact);
        const note = right
          ? fact.action === 'retract'
            ? 'retracted'
            : 'expired on the host, counter-statement made'
          : `the node stored the statement elsewhere, on ${made.entity.slice(0, 300)}: expire it on the host`;
        return { ...base, outcome: right ? 'done' : 'wrong', retraction: made.id, at: made.timestamp, note };
      }
      if (fact.action === 'reject') {
        return { ...base, outcome: 'done', note: await this.#reject(fact.id) };
      }
      // What the host worker suppressed is on record by the host worker.
      return { ...base, outcome: 'left', note: fact.reason };
    } catch (error) {
      const refused = fact.action === 'reject' ? refusals.reject : refusals.retract;
      if (!(error instanceof StigmemHttpError) || !refused.has(error.status)) throw error;
      this.refusal = error;
      return { ...base, outcome: 'refused', note: error.message };
    }
  }

  /** Who is this? Asked twice a second, not before each of thousands of writes: one takes about 20 ms. */
  async #sameNode(): Promise<void> {
    if (this.#known === undefined || Date.now() > this.#known.untilMs) {
      this.#known = { untilMs: Date.now() + knownForMs, asked: assertBoundNode(this.#deps, this.#ref) };
    }
    await this.#known.asked;
  }

  /** Asks the node for what was just done: an answer of 200 is not an effect. */
  async readBack(lines: readonly UndoLine[]): Promise<UndoLine[]> {
    const rows = await this.#ourRows(lines.some(({ retraction }) => retraction !== undefined));
    const states = lines.some(({ action }) => action === 'reject')
      ? await this.#quarantine()
      : new Map<string, { status: string; at: string | null }>();
    const checked: UndoLine[] = [];
    for (const line of lines) {
      if (line.action === 'reject') checked.push(rejected(line, states.get(line.id)));
      else if (line.retraction !== undefined && !rows.has(line.retraction) && !(await this.#isThere(line.retraction))) {
        checked.push({ ...line, outcome: 'wrong', note: `the node answered with retraction ${line.retraction} and does not show it` });
      } else checked.push(line);
    }
    await assertBoundNode(this.#deps, this.#ref);
    return checked;
  }

  /**
   * One statement for all facts of the plan on a triple: it contradicts them all, and each further row on a triple
   * adds two conflict facts for every sibling. The node makes a body once (POST is idempotent by content id, which
   * derived_from is not part of), so the key in the value makes this one effect however often it is sent.
   */
  async #state(fact: JudgedFact): Promise<Fact> {
    const key = keyOf(fact);
    const known = this.#statements.get(key);
    if (known) return known;
    const group = this.#groups.get(key) ?? [fact];
    const leader = group[0] ?? fact;
    const scope = scopeOf(fact.scope);
    if (scope === undefined)
      throw new StigmemHttpError(
        { method: 'POST', path: '/v1/facts' },
        { status: 422, statusText: '', detail: 'no such scope', retryAfterMs: null },
      );
    this.writes += 1;
    const made = this.#write({
      entity: leader.entity,
      relation: leader.relation,
      scope,
      // Neutral: one that repeats the poison would carry it to subscribers.
      value: { type: 'text', v: `${leader.action === 'retract' ? 'retracted' : 'suppressed'}: ${effectKey(this.#ref, leader.id)}` },
      confidence: confidenceOf(leader),
      source: this.#source,
      derived_from: group.slice(0, maxOrigins).map(({ id }) => ({ fact_id: id })),
    });
    this.#statements.set(key, made);
    // A failure is not kept: the next fact on the triple tries again.
    made.catch(() => this.#statements.delete(key));
    return made;
  }

  async #write(body: Parameters<Deps['node']['assertFact']>[0]): Promise<Fact> {
    await this.#sameNode();
    return atItsPace(() => this.#deps.node.assertFact(body, cancelSignal()), cancelSignal());
  }

  /** What the node said to it. */
  async #reject(id: string): Promise<string> {
    await this.#sameNode();
    this.writes += 1;
    try {
      const reason = `R-PEER-COMPROMISE ${effectKey(this.#ref, id)}`;
      await atItsPace(() => this.#deps.node.rejectQuarantined(id, reason, cancelSignal()), cancelSignal());
      return 'the node took it';
    } catch (error) {
      // No longer pending: what it is now is read back, like everything else.
      if (!(error instanceof StigmemHttpError) || error.status !== 409) throw error;
      return error.message;
    }
  }

  async #ourRows(wanted: boolean): Promise<Set<string>> {
    if (!wanted) return new Set();
    const query = { source: this.#source, include_contradicted: true, include_expired: true, include_low_trust: true, limit: 500 };
    const page = await this.#deps.node.factsPage(query, cancelSignal());
    return new Set(page.facts.map(({ id }) => id));
  }

  async #isThere(id: string): Promise<boolean> {
    try {
      return (await this.#deps.node.fact(id, cancelSignal())).confidence <= counterConfidence;
    } catch (error) {
      if (error instanceof StigmemHttpError && error.status === 404) return false;
      throw error;
    }
  }

  async #quarantine(): Promise<Map<string, { status: string; at: string | null }>> {
    const { items } = await collectQuarantine(this.#deps.node, { signal: cancelSignal(), onPage: () => beat() });
    return new Map(items.map((item) => [item.fact_id, { status: item.quarantine_status, at: item.quarantine_acted_at }]));
  }
}

/** What it is now counts, whatever the node answered. One that still waits is tried again until it does not, or people skip it. */
function rejected(line: UndoLine, state: { status: string; at: string | null } | undefined): UndoLine {
  if (state?.status === 'pending') {
    const what = `POST /v1/quarantine/${line.id.slice(0, 100)}/reject: expected the fact to be rejected, it still waits in quarantine: ${line.note}`;
    throw new StepFailure('StigmemRejected', what.slice(0, 1_000));
  }
  if (state?.status === 'rejected')
    return { ...line, outcome: 'done', note: 'rejected in quarantine', ...(state.at === null ? {} : { at: state.at }) };
  if (line.outcome !== 'done') return line;
  return { ...line, outcome: 'wrong', note: `it is ${state?.status ?? 'not in quarantine'}, not rejected` };
}

function keyOf({ entity, relation, scope }: JudgedFact): string {
  return tripleKey(entity, relation, scope);
}
