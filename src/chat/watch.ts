import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { describe } from '../cli/incident.ts';
import { workflowType } from '../contract/names.ts';
import { withDeadline, type TemporalSession } from '../temporal.ts';
import { UnreadableCards, type Cards } from './cards.ts';
import { chatPatience, endingOf, inFull, openingsOf } from './openings.ts';
import { SlackError } from './slack.ts';
import type { LazyTemporal } from './temporal.ts';

/** How often the list of open incidents is read: one call, which no worker is needed for. */
const listEveryMs = 3_000;
/** How often an incident with a gate open is asked although its memo says nothing new: for votes, and for other runs. */
const askEveryMs = 15_000;
/** How often the channel is read again, for cards of other processes. */
const scanEveryMs = 10 * 60_000;
const atOnce = 4;
const maxIncidents = 1_000;

interface Seen {
  readonly memo: string;
  readonly askedAt: number;
  /** Whether a worker said what it waits for, and a card shows it. */
  readonly isShown: boolean;
}

/** Keeps the cards as the incidents are. It remembers nothing that Temporal or the channel could not tell it again. */
export class Watch {
  readonly #temporal: LazyTemporal;
  readonly #cards: Cards;
  readonly #log: Logger;
  readonly #stopped = new AbortController();
  readonly #seen = new Map<string, Seen>();
  readonly #busy = new Map<string, Promise<unknown>>();
  #scannedAt = -Infinity;
  #slackPausedUntil = 0;
  #running: Promise<void> | undefined;
  /** How it went last time: `ok`, or what was wrong. */
  temporal = 'starting';
  slack = 'starting';

  constructor({ temporal, cards, log }: { temporal: LazyTemporal; cards: Cards; log: Logger }) {
    this.#temporal = temporal;
    this.#cards = cards;
    this.#log = log;
  }

  start(): void {
    this.#running ??= this.#loop();
  }

