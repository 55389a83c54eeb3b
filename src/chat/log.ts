import { LogLevel, type Logger as BoltLogger } from '@slack/bolt';
import { pino, type Logger } from 'pino';

/** One JSON line each; incident, gate and person stand beside the message where there are any. */
export function chatLog(level: string): Logger {
  return pino({ level, base: { service: 'cordon-chat' } });
}

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
