import { LogLevel, type Logger as BoltLogger } from '@slack/bolt';
import type { Logger } from 'pino';

/** What Bolt and its client say, in our log. What they say for debugging holds whole requests: left out. */
export function boltLog(log: Logger): BoltLogger {
  const text = (words: unknown[]) => words.map((word) => (word instanceof Error ? word.message : String(word))).join(' ');
  return {
    debug: () => undefined,
    info: (...words: unknown[]) => log.debug(text(words)),
    warn: (...words: unknown[]) => log.warn(text(words)),
    error: (...words: unknown[]) => log.error(text(words)),
    setLevel: () => undefined,
    getLevel: () => LogLevel.INFO,
    setName: () => undefined,
  };
}
