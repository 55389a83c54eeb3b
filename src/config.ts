import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { z } from 'zod';
import { Dsn, Environment, Key, secretVariables, variableNames, WebhookUrl, type Values, type VariableName } from './config-keys.ts';

/** Environment variables by name: `process.env`, or a test's own. */
export type Env = Readonly<Record<string, string | undefined>>;

/** The process's own environment, for whoever passes it on. */
export function processEnv(): Env {
  return process.env;
}

/** One thing wrong with the configuration. `got` never holds a secret's value. */
export interface ConfigIssue {
  variable: string;
  expected: string;
  got: string;
}

/** Bad configuration: nothing was connected to, nothing was sent. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly issues: readonly ConfigIssue[];
  constructor(issues: readonly ConfigIssue[]) {
    super(issues.map((i) => `${i.variable}: expected ${i.expected}, got ${i.got}`).join('\n'));
    this.issues = issues;
  }
}

/** How to reach our own node. */
export interface NodeConfig {
  url: string;
  adminKey: string;
}

/** What every command needs: no node, no key. */
export type CliConfig = ReturnType<typeof parseCliConfig>;
/** What `cordon chat` needs. */
export type ChatConfig = ReturnType<typeof parseChatConfig>;
/** How much is logged. */
export type LogLevelName = CliConfig['logLevel'];

const cliNames = ['CORDON_TASK_QUEUE', 'CORDON_HOST_TASK_QUEUE', 'CORDON_EVIDENCE_DIR', 'CORDON_LOG_LEVEL'] as const;
const fileNames = ['CORDON_POLICY_FILE', 'CORDON_CONTACTS_FILE'] as const;
const telemetryNames = ['CORDON_METRICS_LISTEN', 'CORDON_HEALTH_LISTEN', 'CORDON_OTLP_URL'] as const;
const chatNames = [
  'CORDON_LOG_LEVEL',
  'CORDON_CHAT_LISTEN',
  'CORDON_SLACK_BOT_TOKEN',
  'CORDON_SLACK_BOT_TOKEN_FILE',
  'CORDON_SLACK_SIGNING_SECRET',
  'CORDON_SLACK_SIGNING_SECRET_FILE',
  'CORDON_CHAT_CHANNEL',
  'CORDON_CHAT_PEOPLE_FILE',
  'CORDON_CHAT_DECISIONS',
  'CORDON_SLACK_API_URL',
  'CORDON_TEMPORAL_UI_URL',
] as const;
const hostNames = [
  'STIGMEM_STORAGE_BACKEND',
  'STIGMEM_DB_PATH',
  'STIGMEM_PG_DSN',
  'STIGMEM_PG_DSN_FILE',
  'STIGMEM_PG_SCHEMA',
  'STIGMEM_TRUST_MODE',
  'STIGMEM_QUARANTINE_GARDEN_ID',
  'STIGMEM_FEDERATION_PUBKEY',
  'STIGMEM_FEDERATION_PRIVKEY',
  'STIGMEM_FEDERATION_KEY_ROTATION_GRACE_HOURS',
  'CORDON_SNAPSHOT_DIR',
  'CORDON_PROMOTION_COMMAND',
  'CORDON_STIGMEM_BIN',
] as const;
const isHostOnly = (name: string): boolean => hostNames.some((host) => host === name);
const keyNames = ['STIGMEM_URL', 'STIGMEM_ADMIN_KEY', 'STIGMEM_ADMIN_KEY_FILE'] as const;

/** Temporal and evidence only, so that `cordon approve` works on a machine without the node's key. */
export function parseCliConfig(env: Env = processEnv()) {
  const values = read(env, [...cliNames, ...fileNames, ...telemetryNames]);
  return {
    taskQueue: values.CORDON_TASK_QUEUE,
    hostTaskQueue: values.CORDON_HOST_TASK_QUEUE,
    evidenceDir: values.CORDON_EVIDENCE_DIR,
    logLevel: values.CORDON_LOG_LEVEL,
    policyFile: values.CORDON_POLICY_FILE,
    contactsFile: values.CORDON_CONTACTS_FILE,
    metricsListen: values.CORDON_METRICS_LISTEN,
    healthListen: values.CORDON_HEALTH_LISTEN,
    otlpUrl: values.CORDON_OTLP_URL,
  };
}

