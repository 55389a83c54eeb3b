import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { repoRoot } from '../../src/lab/tools.ts';

// docker-compose.yml as an engine would take it: merged, interpolated, checked. Only the parts and forms that
// our file uses; anything else is an error here, so that a test never overlooks it.

const Text = z.union([z.string(), z.number(), z.boolean()]).transform(String);
const Condition = z.enum(['service_started', 'service_healthy', 'service_completed_successfully']);
const Service = z.strictObject({
  image: z.string(),
  build: z.strictObject({ context: z.string(), dockerfile: z.string().default('Dockerfile') }).optional(),
  user: z.string().optional(),
  entrypoint: z.array(z.string()).optional(),
  command: z.array(z.string()).optional(),
  environment: z.record(z.string(), Text).default({}),
  secrets: z.array(z.string()).default([]),
  volumes: z.array(z.string()).default([]),
  tmpfs: z.array(z.string()).default([]),
  networks: z.array(z.string()).default([]),
  ports: z.array(z.string()).default([]),
  extra_hosts: z.array(z.string()).default([]),
  profiles: z.array(z.string()).default([]),
  depends_on: z.record(z.string(), z.strictObject({ condition: Condition, required: z.boolean().default(true) })).default({}),
  healthcheck: z
    .strictObject({ test: z.array(z.string()), interval: z.string(), timeout: z.string(), retries: z.number(), start_period: z.string() })
    .optional(),
  read_only: z.boolean().default(false),
  cap_drop: z.array(z.string()).default([]),
  security_opt: z.array(z.string()).default([]),
  init: z.boolean().default(false),
  pids_limit: z.number().optional(),
  restart: z.string().optional(),
  shm_size: z.string().optional(),
  stop_grace_period: z.string().optional(),
  logging: z.strictObject({ driver: z.string(), options: z.record(z.string(), z.string()) }).optional(),
});
const Project = z.object({
  name: z.string(),
  services: z.record(z.string(), Service),
  networks: z.record(z.string(), z.strictObject({ internal: z.boolean().optional() })),
  volumes: z.record(z.string(), z.strictObject({})),
  secrets: z.record(z.string(), z.strictObject({ file: z.string() })),
});

export type ComposeService = z.infer<typeof Service>;
export type ComposeProject = z.infer<typeof Project>;

export const composeText: string = readFileSync(join(repoRoot, 'docker-compose.yml'), 'utf8');

const variable = /\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\})/g;

/** Every variable the text takes from outside, with its default (undefined: none). */
export function composeVariables(text: string = composeText): Map<string, string | undefined> {
  const found = [...text.matchAll(variable)].filter(([, dollar]) => dollar === undefined);
  return new Map(found.map(([, , name = '', kind, rest]) => [name, kind === '-' ? rest : undefined]));
}

/** The project with these variables; throws where one is missing that has to be set. */
export function composeProject(env: Readonly<Record<string, string>>): ComposeProject {
  return Project.parse(interpolated(parse(composeText, { merge: true }), env));
}

/** Scalars only, after the parsing: what a variable holds never becomes structure. */
function interpolated(value: unknown, env: Readonly<Record<string, string>>): unknown {
  if (Array.isArray(value)) return value.map((each) => interpolated(each, env));
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, interpolated(inner, env)]));
  }
  if (typeof value !== 'string') return value;
  return value.replace(variable, (_whole: string, dollar?: string, name: string = '', kind?: string, rest: string = '') => {
    if (dollar !== undefined) return '$';
    const given = env[name] ?? '';
    if (given !== '' || kind === undefined) return given;
    if (kind === '-') return rest;
    throw new Error(`${name}: ${rest}`);
  });
}

/** Services in an order in which each comes after those it depends on; throws on a circle. */
export function startOrder(services: Readonly<Record<string, ComposeService>>): string[] {
  const done: string[] = [];
  const visit = (name: string, path: readonly string[]): void => {
    if (done.includes(name)) return;
    if (path.includes(name)) throw new Error(`a circle: ${[...path, name].join(' -> ')}`);
    for (const needed of Object.keys(services[name]?.depends_on ?? {})) if (services[needed] !== undefined) visit(needed, [...path, name]);
    done.push(name);
  };
  for (const name of Object.keys(services)) visit(name, []);
  return done;
}
