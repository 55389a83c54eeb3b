import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { failureTypes } from '../../src/contract/failures.ts';
import type { Row } from '../../src/lab/shapes.ts';
import type { Played } from './drive.ts';
import { faultKinds, type FaultKind } from './kinds.ts';
import { nodeState, policyWrites } from './template.ts';
import { webhookRoute, type Cell, type World } from './world.ts';

/** How an incident on an untouched node ends: what every other one is held against. */
export interface Reference {
  readonly state: Row;
  readonly policyWrites: number;
  readonly changes: Readonly<Record<string, number>>;
  readonly outcome: string;
  readonly steps: Readonly<Record<string, string>>;
  /** `activity route`, all of them. */
  readonly cells: readonly string[];
}

export async function referenceOf(world: World, played: Played): Promise<Reference> {
  return {
    state: await nodeState(world.node),
    policyWrites: await policyWrites(world.node),
    changes: counted(world.changes),
    outcome: played.result.outcome,
    steps: stepsOf(played),
    cells: [...world.routes].flatMap(([activity, routes]) => [...routes].map((route) => `${activity} ${route}`)),
  };
}

const stepsOf = ({ status }: Played): Record<string, string> =>
  Object.fromEntries(status.steps.map(({ name, outcome }) => [name, outcome]));

function counted(changes: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const change of changes) if (/ 2\d\d$/.test(change)) counts[change] = (counts[change] ?? 0) + 1;
  return counts;
}

/** Answers that say something about one question, not about the node: cordon takes them as such, and says so. */
const findings: readonly { readonly route: RegExp; readonly faults: RegExp; readonly why: string }[] = [
  {
    route: /^GET \/openapi\.json$/,
    faults: /^(403|404|half|a JSON|a list|200|100 MB)/,
    why: 'a node may hide its document: the levers are tried',
  },
  { route: /^POST \/v1\/lint$/, faults: /^(403|404)/, why: 'a node without the count: coverage says that nothing was counted' },
  { route: /^GET \/v1\/admin\/cid-backfill\/status$/, faults: /^(403|404|429)/, why: 'a node without the total: coverage says so' },
  { route: /^GET \/v1\/audit\/export$/, faults: /^(404|100 MB)/, why: 'a node without the export: the pages are walked' },
  {
    route: /^(GET|POST) \/v1\//,
    faults: /^429 with Retry-After$/,
    why: "the node's pace (src/stigmem/pace.ts): waited out, three times at most, then it parks",
  },
  { route: /^POST \/v1\/(facts|quarantine)/, faults: /^429$/, why: 'the write quota: status says until when it waits' },
  { route: /^POST \/v1\/quarantine/, faults: /^(404|409|422)$/, why: 'rejected by an attempt before: what it is now is read back' },
  { route: /^GET \/v1\/facts$/, faults: /^(422|500)/, why: 'one fact can make a page fail: said as not answered' },
  { route: /^GET \/v1\/cards/, faults: /^(404|422|500)/, why: 'no card, or one that can not be built' },
  { route: /^POST \/v1\/recall$/, faults: /^(404|422|500)/, why: 'said as a question that was not answered' },
  { route: /^GET \/v1\/scopes/, faults: /^(422|500)/, why: 'said as a question that was not answered' },
  {
    route: /^POST the webhook$/,
    faults: /^(half|a JSON|a list|200|reset|100 MB)/,
    why: 'what a webhook says beside its status is nobody’s business',
  },
];

const maxAttempts = { undoFacts: 8, others: 6 } as const;

