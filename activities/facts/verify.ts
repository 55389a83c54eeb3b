import { activityInfo } from '@temporalio/activity';
import { z } from 'zod';
import { canonicalJson, sha256Id } from '../../src/contract/canonical.ts';
import type { Coverage, Residual } from '../../src/contract/schemas.ts';
import type { IncidentRef, PeerRef, StepResult } from '../../src/contract/steps.ts';
import { tripleKey, valueId, type Collection } from '../../src/policy/facts.ts';
import { collectQuarantine } from '../../src/stigmem/paging.ts';
import { assertBoundNode, cancelSignal, effectKey, evidenceOf, headOf, seal, type Deps } from '../deps.ts';
import { beat } from '../heartbeat.ts';
import { askEntity, EntityAnswer, maxPoisonQueries, text, type Recalled, type Surface, type Touched } from './ask-entity.ts';
import { findCollection, parsed, readCollection } from './collection.ts';
import { inLanes, readLanes } from './lanes.ts';
import { scopeOf } from './shape.ts';
import { askOurs, askSynthesis } from './ask-node.ts';
import { readUndone, type UndoLine } from './undo-log.ts';

/** Entities between two seals: what another attempt asks again at worst. */
const chunkEntities = 100;
const Cursor = z.object({ of: z.string(), done: z.int() });

const surfaceWords: Readonly<Record<Surface, string>> = {
  facts: 'the default GET /v1/facts',
  card: 'GET /v1/cards',
  recallPoison: "POST /v1/recall by the poison's words",
  recallBenign: 'POST /v1/recall by benign words',
  recallCard: 'a memory card in POST /v1/recall',
};

/** Recover, the other half: asks the node again about everything that was undone, and says what still answers. */
export async function askAgain(deps: Deps, ref: IncidentRef, peer: PeerRef | null): Promise<StepResult> {
  const undone = [...(await readUndone(deps, { ...ref, phase: 'retract' })).values()];
  const acted = undone.filter(
    ({ action, outcome }) => (action === 'retract' || action === 'reject' || action === 'suppress') && outcome !== 'left',
  );
  const found = await findCollection(deps, ref);
  const collection = found === undefined ? undefined : await readCollection(await evidenceOf(deps, ref), found);
  const everywhere = group(acted, collection);
  const touched = affordable(everywhere);
  const answers = await askEntities(deps, ref, touched);
  const actedIds = new Set(acted.map(({ id }) => id));
  const synthesis = await askSynthesis(deps, new Set(touched.map(({ scope }) => scope)), actedIds);
  const ours = await askOurs(deps, collection?.others ?? []);
  const { items: quarantine } = await collectQuarantine(deps.node, { signal: cancelSignal(), onPage: () => beat() });
  const pending = quarantine.filter(
    ({ fact_id: id, quarantine_status: status, received_from: from }) =>
      status === 'pending' && (actedIds.has(id) || (from !== null && (peer?.nodeIds.includes(from) ?? false))),
  );

  const isWhole = touched.length === everywhere.length;
  const where = isWhole
    ? `${touched.length} entities and scopes`
    : `${touched.length} of ${everywhere.length} entities and scopes, spread evenly over them (at most ${mostQuestions} questions)`;
  const residual: Residual[] = [];
  const add = (what: string, why: string, count: number): void => {
    if (count > 0) residual.push({ what, why, count });
  };
  for (const [surface, words] of Object.entries(surfaceWords)) {
    const ids = new Set(answers.flatMap(({ still }) => Object.entries(still).flatMap(([name, list]) => (name === surface ? list : []))));
    add(`undone facts that ${words} still answers with`, whyStill(surface), ids.size);
  }
  add(
    'undone facts that GET /v1/scopes/{scope}/synthesize still lists',
    'it reads the raw rows; nothing over HTTP takes them out',
    synthesis.still.length,
  );
  add(
    'facts of others that the default query hides',
    'a fact of the peer shares their entity, relation and scope; only an expiry override on the host brings them back',
    ours.hidden.length,
  );
  add('facts of others that were visible before and are hidden now', 'undoing hid them: look at the evidence', ours.newlyHidden.length);
  add('facts of the peer that still wait in quarantine', 'a pending fact hides others and shows in synthesize', pending.length);
  const unanswered = [...answers.flatMap((answer) => answer.unanswered), ...synthesis.unanswered, ...ours.unanswered];
  const alsoSaid = touched.flatMap(({ facts }) => facts.filter((fact) => fact.alsoSaid)).length;
  add('undone facts that others say as well', 'theirs stand and are recalled as before: the plan names them', alsoSaid);
  add('questions that the node did not answer', unanswered[0]?.slice(0, 300) ?? '', unanswered.length);
  const held = undone.filter(({ action }) => action === 'hold').length;

  const result = {
    asked: touched.length,
    synthesis,
    ours,
    pending: pending.map(({ fact_id: id }) => id),
    unanswered: unanswered.slice(0, 500),
    residual,
  };
  await assertBoundNode(deps, ref);
  const sealed = await seal(deps, ref, 'verifyUndone', 'verified', result);
  const coverage: Coverage[] = [
    {
      what: 'undone facts asked about again',
      seen: touched.reduce((sum, { facts }) => sum + facts.length, 0),
      complete: unanswered.length === 0 && deps.node.hasAgentKey && isWhole,
      why: `on ${where}, ${deps.node.hasAgentKey ? 'as an ordinary agent' : 'with the admin key, which is no ordinary agent: set CORDON_AGENT_KEY'}: facts, card, synthesize, recall by the poison's words and by benign ones`,
    },
    {
      what: 'facts downstream',
      seen: 0,
      complete: false,
      why: 'not knowable on this node: what other nodes pulled before the fence has to be asked there',
    },
  ];
  const clean = residual.length === 0;
  const none =
    acted.length === 0 ? 'nothing was undone, so there was nothing to ask for' : `${acted.length} undone facts asked for again on ${where}`;
  return {
    outcome: clean && isWhole && acted.length > 0 ? 'verified' : 'unverified',
    way: 'http',
    detail:
      `${none}; ${clean ? 'none of them answers' : residual.map(({ what, count }) => `${count} ${what}`).join('; ')}${held > 0 ? `; ${held} were held and answer as before` : ''}`.slice(
        0,
        2_000,
      ),
    residual,
    coverage,
    evidence: headOf(sealed),
  };
}

