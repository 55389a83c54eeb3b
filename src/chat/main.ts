import { once } from 'node:events';
import { ConfigError, parseChatConfig, type Env } from '../config.ts';
import { splitListen } from '../observe/listen.ts';
import { createLog } from '../observe/log.ts';
import { scrubberOf } from '../observe/scrub.ts';
import { loadTemporalSettings } from '../temporal.ts';
import { ChatApp } from './app.ts';
import { Cards } from './cards.ts';
import { Decisions } from './decide.ts';
import { boltLog } from './log.ts';
import { loadPeople, PeopleError } from './people.ts';
import { chatServer, type Health } from './server.ts';
import { SignatureCheck } from './signature.ts';
import { Channel } from './slack.ts';
import { LazyTemporal } from './temporal.ts';
import { Watch } from './watch.ts';

/** How long what was acknowledged may take to be answered once chat was told to stop. */
const graceMs = 10_000;

/**
 * Runs chat until SIGINT or SIGTERM. Bad configuration ends it before anything connects; a Temporal server or a Slack
 * that does not answer does not: it is tried again, and `GET /healthz` says so.
 */
export async function runChat(env: Env): Promise<void> {
  const config = parseChatConfig(env);
  const settings = loadTemporalSettings(env);
  await loadPeople(config.peopleFile).catch((error: unknown) => {
    if (!(error instanceof PeopleError)) throw error;
    throw new ConfigError([{ variable: 'CORDON_CHAT_PEOPLE_FILE', expected: 'Slack user ids and names', got: error.message }]);
  });
  const log = createLog(config.logLevel, scrubberOf([config.botToken, config.signingSecret, settings.connectionOptions.apiKey]), {
    service: 'cordon-chat',
  });
  const temporal = new LazyTemporal(settings);
  const card = { decisions: config.decisions, uiUrl: config.temporalUiUrl, namespace: settings.namespace };
  const { botToken: token, slackApiUrl: apiUrl, channel } = config;
  const cards = new Cards(new Channel({ token, apiUrl, channel, logger: boltLog(log) }), card);
  const watch = new Watch({ temporal, cards, log });
  const app = new ChatApp({ config, env, temporal, decisions: new Decisions(temporal, card, log), watch, log });
  const health = (): Health => ({ ok: watch.temporal === 'ok' && watch.slack === 'ok', temporal: watch.temporal, slack: watch.slack });
  const server = chatServer({ signatures: new SignatureCheck(config.signingSecret), bolt: app.listener, health, log });
  const { host, port } = splitListen(config.listen);
  server.listen(port, host);
  await once(server, 'listening');
  const { address, namespace } = settings;
  log.info({ listen: server.address(), address, namespace, channel, decisions: config.decisions }, 'cordon chat is ready');
  watch.start();
  await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]);
  log.info('stopping');
  server.close();
  server.closeIdleConnections();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, graceMs);
  });
  await Promise.race([Promise.all([app.quiet(), watch.stop()]), late]);
  clearTimeout(timer);
  server.closeAllConnections();
  await temporal.close();
}