/** Everything that is wrong about how one cell ended, in words; empty when nothing is. */
export function wrongAbout(cell: Cell): string[] {
  const wrong: string[] = [];
  const kind = faultKinds.find(({ name }) => name === cell.fault);
  if (kind === undefined) return ['unknown fault'];
  const isWebhook = cell.route === webhookRoute;
  const type = isWebhook ? 'WebhookUnavailable' : kind.type;
  const came = isWebhook ? /the webhook (answered HTTP \d+|did not answer: )/ : kind.came;
  const types = new Set(cell.failures.map((failure) => failure.type));
  // It failed, and the next attempt had no need to ask: what it wanted was done already, only the answer was lost.
  const wentOn = cell.end === 'recovered' || (cell.end === 'absorbed' && cell.failures.length > 0);
  if ((cell.end === 'absorbed' || wentOn) && cell.failures.length === 0) {
    if (!findings.some(({ route, faults }) => route.test(cell.route) && faults.test(cell.fault)))
      wrong.push(`was taken as an answer: ${JSON.stringify(cell.result)?.slice(0, 300)}`);
    // Rejected before, it is told as done; else it was not taken, it was swallowed.
    if (cell.route.startsWith('POST /v1/quarantine') && JSON.stringify(cell.result)?.includes('reject refused'))
      wrong.push('a rejection is told as refused although it stands');
  } else if (cell.end === 'parked') {
    const { why = '', how = '' } = cell;
    if (types.size !== 1 || !types.has(type)) wrong.push(`failed as ${[...types].join()}, not ${type}`);
    if (!came.test(why)) wrong.push(`why does not say what came: ${why}`);
    if (!isWebhook && !/expected/.test(why)) wrong.push(`why does not say what was expected: ${why}`);
    const route = kind.wholeActivity ? 'GET /.well-known/stigmem' : (cell.route.split('{')[0] ?? '');
    if (!isWebhook && !why.includes(route)) wrong.push(`why does not name ${route}: ${why}`);
    if (!/^[A-Z].{20,}\. It tries again by itself within .*cordon retry\|done\|skip <incident> \w+ --by <you>/.test(how))
      wrong.push(`how does not say what to do: ${how}`);
    const most = cell.activity === 'undoFacts' ? maxAttempts.undoFacts : maxAttempts.others;
    const { attempts = 0, failures } = cell;
    if (failureTypes[type].retryable) {
      if (attempts < 2 || attempts > most) wrong.push(`${attempts} attempts, expected 2 to ${most}`);
      if (failures.length === 0) wrong.push('no attempt failed of it');
    } else if (failures.length !== 1) wrong.push(`${failures.length} attempts, expected 1`);
  } else if (wentOn) {
    // It ended while Temporal still tried: nobody was asked.
    if (types.size !== 1 || !types.has(type)) wrong.push(`failed as ${[...types].join()}, not ${type}`);
    if (!cell.failures.every(({ message }) => came.test(message))) wrong.push(`failed with ${cell.failures[0]?.message}`);
  } else wrong.push('never ended');
  return [...wrong, ...changesOf(cell, kind)].map((what) => `${cell.fault} at ${cell.activity} ${cell.route}: ${what}`);
}

const facets: Readonly<Record<string, readonly string[]>> = {
  fenceInbound: ['inbound', 'tenant_map'],
  fenceOutbound: ['outbound'],
  blockRelays: ['pins'],
  revokeTokens: ['tokens'],
  undoFacts: ['facts', 'fact_rows', 'quarantine'],
  restoreTrust: ['pins'],
  liftFences: ['inbound', 'outbound', 'tenant_map'],
};

/** The node's rows before and after: different only where a change of this very activity reached the node. */
function changesOf(cell: Cell, kind: FaultKind): string[] {
  const reached = cell.changes.filter((change) => / 2\d\d$/.test(change));
  const moved = (facets[cell.activity] ?? []).filter((name) => cell.before?.[name] !== cell.after?.[name]);
  if (moved.length > 0 && reached.length === 0) return [`changed ${moved.join()} on the node with no change of its own`];
  const isDone = new Set(['reset in the body', 'answer lost', 'half a JSON', 'a JSON of another shape', 'a list', '200 with nothing']);
  // Where one fact of many was in the way, the others were undone all the same.
  if (cell.end === 'parked' && reached.length > 0 && !isDone.has(kind.name) && cell.activity !== 'undoFacts')
    return [`${reached.join()} reached the node although it parked`];
  return [];
}

/** Everything that differs from the reference at the end, and every secret found where none belongs. */
export async function differences(world: World, played: Played, reference: Reference): Promise<string[]> {
  const wrong: string[] = [];
  const state = await nodeState(world.node);
  for (const [name, value] of Object.entries(reference.state))
    if (state[name] !== value) wrong.push(`${name} at the end: expected ${String(value)}, came ${String(state[name])}`);
  const writes = await policyWrites(world.node);
  if (writes !== reference.policyWrites) wrong.push(`the policy was written ${writes} times, expected ${reference.policyWrites}`);
  const changes = counted(world.changes);
  for (const [change, count] of Object.entries({ ...reference.changes, ...changes })) {
    // The node makes one row of a body however often it comes: rows are counted above.
    if (change.includes('/v1/facts')) continue;
    const [came, expected] = [changes[change] ?? 0, reference.changes[change] ?? 0];
    if (came !== expected && count > 0) wrong.push(`${change}: ${came} times, expected ${expected}`);
  }
  if (played.result.outcome !== reference.outcome) wrong.push(`outcome ${played.result.outcome}, expected ${reference.outcome}`);
  const steps = stepsOf(played);
  const saidAgain = new Set(world.cells.filter(({ end }) => end === 'absorbed').map(({ activity }) => activity));
  for (const [name, outcome] of Object.entries(reference.steps))
    if (steps[name] !== outcome && !saidAgain.has(name)) wrong.push(`${name} ended ${steps[name]}, expected ${outcome}`);
  const places: Record<string, string> = { history: played.history, status: played.statuses.join('\n') };
  for (const [file, text] of filesUnder(world.evidenceDir)) places[file] = text;
  for (const [place, text] of Object.entries(places))
    for (const [index, secret] of world.secrets.entries()) if (text.includes(secret)) wrong.push(`secret ${index} stands in ${place}`);
  return wrong.map((what) => `${world.id}: ${what.slice(0, 1_500)}`);
}

function filesUnder(dir: string): [string, string][] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => [join(entry.parentPath, entry.name), readFileSync(join(entry.parentPath, entry.name), 'latin1')]);
}
