import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { baseEnvironment, keptKey } from './node-environment.ts';
import { managedProcess, httpAnswers } from './processes.ts';
import { nodeTool } from './python.ts';
import { asRecord, field, rows, text } from './shapes.ts';
import type { Row } from './shapes.ts';
import { freePort, stigmemPython } from './tools.ts';

/** Options of {@link startStigmemNode}. */
export interface StigmemNodeOptions {
  /** Lower-case word; also the host part of the default entity URI. */
  readonly name: string;
  /** The node's own folder: database, log, admin key. Made when missing, taken up again when not. */
  readonly dir: string;
  readonly port?: number;
  /** @default `stigmem://<name>.test` */
  readonly entityUri?: string;
  /** More entities the node's manifest vouches for (subjects of capability tokens). */
  readonly entities?: readonly string[];
  /** true: a quarantine garden with the slug `quarantine` is made and set as the node's own. */
  readonly quarantineGarden?: boolean;
  /** Seconds between two pulls. @default 1 */
  readonly pullIntervalS?: number;
  /** More STIGMEM_ settings; they win over the lab's (rate limits are a million an hour here). */
  readonly env?: Readonly<Record<string, string>>;
}

/** Answer of one request; `body` is parsed JSON, or the text when it is none. */
export interface NodeAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: unknown;
}

/** A real Stigmem node on loopback, on a SQLite file or, when its settings say so, on PostgreSQL. */
export interface StigmemNode {
  readonly name: string;
  readonly url: string;
  readonly port: number;
  readonly dir: string;
  readonly dbPath: string;
  readonly logFile: string;
  /** Permissions admin, write, read, federate, admin:federation; its entity is `entityUri`. */
  readonly adminKey: string;
  readonly nodeId: string;
  readonly entityUri: string;
  /** The whole environment the node runs with. */
  readonly env: Readonly<Record<string, string>>;
  readonly pid: number | undefined;
  readonly running: boolean;
  /** Again on the same database and port, with more STIGMEM_ settings if given (they stay). */
  start(env?: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Permissions: read, write, instruction:write, federate, admin, audit.read. Returns the raw key. */
  issueKey(request: { readonly entityUri: string; readonly permissions: readonly string[] }): Promise<string>;
  /** One HTTP request, with the admin key unless another is given (`null`: none). Never throws on a status. */
  request(method: string, path: string, body?: unknown, key?: string | null): Promise<NodeAnswer>;
  /** Read-only query on its database, running or not. Blobs come as hex. */
  sql(query: string, params?: readonly (string | number | null)[]): Promise<Row[]>;
  /** Writes to its database: fixtures only. */
  exec(script: string): Promise<void>;
}

const ADMIN_PERMISSIONS = ['admin', 'write', 'read', 'federate', 'admin:federation'];
const GARDEN = 'quarantine';

/** Starts the node, gives it an admin key and its manifest (and garden). Throws with the log's tail. */
export async function startStigmemNode(options: StigmemNodeOptions): Promise<StigmemNode> {
  const port = options.port ?? (await freePort());
  const url = `http://127.0.0.1:${port}`;
  mkdirSync(options.dir, { recursive: true });
  const dbPath = join(options.dir, 'stigmem.db');
  const adminKey = keptKey(options.dir);
  const env: Record<string, string> = {
    ...baseEnvironment(options, url, port, dbPath),
    ...(options.quarantineGarden ? { STIGMEM_QUARANTINE_GARDEN_ID: GARDEN } : {}),
    ...options.env,
  };
  const child = managedProcess({
    name: `stigmem node ${options.name}`,
    command: stigmemPython(),
    args: ['-m', 'stigmem_node.main'],
    cwd: options.dir,
    env,
    logFile: join(options.dir, 'node.log'),
    ready: () => httpAnswers(`${url}/healthz`),
  });
  const tool = { env, cwd: options.dir };

  const request = async (method: string, path: string, body?: unknown, key: string | null = adminKey): Promise<NodeAnswer> => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        ...(key === null ? {} : { authorization: `Bearer ${key}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, headers: response.headers, body: parsed(await response.text()) };
  };

  const must = async (method: string, path: string, body: unknown, accepted: readonly number[]): Promise<NodeAnswer> => {
    const answer = await request(method, path, body);
    if (accepted.includes(answer.status)) return answer;
    throw new Error(`${options.name}: ${method} ${path} answered ${answer.status}: ${JSON.stringify(answer.body)}`);
  };

  const bootstrap = async (): Promise<{ nodeId: string; entityUri: string }> => {
    const given = {
      key: adminKey,
      entity_uri: env['STIGMEM_ENTITY_URI'],
      permissions: ADMIN_PERMISSIONS,
      entities: options.entities ?? [],
    };
    const made = asRecord(await nodeTool('bootstrap', given, tool));
    const published = await request('GET', '/.well-known/stigmem-manifest.json');
    if (published.status === 404) await must('PUT', '/v1/federation/manifest', made['manifest'], [200]);
    if (options.quarantineGarden) {
      await must('POST', '/v1/gardens', { slug: GARDEN, name: 'Quarantine', scope: 'company', quarantine: true }, [201, 409]);
    }
    return { nodeId: text(field(made, 'node_id')), entityUri: text(field(made, 'entity_uri')) };
  };

  await child.start();
  const identity = await bootstrap();
  return {
    name: options.name,
    url,
    port,
    dir: options.dir,
    dbPath,
    logFile: child.logFile,
    adminKey,
    ...identity,
    env,
    get pid() {
      return child.pid;
    },
    get running() {
      return child.running;
    },
    async start(more = {}) {
      Object.assign(env, more);
      await child.start();
    },
    stop: () => child.stop(),
    kill: () => child.kill(),
    async issueKey(wanted) {
      const key = randomBytes(32).toString('hex');
      await must('POST', '/v1/auth/keys', { raw_key: key, entity_uri: wanted.entityUri, permissions: wanted.permissions }, [201]);
      return key;
    },
    request,
    sql: async (query, params = []) => rows(await nodeTool('sql', { db: dbPath, query, params }, tool)),
    async exec(script) {
      await nodeTool('exec', { db: dbPath, script }, tool);
    },
  };
}

function parsed(body: string): unknown {
  try {
    const value: unknown = JSON.parse(body);
    return value;
  } catch {
    return body;
  }
}