/** Questions about what was undone: more would take the node's hourly limit of reads for days. */
const mostQuestions = 10_000;

/** All of them, or as many as may be asked for, spread evenly over all. */
function affordable(touched: readonly Touched[]): readonly Touched[] {
  const questions = touched.reduce((sum, { facts }) => sum + 3 + Math.min(facts.length, maxPoisonQueries), 0);
  if (questions <= mostQuestions) return touched;
  const wanted = Math.max(1, Math.floor((touched.length * mostQuestions) / questions));
  return Array.from({ length: wanted }, (_, at) => touched[Math.floor((at * touched.length) / wanted)]).filter((one) => one !== undefined);
}

/** By entity and scope, so that a burst on one entity costs what one fact costs. */
function group(acted: readonly UndoLine[], collection: Collection | undefined): Touched[] {
  const facts = new Map(collection?.facts.map((seen) => [seen.id, seen.fact]));
  const said = new Set(collection?.others.map(({ entity, relation, scope, says }) => JSON.stringify([entity, relation, scope, says])));
  const groups = new Map<string, Touched & { facts: Touched['facts'][number][] }>();
  for (const { id, entity, relation, scope: name } of acted) {
    const fact = facts.get(id) ?? null;
    // In quarantine a fact shows no scope: agents of the widest one are the most that could have met it.
    const scope = scopeOf(name) ?? 'company';
    const key = tripleKey(entity, '', scope);
    const one = groups.get(key) ?? { entity, scope, facts: [] };
    const alsoSaid = fact !== null && said.has(JSON.stringify([entity, relation, name, valueId(fact.value)]));
    one.facts.push({ id, relation, value: text(fact?.value.v), cid: fact?.cid ?? null, alsoSaid });
    groups.set(key, one);
  }
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, touched]) => touched);
}

/** Asks entity by entity; what is answered is sealed as it goes, so that another attempt goes on from there. */
async function askEntities(deps: Deps, ref: IncidentRef, touched: readonly Touched[]): Promise<EntityAnswer[]> {
  // Another list (after another opening) is another set of questions.
  const of = sha256Id(canonicalJson(touched.map(({ entity, scope, facts }) => [entity, scope, facts.map(({ id }) => id)]))).slice(7, 19);
  const before = Cursor.safeParse(activityInfo().heartbeatDetails).data;
  const prefix = `asked again ${of} ${activityInfo().activityId}`;
  const recalled = new Map<string, Recalled>();
  for (const { entity, scope, facts } of touched) {
    const known = recalled.get(scope) ?? nothingRecalled();
    for (const { id } of facts) known.ids.add(id);
    known.byEntity.set(entity, [...facts]);
    recalled.set(scope, known);
  }
  for (let done = before?.of === of ? before.done : 0; done < touched.length;) {
    const answers = await inLanes(touched.slice(done, done + chunkEntities), readLanes, async (one) => {
      cancelSignal().throwIfAborted();
      const answer = await askEntity(deps, one, recalled.get(one.scope) ?? nothingRecalled());
      beat();
      return answer;
    });
    await assertBoundNode(deps, ref);
    await seal(deps, ref, `${prefix} from ${done}`, 'asked', answers);
    done += answers.length;
    beat({ of, done } satisfies z.infer<typeof Cursor>);
  }
  const store = await evidenceOf(deps, ref);
  const all: EntityAnswer[] = [];
  for (const { key, sha256 } of latestByKey(
    (await store.entries()).filter((entry) => entry.key.startsWith(effectKey(ref, `${prefix} `))),
  )) {
    const id = `sha256:${sha256}`;
    all.push(...parsed(z.array(EntityAnswer), await store.readJson(id), `${key} ${id}`));
  }
  return all;
}

function nothingRecalled(): Recalled {
  return { ids: new Set(), byEntity: new Map(), recallPoison: new Set(), recallBenign: new Set(), recallCard: new Set() };
}

function latestByKey<T extends { readonly key: string }>(entries: readonly T[]): T[] {
  return [...new Map(entries.map((entry) => [entry.key, entry])).values()];
}

function whyStill(surface: string): string {
  if (surface === 'card' || surface === 'recallCard') return 'cards are built from raw rows with confidence over 0, whatever was retracted';
  if (surface.startsWith('recall')) return 'recall reads raw rows: a retraction does not reach it; an expiry override on the host does';
  return 'the node still shows them';
}
