import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

// What a container engine does, done by hand with mount namespaces: a root folder of its own with this machine's
// /usr and /etc below it, a user without rights, and nothing writable but what is named. The network is this machine's.

/** A file system: `files` is its root; what was changed in /usr and /etc lies in layers of their own. */
export interface Box {
  readonly dir: string;
  readonly files: string;
}

/** One command in a box. */
export interface Inside {
  readonly command: readonly string[];
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** `uid:gid`; left out: root, with all its rights, and everything writable (for builds). */
  readonly user?: string;
  readonly binds?: readonly { readonly from: string; readonly to: string; readonly readOnly: boolean }[];
  readonly tmpfs?: readonly string[];
  /** Names that mean this machine. */
  readonly hosts?: readonly string[];
}

const layers = ['usr', 'etc'] as const;

export function makeBox(dir: string): Box {
  const files = join(dir, 'files');
  for (const folder of ['usr', 'etc', 'proc', 'dev', 'tmp', 'run', 'root', 'var/tmp']) mkdirSync(join(files, folder), { recursive: true });
  for (const layer of layers) for (const part of ['upper', 'work']) mkdirSync(join(dir, `${layer}.${part}`), { recursive: true });
  return { dir, files };
}

/** Where a path of the box lies on this machine. */
export function placeIn(box: Box, path: string): string {
  const layer = layers.find((name) => path === `/${name}` || path.startsWith(`/${name}/`));
  return layer === undefined ? join(box.files, path) : join(box.dir, `${layer}.upper`, path.slice(layer.length + 1));
}

/** The command line that runs it. The process is the command itself: signals reach it. */
export function inBox(box: Box, inside: Inside): { command: string; args: string[] } {
  const { user, binds = [], tmpfs = [], hosts = [] } = inside;
  const isRoot = process.getuid?.() === 0;
  const root = join(box.dir, 'root');
  const q = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
  const at = (path: string): string => q(join(root, path));
  const overlay = (layer: string): string => {
    const upper = join(box.dir, `${layer}.upper`);
    const where =
      user === undefined ? `upperdir=${upper},workdir=${join(box.dir, `${layer}.work`)},lowerdir=/${layer}` : `lowerdir=${upper}:/${layer}`;
    return `mount -t overlay overlay -o ${q(where)} ${at(layer)}`;
  };
  // Some values end in a colon list; `id` is not the user of this machine in a namespace of its own.
  const [uid = '', gid = ''] = (user ?? '').split(':');
  const drop = `setpriv --reuid ${uid} --regid ${gid} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all --`;
  const script = [
    `mkdir -p ${q(root)}`,
    // The mount points, before the root is read-only.
    ...['usr', 'etc', 'proc', 'dev', 'run', 'tmp'].map((folder) => `mkdir -p ${q(join(box.files, folder))}`),
    ...['bin', 'sbin', 'lib', 'lib64'].map((name) => `[ ! -L /${name} ] || ln -sfn usr/${name} ${q(join(box.files, name))}`),
    ...tmpfs.map((each) => `mkdir -p ${q(placeIn(box, each.split(':')[0] ?? ''))}`),
    ...binds.map(({ from, to }) => {
      const place = q(placeIn(box, to));
      return statSync(from).isDirectory() ? `mkdir -p ${place}` : `mkdir -p "$(dirname ${place})" && touch ${place}`;
    }),
    `mount --bind ${q(box.files)} ${q(root)}`,
    ...layers.map(overlay),
    `mount --rbind /proc ${at('proc')}`,
    `mount --rbind /dev ${at('dev')}`,
    ...(user === undefined ? [] : [`mount -o remount,bind,ro ${q(root)}`]),
    ...tmpfs.map((each) => {
      const [path = '', options = ''] = each.split(':');
      return `mount -t tmpfs ${options === '' ? '' : `-o ${q(options)} `}tmpfs ${at(path)}`;
    }),
    ...binds.flatMap(({ from, to, readOnly }) => [
      `mount --bind ${q(from)} ${at(to)}`,
      ...(readOnly ? [`mount -o remount,bind,ro ${at(to)}`] : []),
    ]),
    ...(hosts.length === 0
      ? []
      : [
          `printf '127.0.0.1 localhost %s\\n' ${q(hosts.join(' '))} "$(hostname)" > ${q(join(box.dir, 'hosts'))}.$$`,
          `mount --bind ${q(join(box.dir, 'hosts'))}.$$ ${at('etc/hosts')}`,
        ]),
    `cd ${q(root)}`,
    `exec chroot . ${user === undefined ? '' : drop} env -i "$@"`,
  ];
  const env = Object.entries(inside.env).map(([name, value]) => `${name}=${value}`);
  const start = ['sh', '-c', 'cd "$1" && shift && exec "$@"', 'sh', inside.cwd ?? '/', ...inside.command];
  const args = [...(isRoot ? ['-m'] : ['-Ur', '--map-auto', '-m']), 'sh', '-ec', script.join('\n'), 'sh', ...env, ...start];
  return { command: 'unshare', args };
}