/** Our node and its key; undefined when STIGMEM_URL or the key is not set at all. */
export function parseNodeConfig(env: Env = processEnv()): NodeConfig | undefined {
  const values = read(env, keyNames);
  const adminKey = secretOf(values, 'STIGMEM_ADMIN_KEY');
  if (values.STIGMEM_URL === undefined || adminKey === undefined) return undefined;
  return { url: values.STIGMEM_URL, adminKey };
}

/** Everything the worker needs. Throws {@link ConfigError} before anything connects. */
export function parseWorkerConfig(env: Env = processEnv()) {
  // A worker beside the node has the node's variables around it, and those are not its business.
  const values = read(
    env,
    variableNames.filter((name): name is Exclude<VariableName, (typeof hostNames)[number]> => !isHostOnly(name)),
  );
  const node = parseNodeConfig(env);
  if (node === undefined) {
    const missing = values.STIGMEM_URL === undefined ? 'STIGMEM_URL' : 'STIGMEM_ADMIN_KEY or STIGMEM_ADMIN_KEY_FILE';
    throw new ConfigError([{ variable: missing, expected: 'a value: the worker needs it', got: 'nothing' }]);
  }
  return {
    ...parseCliConfig(env),
    node,
    agentKey: secretOf(values, 'CORDON_AGENT_KEY'),
    webhookUrl: secretOf(values, 'CORDON_WEBHOOK_URL', WebhookUrl),
    peerAllow: values.CORDON_PEER_ALLOW,
    concurrency: values.CORDON_CONCURRENCY,
    writesPerHour: values.CORDON_WRITES_PER_HOUR,
    writeHeadroom: values.CORDON_WRITE_HEADROOM,
  };
}

/** Everything `cordon host-worker` needs: the node's database, and no key of the node. Throws {@link ConfigError} before anything connects. */
export function parseHostConfig(env: Env = processEnv()) {
  const values = read(env, [...hostNames, 'CORDON_PEER_ALLOW']);
  const { STIGMEM_FEDERATION_PUBKEY: ourPublic, STIGMEM_FEDERATION_PRIVKEY: ourPrivate } = values;
  const dsn = secretOf(values, 'STIGMEM_PG_DSN', Dsn);
  const { STIGMEM_DB_PATH: dbPath, STIGMEM_PG_SCHEMA: schema, STIGMEM_STORAGE_BACKEND: backend } = values;
  const database =
    backend === 'postgres'
      ? { kind: 'postgres' as const, dsn: needed(dsn, 'STIGMEM_PG_DSN or STIGMEM_PG_DSN_FILE', 'the host worker'), schema }
      : { kind: 'sqlite' as const, path: resolve(needed(dbPath, 'STIGMEM_DB_PATH', 'the host worker')) };
  const stigmem = values.CORDON_STIGMEM_BIN ?? 'stigmem';
  const dir = values.CORDON_SNAPSHOT_DIR;
  return {
    ...parseCliConfig(env),
    database,
    dsn,
    trust: { mode: values.STIGMEM_TRUST_MODE, quarantineGarden: values.STIGMEM_QUARANTINE_GARDEN_ID },
    snapshot: dir === undefined ? undefined : { stigmem, dir: resolve(dir), env: { ...nodeEnv(env), ...dbPathOf(database) } },
    promotionCommand: values.CORDON_PROMOTION_COMMAND,
    federation: {
      // The node takes both or neither (federation/peer_token.py).
      privateKey: ourPublic === undefined ? undefined : ourPrivate,
      graceHours: values.STIGMEM_FEDERATION_KEY_ROTATION_GRACE_HOURS,
      peerAllow: values.CORDON_PEER_ALLOW,
    },
  };
}

/** The node's command runs in another folder. */
function dbPathOf(database: { readonly kind: string; readonly path?: string }): Record<string, string> {
  return database.path === undefined ? {} : { STIGMEM_DB_PATH: database.path };
}

/** What the node's own command runs with: the node's variables and where programs are, nothing of ours. */
function nodeEnv(env: Env): Record<string, string> {
  const wanted = (name: string): boolean => name.startsWith('STIGMEM_') || ['PATH', 'HOME', 'LANG', 'TMPDIR'].includes(name);
  return Object.fromEntries(Object.entries(env).flatMap(([name, value]) => (value !== undefined && wanted(name) ? [[name, value]] : [])));
}

