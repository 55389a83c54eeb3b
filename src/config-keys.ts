import ipaddr from 'ipaddr.js';
import { z } from 'zod';
import { defaultHostTaskQueue, defaultTaskQueue } from './contract/names.ts';

function isBaseUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, search, hash } = new URL(text);
  return /^https?:$/.test(protocol) && `${username}${password}${search}${hash}` === '';
}

function isPeerPlace(text: string): boolean {
  if (text === 'loopback' || ipaddr.isValid(text) || ipaddr.isValidCIDR(text)) return true;
  return /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/i.test(text);
}

const inRange = (min: number, max: number, value: number) => value >= min && value <= max;
const Path = z.string().max(4_096, 'a path of at most 4096 characters');

/** A bearer key, as it may stand in a header. */
export const Key = z.string().regex(/^[\x21-\x7e]{1,4096}$/, 'a key: printable characters without spaces');

/** A node's PostgreSQL database: it holds a password. */
export const Dsn = z
  .string()
  .refine(
    (text) => URL.canParse(text) && /^postgres(ql)?:$/.test(new URL(text).protocol),
    'a URL, postgresql://user:password@host:port/database',
  );

/** Where notices are posted: the URL itself is the right to post there. */
export const WebhookUrl = z
  .string()
  .refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol), 'an http or https URL');
const Queue = z.string().regex(/^[\w.:-]{1,200}$/, 'a task queue name: up to 200 letters, digits and . : - _');
/** `host:port`; port 0 takes a free one. */
const Listen = z
  .string()
  .refine((t) => /^(\[[0-9a-f:]+\]|[\w.-]+):[0-9]{1,5}$/i.test(t) && inRange(0, 65_535, Number(t.slice(t.lastIndexOf(':') + 1))), {
    message: 'host:port, like 127.0.0.1:9464',
  });
const whole = (min: number, max: number) =>
  z
    .string()
    .refine((t) => /^[0-9]{1,9}$/.test(t) && inRange(min, max, Number(t)), `a whole number from ${min} to ${max}`)
    .transform(Number);