  /** Ends after the round that is under way. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
    await Promise.allSettled(this.#busy.values());
  }

  /** Looks at one incident now: something was just decided about it. */
  async look(incident: string): Promise<void> {
    const failed: unknown[] = [];
    await attempt(failed, async () => void (await this.#refresh(await this.#temporal.session(), incident)));
    if (failed.length > 0) this.#judge(failed, false);
  }

  async #loop(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      const failed: unknown[] = [];
      const reached = { slack: false };
      await attempt(failed, () => this.#round(failed, reached));
      this.#judge(failed, reached.slack);
      await sleep(listEveryMs, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
    }
  }

  async #round(failed: unknown[], reached: { slack: boolean }): Promise<void> {
    const session = await this.#temporal.session();
    const memos = await openIncidents(session);
    // A card is posted only by who knows which are there.
    if (!(await attempt(failed, () => this.#scan(reached)))) return;
    for (const id of this.#seen.keys()) if (!memos.has(id)) this.#seen.delete(id);
    const now = Date.now();
    const due = [...memos].filter(([id, memo]) => this.#isDue(id, memo, now)).map(([id]) => id);
    const over = this.#cards.open().flatMap(({ opening }) => (memos.has(opening.incident) ? [] : [opening.incident]));
    const waiting = [...due, ...new Set(over)];
    const next = async (): Promise<void> => {
      for (let id = waiting.shift(); id !== undefined && !this.#stopped.signal.aborted; id = waiting.shift()) {
        const incident = id;
        let isShown = false;
        if (!(await attempt(failed, async () => void (isShown = await this.#refresh(session, incident))))) continue;
        reached.slack = true;
        const memo = memos.get(incident);
        // What failed is due again in the next round.
        if (memo !== undefined) this.#seen.set(incident, { memo, askedAt: Date.now(), isShown });
      }
    };
    await Promise.all(Array.from({ length: atOnce }, next));
  }

  #isDue(id: string, memo: string, now: number): boolean {
    const seen = this.#seen.get(id);
    if (seen === undefined || seen.memo !== memo) return true;
    const mayWait = memo === unknownMemo || !seen.isShown || this.#cards.open(id).length > 0;
    return mayWait && now - seen.askedAt >= askEveryMs;
  }

  async #scan(reached: { slack: boolean }): Promise<void> {
    if (Date.now() < this.#slackPausedUntil) throw new SlackError('conversations.history', 'ratelimited', 'rate limited');
    if (Date.now() - this.#scannedAt < scanEveryMs) return;
    await this.#cards.scan();
    this.#scannedAt = Date.now();
    reached.slack = true;
  }

  /** One at a time for each incident. */
  async #refresh(session: TemporalSession, incident: string): Promise<boolean> {
    const before = this.#busy.get(incident) ?? Promise.resolve();
    const mine = before.catch(() => undefined).then(() => this.#bring(session, incident));
    this.#busy.set(incident, mine);
    try {
      return await mine;
    } finally {
      if (this.#busy.get(incident) === mine) this.#busy.delete(incident);
    }
  }

  /** Gives whether every gate that waits has its card now. */
  async #bring(session: TemporalSession, incident: string): Promise<boolean> {
    const log = this.#log.child({ incident });
    const found = await describe(session, incident, chatPatience);
    // A closed one waits for nobody, whatever it would answer.
    const waiting = found?.isOpen === true ? await openingsOf(session, incident) : [];
    if (waiting === undefined) {
      log.debug('no worker answers: its cards stay as they are');
      return false;
    }
    for (const opening of waiting) {
      const { gate, opening: number, digest, have, need } = opening;
      const shown = await this.#cards.show(await inFull(session, opening));
      if (shown !== 'unchanged') log.info({ gate, opening: number, digest, have, need }, `card ${shown}`);
    }
    const isWaiting = new Set(waiting.map(({ digest }) => digest));
    for (const card of this.#cards.open(incident)) {
      const { gate, opening, digest } = card.opening;
      if (isWaiting.has(digest)) continue;
      const ending = await endingOf(session, card.opening, waiting);
      await this.#cards.end(card, ending);
      log.info({ gate, opening, digest, how: ending.how, by: ending.by }, 'card ended');
    }
    return this.#cards.open(incident).length >= waiting.length;
  }

  /** What failed is said once, and once more when it works again. */
  #judge(failed: readonly unknown[], reachedSlack: boolean): void {
    const [slack] = failed.filter((error) => error instanceof SlackError || error instanceof UnreadableCards);
    const [temporal] = failed.filter((error) => !(error instanceof SlackError || error instanceof UnreadableCards));
    for (const error of failed) {
      if (error instanceof SlackError && error.retryAfterS !== undefined) this.#slackPausedUntil = Date.now() + error.retryAfterS * 1_000;
    }
    if (temporal !== undefined) this.#note('temporal', messageOf(temporal));
    else if (slack === undefined || this.temporal === 'starting') this.#note('temporal', 'ok');
    if (slack !== undefined) this.#note('slack', messageOf(slack));
    else if (reachedSlack && !this.#cards.unreadable) this.#note('slack', 'ok');
  }

  #note(about: 'temporal' | 'slack', how: string): void {
    if (this[about] === how) return;
    if (how === 'ok') this.#log.info(`${about} answers`);
    else this.#log.error({ reason: how }, `${about} fails; it is tried again`);
    this[about] = how;
  }
}

/** Runs something that may fail without ending the watch. */
async function attempt(failed: unknown[], work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    failed.push(error);
    return false;
  }
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
const unknownMemo = 'null';

/** Open incidents with what their workflow last wrote into the memo: phase, gates and their openings. */
async function openIncidents({ client }: TemporalSession): Promise<Map<string, string>> {
  const query = `WorkflowType='${workflowType}' AND ExecutionStatus='Running'`;
  return await withDeadline(client, chatPatience.serverMs, async () => {
    const found = new Map<string, string>();
    for await (const { workflowId, runId, memo } of client.workflow.list({ query, pageSize: maxIncidents })) {
      const said: unknown = memo?.['cordon'];
      found.set(workflowId, said === undefined ? unknownMemo : JSON.stringify([runId, said]));
      if (found.size >= maxIncidents) break;
    }
    return found;
  });
}