/** Everything `cordon chat` needs, the node's key not among it. Throws {@link ConfigError} before anything connects. */
export function parseChatConfig(env: Env = processEnv()) {
  const values = read(env, chatNames);
  const botToken = needed(secretOf(values, 'CORDON_SLACK_BOT_TOKEN'), 'CORDON_SLACK_BOT_TOKEN or CORDON_SLACK_BOT_TOKEN_FILE');
  const signingSecret = needed(
    secretOf(values, 'CORDON_SLACK_SIGNING_SECRET'),
    'CORDON_SLACK_SIGNING_SECRET or CORDON_SLACK_SIGNING_SECRET_FILE',
  );
  return {
    listen: values.CORDON_CHAT_LISTEN,
    botToken,
    signingSecret,
    channel: needed(values.CORDON_CHAT_CHANNEL, 'CORDON_CHAT_CHANNEL'),
    peopleFile: needed(values.CORDON_CHAT_PEOPLE_FILE, 'CORDON_CHAT_PEOPLE_FILE'),
    decisions: values.CORDON_CHAT_DECISIONS === 'on',
    slackApiUrl: values.CORDON_SLACK_API_URL,
    temporalUiUrl: values.CORDON_TEMPORAL_UI_URL,
    logLevel: values.CORDON_LOG_LEVEL,
  };
}

function needed<T>(value: T | undefined, variable: string, who = 'chat'): T {
  if (value !== undefined) return value;
  throw new ConfigError([{ variable, expected: `a value: ${who} needs it`, got: 'nothing' }]);
}

/** Checks the wanted variables, and that no variable under our prefix is unknown. Empty means not set. */
function read<N extends VariableName>(env: Env, wanted: readonly N[]): Pick<Values, N> {
  const picked = Object.entries(env).filter(
    ([name, value]) => value !== undefined && value !== '' && (wanted.some((w) => w === name) || isUnknown(name)),
  );
  const parsed = Environment.safeParse(Object.fromEntries(picked));
  if (parsed.success) return parsed.data;
  throw new ConfigError(parsed.error.issues.flatMap((issue) => explain(issue, env)));
}

function isUnknown(name: string): boolean {
  return name.startsWith('CORDON_') && !variableNames.some((known) => known === name);
}

function explain(issue: z.core.$ZodIssue, env: Env): ConfigIssue[] {
  if (issue.code === 'unrecognized_keys') {
    const expected = 'only the variables of docs/reference/config.md under CORDON_ (unset it, or correct its name)';
    return issue.keys.map((variable) => ({ variable, expected, got: 'a variable cordon does not know' }));
  }
  const variable = String(issue.path[0]);
  const hidden = secretVariables.has(variable) ? 'another value (not shown)' : undefined;
  return [{ variable, expected: issue.message, got: hidden ?? JSON.stringify(withoutSecrets(env[variable]).slice(0, 120)) }];
}

/** What a person may have put into a URL by mistake: a password, a token in the query. */
function withoutSecrets(text = ''): string {
  return text.replace(/\/\/[^@/]*@/, '//…@').replace(/[?#].*$/s, '?…');
}

type Secret =
  | 'STIGMEM_PG_DSN'
  | 'STIGMEM_ADMIN_KEY'
  | 'CORDON_AGENT_KEY'
  | 'CORDON_WEBHOOK_URL'
  | 'CORDON_SLACK_BOT_TOKEN'
  | 'CORDON_SLACK_SIGNING_SECRET';

/** A secret given directly or in a file, never both. */
function secretOf(values: Partial<Values>, name: Secret, schema: z.ZodType<string> = Key): string | undefined {
  const file = values[`${name}_FILE`];
  if (file === undefined) return values[name];
  const wrong = (expected: string, got: string) => new ConfigError([{ variable: `${name}_FILE`, expected, got }]);
  if (values[name] !== undefined) throw wrong(`nothing while ${name} is set`, 'both');
  let text: string;
  try {
    text = readFileSync(file, 'utf8').trim();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'an error';
    throw wrong('a readable file', `${code} for ${JSON.stringify(file)}`);
  }
  if (schema.safeParse(text).success) return text;
  const what = name === 'CORDON_WEBHOOK_URL' ? 'http or https URL' : name === 'STIGMEM_PG_DSN' ? 'PostgreSQL URL' : 'key';
  throw wrong(`a file with one ${what} and nothing else`, 'another content (not shown)');
}