// Every message completes "expected …". Descriptions and defaults are what docs/reference/config.md shows.
const shape = {
  STIGMEM_URL: z
    .string()
    .refine(isBaseUrl, 'an http or https URL without user, query or fragment, like http://127.0.0.1:8801')
    .transform((text) => text.replace(/\/+$/, ''))
    .optional()
    .describe('Base URL of our own Stigmem node. The worker needs it; `start` and `doctor` use it when it is there.'),
  STIGMEM_ADMIN_KEY: Key.optional().describe("The node's admin key. Never written anywhere."),
  STIGMEM_ADMIN_KEY_FILE: Path.optional().describe('File that holds the admin key, instead of STIGMEM_ADMIN_KEY.'),
  CORDON_AGENT_KEY: Key.optional().describe("An ordinary agent's key, to ask the node what an agent gets to see."),
  CORDON_AGENT_KEY_FILE: Path.optional().describe("File that holds the agent's key, instead of CORDON_AGENT_KEY."),
  STIGMEM_STORAGE_BACKEND: z
    .enum(['sqlite', 'postgres'], 'sqlite or postgres (libsql replicas are not supported)')
    .default('sqlite')
    .describe('Host worker: what the node keeps its facts in, as the node reads it itself.'),
  STIGMEM_DB_PATH: Path.optional().describe("Host worker: the node's SQLite file, as the node reads it itself."),
  STIGMEM_PG_DSN: Dsn.optional().describe("Host worker: the node's PostgreSQL database, as a URL. Never written anywhere."),
  STIGMEM_PG_DSN_FILE: Path.optional().describe('File that holds that URL, instead of STIGMEM_PG_DSN.'),
  STIGMEM_PG_SCHEMA: z
    .string()
    .regex(/^[a-z][a-z0-9_]{0,62}$/, 'a lower-case name')
    .default('public')
    .describe('Host worker: the schema in that database, as the node reads it itself.'),
  STIGMEM_TRUST_MODE: z
    .string()
    .regex(/^[a-z]{1,30}$/, 'a lower-case word like relaxed or strict')
    .default('relaxed')
    .describe('Host worker: how the node judges trust, as it reads it itself: rules lower nothing unless strict.'),
  STIGMEM_QUARANTINE_GARDEN_ID: z
    .string()
    .max(300, 'an id of at most 300 characters')
    .optional()
    .describe('Host worker: where the node quarantines, as it reads it itself.'),
  STIGMEM_FEDERATION_PUBKEY: Key.optional().describe('Host worker: with STIGMEM_FEDERATION_PRIVKEY, as the node reads it itself.'),
  STIGMEM_FEDERATION_PRIVKEY: Key.optional().describe(
    "Host worker: the node's federation key, where it does not keep one in its database. To ask a fenced peer what waits. Never written anywhere.",
  ),
  STIGMEM_FEDERATION_KEY_ROTATION_GRACE_HOURS: z.coerce
    .number('a whole number of hours')
    .int('a whole number of hours')
    .min(0, 'a whole number of hours')
    .default(168)
    .describe('Host worker: how long the node takes facts signed with a key that was rotated away, as it reads it itself.'),
  CORDON_SNAPSHOT_DIR: Path.optional().describe(
    'Host worker: folder for a signed copy of the node (SQLite) before the first change. It holds all the node knows, its private key too. None is taken if not set.',
  ),
  CORDON_PROMOTION_COMMAND: Path.optional().describe(
    'Host worker: program that is called with `pause`, `resume` or `status` (prints `paused` or `running`) for promotion from quarantine.',
  ),
  CORDON_TASK_QUEUE: Queue.default(defaultTaskQueue).describe('Task queue of the worker.'),
  CORDON_HOST_TASK_QUEUE: Queue.default(defaultHostTaskQueue).describe("Task queue of the node's host worker."),
  CORDON_EVIDENCE_DIR: Path.default('./evidence').describe('Folder of the evidence, one folder below it per incident.'),
  CORDON_POLICY_FILE: Path.optional().describe('Policy as YAML or JSON: who may decide, what counts as suspicious.'),
  CORDON_CONTACTS_FILE: Path.optional().describe('Contacts as YAML or JSON: whom the notices are for.'),
  CORDON_WEBHOOK_URL: WebhookUrl.optional().describe('Notices are posted here as well. Treated as a secret.'),
  CORDON_WEBHOOK_URL_FILE: Path.optional().describe('File that holds that URL, instead of CORDON_WEBHOOK_URL.'),
  CORDON_CHAT_LISTEN: Listen.default('127.0.0.1:3000').describe(
    'Where `cordon chat` listens: `POST /slack/events` for all that Slack sends, `GET /healthz`.',
  ),
  CORDON_SLACK_BOT_TOKEN: Key.optional().describe("Chat: the Slack app's bot token. Never written anywhere."),
  CORDON_SLACK_BOT_TOKEN_FILE: Path.optional().describe('File that holds the bot token, instead of CORDON_SLACK_BOT_TOKEN.'),
  CORDON_SLACK_SIGNING_SECRET: Key.optional().describe("Chat: the Slack app's signing secret. Never written anywhere."),
  CORDON_SLACK_SIGNING_SECRET_FILE: Path.optional().describe('File that holds the signing secret, instead of CORDON_SLACK_SIGNING_SECRET.'),
  CORDON_CHAT_CHANNEL: z
    .string()
    .regex(/^[CDG][A-Z0-9]{1,30}$/, "a Slack channel's id, like C0123ABCD (its name is not enough)")
    .optional()
    .describe('Chat: id of the channel the cards go to.'),
  CORDON_CHAT_PEOPLE_FILE: Path.optional().describe('Chat: who is who, as YAML or JSON: Slack user id to name. Read for each request.'),
  CORDON_CHAT_DECISIONS: z
    .enum(['on', 'off'], 'on or off')
    .default('on')
    .describe('Chat: `on`: an approval or rejection in Slack counts; `off`: chat only tells.'),
  CORDON_SLACK_API_URL: z
    .string()
    .refine(isBaseUrl, 'an http or https URL without user, query or fragment')
    .optional()
    .describe("Chat: another Web API than Slack's own, for tests and compatible servers."),
  CORDON_TEMPORAL_UI_URL: z
    .string()
    .refine(isBaseUrl, 'an http or https URL without user, query or fragment, like http://127.0.0.1:8233')
    .transform((text) => text.replace(/\/+$/, ''))
    .optional()
    .describe('Base URL of the Temporal Web UI: cards in chat link to it.'),
  CORDON_PEER_ALLOW: z
    .string()
    .transform((text) => text.split(',').flatMap((part) => (part.trim() === '' ? [] : [part.trim()])))
    .refine((parts) => parts.every(isPeerPlace), 'a comma list of `loopback`, host names, IP addresses and CIDRs')
    .default([])
    .describe("Where a peer's own endpoints may be read although the address is not public; the host worker reads it too."),
  CORDON_LOG_LEVEL: z
    .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], 'fatal, error, warn, info, debug, trace or silent')
    .default('info')
    .describe('How much the worker logs.'),
  CORDON_METRICS_LISTEN: Listen.optional().describe(
    'Where the worker serves Prometheus metrics: `host:port`, path `/metrics`. Off if not set.',
  ),
  CORDON_HEALTH_LISTEN: Listen.optional().describe(
    'Where the worker serves `GET /healthz`: 200 while it runs and reaches Temporal, else 503. `host:port`; off if not set.',
  ),
  CORDON_OTLP_URL: z
    .string()
    .refine(isBaseUrl, 'an http or https URL without user, query or fragment, like http://127.0.0.1:4318')
    .transform((text) => text.replace(/\/+$/, ''))
    .optional()
    .describe('OpenTelemetry collector that takes traces by OTLP over HTTP; `/v1/traces` is added. Off if not set.'),
  CORDON_CONCURRENCY: whole(1, 64).default(4).describe('Writes to the node at the same time.'),
  CORDON_WRITES_PER_HOUR: whole(1, 10_000_000).default(1_000).describe("The node's own limit of writes in an hour."),
  CORDON_WRITE_HEADROOM: z
    .string()
    .refine((t) => /^[0-9]*\.?[0-9]+$/.test(t) && inRange(0, 0.9, Number(t)), 'a share from 0 to 0.9')
    .transform(Number)
    .default(0.1)
    .describe('Share of that limit kept free for fences.'),
  CORDON_PYTHON: Path.optional().describe('Set-up: the Python (3.11 or newer) to make the environment with.'),
  CORDON_TEMPORAL_BIN: Path.optional().describe('Set-up and tests: a `temporal` executable of your own.'),
  CORDON_TEMPORAL_TEST_SERVER_BIN: Path.optional().describe('Set-up and tests: a `temporal-test-server` of your own.'),
  CORDON_POSTGRES_BIN: Path.optional().describe("Set-up and tests: the folder of a PostgreSQL's programs of your own."),
  CORDON_STIGMEM_BIN: Path.optional().describe(
    'A `stigmem` executable of your own: for set-up and tests, and for the copy the host worker takes.',
  ),
};

/** The environment cordon reads. Everything is optional here; who needs what is decided in config.ts. */
export const Environment = z.strictObject(shape);
export type Values = z.infer<typeof Environment>;
export type VariableName = keyof Values;
export const variableNames = z.keyof(Environment).options;

/** Variables whose value is never shown. */
export const secretVariables: ReadonlySet<string> = new Set([
  'STIGMEM_ADMIN_KEY',
  'STIGMEM_PG_DSN',
  'STIGMEM_FEDERATION_PRIVKEY',
  'CORDON_AGENT_KEY',
  'CORDON_WEBHOOK_URL',
  'CORDON_SLACK_BOT_TOKEN',
  'CORDON_SLACK_SIGNING_SECRET',
]);

/** Every variable with its default and what it is for: the rows of docs/reference/config.md. */
export const configKeys: readonly { name: string; default: string; description: string }[] = variableNames.map((name) => {
  const value = shape[name].parse(undefined);
  const text = value === undefined || Array.isArray(value) ? '' : String(value);
  return { name, default: text, description: shape[name].description ?? '' };
});
