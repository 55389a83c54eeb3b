import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { basename, join, relative, resolve } from 'node:path';
import { inBox, makeBox, placeIn, type Box } from './box.ts';

// A Dockerfile, read and carried out by hand: each instruction in a box, with this machine's node and python in the
// place of the base image's. What we don't use is an error, so that nothing is passed over.

export interface Instruction {
  readonly word: string;
  readonly rest: string;
}

export interface Stage {
  readonly from: string;
  readonly name: string;
  readonly instructions: readonly Instruction[];
}

/** The image that came out. */
export interface Image {
  readonly box: Box;
  readonly env: Readonly<Record<string, string>>;
  readonly workdir: string;
  readonly user: string;
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly healthcheck: readonly string[];
}

/** The stages, comments and line continuations gone. */
export function parseDockerfile(text: string): Stage[] {
  const lines = text
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .join('\n')
    .replaceAll(/\s*\\\n\s*/g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '');
  const stages: (Stage & { instructions: Instruction[] })[] = [];
  for (const line of lines) {
    const [, word = '', rest = ''] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
    if (word === 'FROM') {
      const [from = '', , name = ''] = rest.split(/\s+/);
      stages.push({ from, name, instructions: [] });
    } else {
      const stage = stages.at(-1);
      if (stage === undefined || word === '') throw new Error(`not an instruction of a stage: ${line}`);
      stage.instructions.push({ word, rest });
    }
  }
  return stages;
}

/** Which paths of the context the build may see: the last pattern that fits decides. */
export function contextFilter(ignore: string): (path: string) => boolean {
  const patterns = ignore.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  const rules = patterns.map((line) => {
    const pattern = line.replace(/^!/, '');
    const source = pattern
      .split('**/')
      .map((part) => part.replaceAll(/[.+^${}()|[\]\\]/g, String.raw`\$&`).replaceAll('*', '[^/]*'))
      .join('(?:.*/)?');
    return { keeps: line.startsWith('!'), fits: new RegExp(`^${source}(?:/|$)`) };
  });
  return (path) => rules.findLast(({ fits }) => fits.test(path))?.keeps ?? true;
}

/** Source and target of a COPY, and the stage it comes from if any. */
export function parseCopy(rest: string): { from: string | undefined; sources: string[]; target: string } {
  const words = rest.split(/\s+/);
  const flag = words[0]?.startsWith('--') === true ? words.shift() : undefined;
  if (flag !== undefined && !flag.startsWith('--from=')) throw new Error(`COPY ${flag} is not known here`);
  const target = words.pop() ?? '';
  return { from: flag?.slice('--from='.length), sources: words, target };
}

/** Variables that a machine may need to reach its package registries. */
const passed = /^(npm_config_\w+|PIP_CERT|(HTTPS?|NO)_PROXY|NODE_EXTRA_CA_CERTS|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE)$/i;
const registry = Object.fromEntries(Object.entries(process.env).filter(([name]) => passed.test(name)));

/** Builds the last stage into `dir`. Throws with the output of a RUN that failed. */
export function buildImage(file: string, context: string, dir: string): Image {
  rmSync(dir, { recursive: true, force: true });
  const visible = contextFilter(readFileSync(join(context, '.dockerignore'), 'utf8'));
  const built = new Map<string, Image>();
  let last: Image | undefined;
  for (const [at, stage] of parseDockerfile(readFileSync(file, 'utf8')).entries()) {
    last = buildStage(stage, { context, visible, built, dir: join(dir, `${at}-${stage.name || 'image'}`) });
    built.set(stage.name, last);
  }
  if (last === undefined) throw new Error(`${file} has no stage`);
  return last;
}

interface Building {
  readonly context: string;
  readonly visible: (path: string) => boolean;
  readonly built: ReadonlyMap<string, Image>;
  readonly dir: string;
}

function buildStage(stage: Stage, building: Building): Image {
  const box = makeBox(building.dir);
  // That image calls it by the short name.
  if (stage.from.startsWith('python:')) {
    mkdirSync(placeIn(box, '/usr/local/bin'), { recursive: true });
    symlinkSync('/usr/bin/python3', placeIn(box, '/usr/local/bin/python'));
  }
  const env: Record<string, string> = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };
  let image: Image = { box, env, workdir: '/', user: '0:0', entrypoint: [], command: [], healthcheck: [] };
  for (const { word, rest } of stage.instructions) {
    if (word === 'ENV') {
      for (const [, name = '', value = ''] of rest.matchAll(/(\w+)=(\S*)/g))
        env[name] = value.replaceAll(/\$(\w+)/g, (_whole: string, other: string) => env[other] ?? '');
    } else if (word === 'WORKDIR') {
      mkdirSync(placeIn(box, rest), { recursive: true });
      image = { ...image, workdir: rest };
    } else if (word === 'COPY') copy(rest, image, building);
    else if (word === 'RUN') run(rest, image);
    else if (word === 'USER') image = { ...image, user: rest };
    else if (word === 'ENTRYPOINT') image = { ...image, entrypoint: words(rest) };
    else if (word === 'CMD') image = { ...image, command: words(rest) };
    else if (word === 'HEALTHCHECK') image = { ...image, healthcheck: words(rest.slice(rest.indexOf('['))) };
    else if (word !== 'VOLUME' && word !== 'EXPOSE') throw new Error(`${word} is not known here`);
  }
  return image;
}

function words(json: string): string[] {
  const value: unknown = JSON.parse(json);
  if (!Array.isArray(value) || !value.every((each) => typeof each === 'string')) throw new Error(`not a list of words: ${json}`);
  return value;
}

function run(text: string, image: Image): void {
  const { command, args } = inBox(image.box, {
    command: ['/bin/sh', '-c', text],
    env: { ...registry, HOME: '/root', ...image.env },
    cwd: image.workdir,
  });
  const done = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
  if (done.status !== 0) throw new Error(`RUN ${text}\n${done.stdout}${done.stderr}`, { cause: done.error });
}

function copy(rest: string, image: Image, { context, visible, built }: Building): void {
  const { from, sources, target } = parseCopy(rest);
  const other = from === undefined ? undefined : built.get(from);
  if (from !== undefined && other === undefined) throw new Error(`COPY from a stage that is not there: ${from}`);
  const to = placeIn(image.box, resolve(image.workdir, target));
  for (const source of sources) {
    const place = other === undefined ? join(context, source) : placeIn(other.box, source);
    const seen = (path: string): boolean => other !== undefined || visible(relative(context, path));
    if (!existsSync(place) || !seen(place)) throw new Error(`COPY ${source}: not in the ${from ?? 'context'}`);
    if (statSync(place).isDirectory()) {
      // A folder that is let in only in part is itself named by no pattern.
      cpSync(place, to, { recursive: true, verbatimSymlinks: true, filter: (path) => path === place || seen(path) });
    } else if (target.endsWith('/')) {
      mkdirSync(to, { recursive: true });
      copyFileSync(place, join(to, basename(place)));
    } else copyFileSync(place, to);
  }
}
