import { DefaultLogger } from '@temporalio/worker';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { bundleWorkflows } from '../src/bundle-workflows.ts';

// Facts about the repository itself: what no type and no other test would notice.

const root = resolve(fileURLToPath(new URL('..', import.meta.url)));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: root, encoding: 'utf8' })
  .split('\n')
  .filter((path) => path !== '' && existsSync(join(root, path)));
const typescript = files.filter((path) => path.endsWith('.ts'));
const documents = files.filter((path) => path.endsWith('.md'));

/** Offenders as `file: what`, so that a failure names them. */
const offenders = (paths: readonly string[], wrong: (text: string, path: string) => readonly string[]): string[] =>
  paths.flatMap((path) => wrong(read(path), path).map((what) => `${path}: ${what}`));

interface Import {
  readonly from: string;
  readonly typeOnly: boolean;
}

/** What a file imports; relative specifiers as paths from the root. */
function importsOf(path: string): Import[] {
  const statement = /^(?:import|export)\s+(type\s)?((?:[^;'"]*?)\sfrom\s+)?'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm;
  return [...read(path).matchAll(statement)].map(([, type, names = '', from, dynamic]) => {
    const specifier = from ?? dynamic ?? '';
    const inner =
      /\{([^}]*)\}/
        .exec(names)?.[1]
        ?.split(',')
        .map((name) => name.trim())
        .filter((name) => name !== '') ?? [];
    const typeOnly =
      type !== undefined || (inner.length > 0 && !/^[\w*]/.test(names.trim()) && inner.every((name) => name.startsWith('type ')));
    return { from: specifier.startsWith('.') ? normalize(join(dirname(path), specifier)) : specifier, typeOnly };
  });
}

interface Boundary {
  readonly of: string;
  readonly folder: RegExp;
  readonly allowed: RegExp;
  /** Allowed too, but by type only. */
  readonly types?: RegExp;
}

const node = String.raw`node:[\w/]+`;
const boundaries: readonly Boundary[] = [
  {
    of: 'workflows',
    folder: /^workflows\//,
    allowed: /^(@temporalio\/(workflow|common)|workflows\/.*|src\/contract\/.*|src\/payload-converter\.ts)$/,
    types: /^(activities\/(host\/)?index\.ts|zod)$/,
  },
  {
    of: 'activities',
    folder: /^activities\//,
    allowed: new RegExp(
      `^(@temporalio/(activity|common|client)|zod|${node}|activities/.*|src/(contract|stigmem|host|evidence|policy|notify|audit)/.*)$`,
    ),
  },
  { of: 'messages.ts of the contract', folder: /^src\/contract\/messages\.ts$/, allowed: /^(@temporalio\/workflow|src\/contract\/.*)$/ },
  { of: 'src/contract', folder: /^src\/contract\/(?!messages\.ts)/, allowed: /^(zod|@noble\/hashes\/.*|src\/contract\/.*)$/ },
  { of: 'src/stigmem', folder: /^src\/stigmem\//, allowed: new RegExp(`^(undici|zod|ipaddr\\.js|${node}|src/stigmem/.*)$`) },
  { of: 'src/evidence', folder: /^src\/evidence\//, allowed: new RegExp(`^(zod|${node}|src/evidence/.*|src/contract/canonical\\.ts)$`) },
  { of: 'src/policy', folder: /^src\/policy\//, allowed: new RegExp(`^(zod|yaml|${node}|src/(policy|contract|stigmem)/.*)$`) },
  {
    of: 'src/observe',
    folder: /^src\/observe\//,
    allowed: new RegExp(`^(@temporalio/(common|worker)|@opentelemetry/.*|pino|zod|${node}|src/(observe|contract)/.*)$`),
    types: /^(@temporalio\/(activity|client)|activities\/(host\/)?index\.ts|src\/config\.ts)$/,
  },
  {
    of: 'src/cli, src/chat, src/audit, src/notify',
    folder: /^src\/(cli|chat|audit|notify)\//,
    allowed: /^(?!workflows\/|activities\/|src\/lab\/|@temporalio\/(workflow|worker|testing))/,
    types: /^workflows\//,
  },
];

describe('imports', () => {
  test.each(boundaries)('$of imports only what it may', ({ folder, allowed, types }) => {
    const own = typescript.filter((path) => folder.test(path));
    expect(own.length).toBeGreaterThan(0);
    const wrong = own.flatMap((path) =>
      importsOf(path)
        .filter(({ from, typeOnly }) => !allowed.test(from) && !(typeOnly && types?.test(from) === true))
        .map(({ from }) => `${path}: ${from}`),
    );
    expect(wrong).toEqual([]);
  });

  test('only the two workers see workflow code and activities at run time', () => {
    const both = typescript.filter(
      (path) => path.startsWith('src/') && importsOf(path).some(({ from, typeOnly }) => !typeOnly && from.startsWith('activities/')),
    );
    expect(both).toEqual(['src/host-worker.ts', 'src/worker.ts']);
  });

  test('only the host worker needs a database driver', () => {
    const drivers = new Set(['src/host/postgres.ts', 'src/host/sqlite.ts']);
    const users = typescript.filter(
      (path) => /^(src|activities|workflows)\//.test(path) && importsOf(path).some(({ from }) => drivers.has(from)),
    );
    expect(users).toEqual(['src/host-worker.ts']);
  });

  test('only src/config.ts reads the environment, and src/lab and src/demo for their children', () => {
    const readers = typescript.filter(
      (path) =>
        /^(src|workflows|activities)\//.test(path) &&
        read(path)
          .replace(/`process\.env`/g, '')
          .includes('process.env'),
    );
    expect(readers.filter((path) => !/^src\/(config\.ts|lab\/|demo\/)/.test(path))).toEqual([]);
  });

  test('the workflow bundle builds, and holds no code of activities, node or store', async () => {
    const { code } = await bundleWorkflows({ dir: root, logger: new DefaultLogger('ERROR') });
    expect(code).toContain('./workflows/peer-compromise.ts');
    expect(code.match(/\.\/(activities|src\/(?!contract\/|payload-converter))[\w/-]+\.ts/g)).toBeNull();
    expect(code).not.toContain('node_modules/undici');
  });
});

const Versions = z.record(z.string(), z.string()).default({});
const Package = z.object({ dependencies: Versions, devDependencies: Versions });
const Locked = z.looseObject({ version: z.string().optional(), resolved: z.string().optional(), optionalDependencies: Versions });
const Lock = z.object({ packages: z.record(z.string(), Locked) });

describe('dependencies', () => {
  const { dependencies, devDependencies } = Package.parse(JSON.parse(read('package.json')));
  const all = Object.entries({ ...dependencies, ...devDependencies });
  const { packages } = Lock.parse(JSON.parse(read('package-lock.json')));

  test('every one is pinned to an exact version', () => {
    expect(all.filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))).toEqual([]);
  });

  test('all of @temporalio have the same version', () => {
    const versions = all.filter(([name]) => name.startsWith('@temporalio/')).map(([, version]) => version);
    const locked = Object.entries(packages).filter(([path]) => /node_modules\/@temporalio\/[^/]+$/.test(path));
    expect([...new Set([...versions, ...locked.map(([, { version }]) => version)])]).toHaveLength(1);
  });

  test('the lock file names no registry, and every optional package of every platform (scripts/complete-lock.mjs)', () => {
    expect(Object.entries(packages).filter(([, { resolved }]) => resolved !== undefined)).toEqual([]);
    const names = new Set(Object.keys(packages).map((path) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)));
    const wanted = Object.values(packages).flatMap(({ optionalDependencies }) => Object.keys(optionalDependencies));
    expect(wanted.filter((name) => !names.has(name))).toEqual([]);
  });
});

describe('files', () => {
  test('none names a registry host or a path of one machine', () => {
    const hosts = /registry[.]npmjs|npmjs[.]org|pypi[.]org|python[h]osted|proxy[.]golang|repo1?[.]maven|crates[.]io|deb[.]debian/;
    const places = /[/]work[/](main|steering|shared|[.]library)|[/]farm[/]|[/]root[/]|bash[_]jobs/;
    const texts = files.filter((path) => !/\.(svg|png|gif|db)$/.test(path));
    expect(offenders(texts, (text) => [hosts.exec(text)?.[0], places.exec(text)?.[0]].filter((found) => found !== undefined))).toEqual([]);
  });

  test('no test is left out, and no type is switched off', () => {
    const left = /\b(?:it|test|describe|suite)(?:\.\w+)*\.(?:skip|only|todo|fails)\b|\bx(?:it|describe)\(/;
    const untyped = /\bas [a]ny\b|@ts-[i]gnore|@ts-[n]ocheck|oxlint-[d]isable|eslint-[d]isable/;
    expect(offenders(typescript, (text) => [left.exec(text)?.[0], untyped.exec(text)?.[0]].filter((found) => found !== undefined))).toEqual(
      [],
    );
  });

  test('none of TypeScript is longer than 300 lines', () => {
    const lengths = typescript.map((path) => ({ path, lines: read(path).trimEnd().split('\n').length }));
    expect(lengths.filter(({ lines }) => lines > 300)).toEqual([]);
  });

  test('links between documents lead somewhere', () => {
    const dead = offenders(documents, (text, path) =>
      [...text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)]
        .map(([, link = '']) => link)
        .filter((link) => !existsSync(join(root, dirname(path), link))),
    );
    expect(dead).toEqual([]);
  });
});
