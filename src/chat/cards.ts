import { setTimeout as sleep } from 'node:timers/promises';
import type { types } from '@slack/bolt';
import { z } from 'zod';
import { canonicalJson, sha256Id } from '../contract/canonical.ts';
import { gates } from '../contract/names.ts';
import { fit } from './blocks.ts';
import { cardBlocks, cardText, type CardOptions, type Ending, type Opening } from './card.ts';
import { SlackError, type Channel, type Message } from './slack.ts';

const eventType = 'cordon_gate';
const scanDays = 30;
const scanPages = 20;
/** Clocks of Temporal and Slack may differ by this. */
const slackMs = 10 * 60_000;

/** What a card carries unseen, so that any chat process finds it again: which opening, and how it was shown last. */
const Carried = z.object({
  incident: z.string(),
  run: z.string(),
  mode: z.enum(['live', 'drill']),
  peer: z.string(),
  phase: z.string(),
  round: z.int(),
  gate: z.enum(gates),
  opening: z.int(),
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  have: z.int(),
  need: z.int(),
  since: z.string(),
  expiresAt: z.string(),
  summary: z.string(),
  evidence: z.string(),
  state: z.enum(['open', 'ended']),
  /** Hash of what is shown: what is shown already is not sent again. */
  shown: z.string(),
});

/** A card in the channel. `ts` is Slack's id of a message there. */
export interface Card {
  readonly ts: string;
  readonly opening: Opening;
  readonly isOpen: boolean;
  readonly shown: string;
}

/** A posted card that can't be found again: after a restart there would be a second one. */
export class UnreadableCards extends Error {
  override readonly name = 'UnreadableCards';
  constructor() {
    super('a card that was just posted is not found in the channel by its metadata: does the app have the scopes of docs/how-to/chat.md?');
  }
}

/**
 * The cards of the channel. Where a card is stands in the channel itself, in the metadata of the message, and nowhere
 * else: what is kept here is what was read there. One card for each digest, and a digest is one opening of one run.
 */
export class Cards {
  readonly #channel: Channel;
  readonly #options: CardOptions;
  readonly #known = new Map<string, Card>();
  /** The last card that was posted could not be found again. */
  unreadable = false;

  constructor(channel: Channel, options: CardOptions) {
    this.#channel = channel;
    this.#options = options;
  }

  /** Open cards of this incident, or of all. */
  open(incident?: string): Card[] {
    return [...this.#known.values()].filter((card) => card.isOpen && (incident === undefined || card.opening.incident === incident));
  }

  /** Reads the channel as far back as a card may have to be updated. */
  async scan(): Promise<void> {
    await this.#adopt(await this.#channel.ownSince(Date.now() - scanDays * 86_400_000, scanPages));
  }

  /** Shows an opening that waits: on its card, or on a new one if no process has posted it yet. */
  async show(opening: Opening): Promise<'posted' | 'updated' | 'unchanged'> {
    const { digest } = opening;
    if (!this.#known.has(digest)) await this.#look(opening);
    const card = this.#known.get(digest);
    if (card !== undefined) return await this.#update(card, opening);
    const ts = await this.#channel.post(this.#content(opening));
    this.#known.set(digest, { ts, opening, isOpen: true, shown: shownHash(this.#blocks(opening)) });
    // Another process may have posted it in the same moment: both look, the older card stays.
    const isFound = async () => (await this.#look(opening)).some((message) => message.ts === ts) || this.#known.get(digest)?.ts !== ts;
    // Slack's history may lag behind a little.
    this.unreadable = !(await isFound()) && !(await sleep(1_000).then(isFound));
    if (this.unreadable) throw new UnreadableCards();
    return 'posted';
  }

  /** Shows how an opening ended, and takes the buttons off. */
  async end(card: Card, ending: Ending): Promise<void> {
    await this.#update(card, card.opening, ending);
  }

  #blocks(opening: Opening, ending?: Ending): types.KnownBlock[] {
    return cardBlocks(opening, this.#options, ending);
  }

  #content(opening: Opening, ending?: Ending) {
    const blocks = this.#blocks(opening, ending);
    const { approvedBy: _, ...said } = opening;
    const carried: z.infer<typeof Carried> = {
      ...said,
      // Metadata holds a few kilobytes.
      peer: fit(said.peer, 300),
      summary: fit(said.summary, 500),
      state: ending === undefined ? 'open' : 'ended',
      shown: shownHash(blocks),
    };
    return { text: cardText(opening, ending), blocks, metadata: { event_type: eventType, event_payload: carried } };
  }

  async #update(card: Card, opening: Opening, ending?: Ending): Promise<'updated' | 'unchanged'> {
    const shown = shownHash(this.#blocks(opening, ending));
    const isOpen = ending === undefined;
    const next = { ...card, opening, isOpen, shown };
    if (card.shown === shown && card.isOpen === isOpen) {
      this.#known.set(opening.digest, next);
      return 'unchanged';
    }
    try {
      await this.#channel.update(card.ts, this.#content(opening, ending));
    } catch (error) {
      // Somebody deleted it: if it still waits, the next round posts a new one.
      if (!isGone(error)) throw error;
      this.#known.delete(opening.digest);
      return 'unchanged';
    }
    this.#known.set(opening.digest, next);
    return 'updated';
  }

  async #look({ since }: Opening): Promise<Message[]> {
    const at = Date.parse(since);
    const from = Number.isNaN(at) ? Date.now() - 86_400_000 : at;
    const found = await this.#channel.ownSince(from - slackMs, scanPages);
    await this.#adopt(found);
    return found;
  }

  /** Takes up the cards among these messages, oldest first; of two for the same digest the older one stays. */
  async #adopt(messages: readonly Message[]): Promise<void> {
    const first = new Map<string, Card>();
    for (const message of messages) {
      const card = cardOf(message);
      if (card === undefined) continue;
      const { digest } = card.opening;
      if (first.has(digest)) await this.#removeDouble(card);
      else first.set(digest, card);
    }
    for (const [digest, card] of first) {
      const known = this.#known.get(digest);
      if (known?.ts === card.ts) continue;
      this.#known.set(digest, known === undefined ? card : { ...card, opening: known.opening });
    }
  }

  async #removeDouble({ ts }: Card): Promise<void> {
    await this.#channel.remove(ts).catch((error: unknown) => {
      if (!isGone(error)) throw error;
    });
  }
}

function cardOf({ ts, metadata }: Message): Card | undefined {
  if (metadata?.event_type !== eventType) return undefined;
  const carried = Carried.safeParse(metadata.event_payload).data;
  if (carried === undefined) return undefined;
  const { state, shown, ...opening } = carried;
  return { ts, opening: { ...opening, approvedBy: [] }, isOpen: state === 'open', shown };
}

function shownHash(blocks: types.KnownBlock[]): string {
  return sha256Id(canonicalJson(blocks)).slice('sha256:'.length, 'sha256:'.length + 16);
}

function isGone(error: unknown): boolean {
  return error instanceof SlackError && error.code === 'message_not_found';
}
