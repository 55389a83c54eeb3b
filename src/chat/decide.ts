import type { types } from '@slack/bolt';
import type { Logger } from 'pino';
import { CliError } from '../cli/exit.ts';
import { checked } from '../cli/input.ts';
import { sameId, sendDecision } from '../cli/send-decision.ts';
import { Decision, type DecisionAnswer } from '../contract/schemas.ts';
import { DeadlineExceeded, isUnreachable, TemporalUnreachable } from '../temporal.ts';
import { printed, section } from './blocks.ts';
import { cardBlocks, type CardOptions } from './card.ts';
import { chatPatience, openingsOf } from './openings.ts';
import type { LazyTemporal } from './temporal.ts';

/** What somebody in Slack decided, and what it is known by: the same `click` is the same decision. */
export interface Decided {
  readonly user: string;
  readonly incident: string;
  readonly payload: Decision;
  readonly click: unknown;
}

/** What they alone get to read. */
export interface Reply {
  readonly text: string;
  readonly blocks: types.KnownBlock[];
}

/** Sends decisions from chat to their incidents, and words what came of it. */
export class Decisions {
  readonly #temporal: LazyTemporal;
  readonly #card: CardOptions;
  readonly #log: Logger;
  /** What is under way, by its id: a second click meanwhile waits for the same answer. */
  readonly #underWay = new Map<string, Promise<Reply>>();

  constructor(temporal: LazyTemporal, card: CardOptions, log: Logger) {
    this.#temporal = temporal;
    this.#card = card;
    this.#log = log;
  }

  /** Never throws: what went wrong is an answer too. */
  async send(decided: Decided): Promise<Reply> {
    const updateId = sameId('slack', decided.click);
    const known = this.#underWay.get(updateId);
    if (known !== undefined) return await known;
    const answer = this.#answer(decided, updateId).finally(() => this.#underWay.delete(updateId));
    this.#underWay.set(updateId, answer);
    return await answer;
  }

  async #answer({ user, incident, payload }: Decided, updateId: string): Promise<Reply> {
    const log = this.#log.child({ incident, gate: payload.gate, decision: payload.decision, by: payload.by, slackUser: user });
    const about = `your ${payload.decision} of gate ${payload.gate}`;
    try {
      const decision = checked(Decision, payload, 'the decision');
      const session = await this.#temporal.sessionAs(user);
      const verdict = await sendDecision(session, incident, decision, updateId, chatPatience);
      if (verdict === undefined) {
        log.warn('no worker answered: sent as a signal');
        return say(
          `UNCONFIRMED: ${about} was sent as a signal; no worker answered.\nIt stands in the history and counts, or is refused, when a worker runs. Doing it again does no harm.`,
        );
      }
      log.info({ accepted: verdict.accepted, refusedBecause: verdict.refusedBecause }, 'decision answered');
      return verdict.accepted ? say(counted(decision, verdict)) : await this.#refused(decision, incident, verdict);
    } catch (error) {
      log.warn({ reason: error instanceof Error ? error.message : String(error) }, 'decision without a verdict');
      return say(failure(about, error));
    }
  }

  /** Says why nothing counted, and shows what waits instead. */
  async #refused({ gate }: Decision, incident: string, verdict: DecisionAnswer): Promise<Reply> {
    const because = verdict.refusedBecause ?? 'no reason given';
    const said = say(
      [
        `REFUSED (${because}): nothing was counted for gate ${gate} (${verdict.have} of ${verdict.need} approvals).`,
        ...(verdict.detail === undefined ? [] : [verdict.detail]),
        ...(because === 'stale_digest'
          ? ['The plan, its opening or the run is another one now. Read the new card before you decide.']
          : []),
      ].join('\n'),
    );
    if (because !== 'stale_digest' && because !== 'not_open') return said;
    const session = await this.#temporal.session();
    const waiting = await openingsOf(session, incident).catch(() => undefined);
    const now = waiting?.find((opening) => opening.gate === gate);
    if (now === undefined) return said;
    return { ...said, blocks: [...said.blocks, ...cardBlocks(now, this.#card)] };
  }
}

function counted({ decision, gate, by }: Decision, { have, need }: DecisionAnswer): string {
  return `Counted: ${decision} of gate ${gate} by ${by} (${have} of ${need} approvals).`;
}

/** What went wrong, and whether the decision may have got through. */
function failure(about: string, error: unknown): string {
  if (error instanceof CliError) return `${error.exit === 'unconfirmed' ? 'UNCONFIRMED: ' : ''}${error.message}.`;
  if (error instanceof TemporalUnreachable) return `NOT SENT: Temporal does not answer. ${about} went nowhere: do it again when it does.`;
  if (error instanceof DeadlineExceeded || isUnreachable(error)) {
    return `UNCONFIRMED: Temporal did not answer in time, so it is not known whether ${about} arrived.\nDo it again in a while: it counts once, however often it is sent.`;
  }
  return `FAILED: ${about}: chat could not make sense of what came back; cordon show says whether it counted.`;
}

/** A short answer in our own words and the incident's; the fallback has none of either. */
export function say(text: string): Reply {
  return { text: 'cordon', blocks: [section(text)] };
}

/** What a command printed. */
export function show(text: string): Reply {
  return { text: 'cordon', blocks: printed(text) };
}
