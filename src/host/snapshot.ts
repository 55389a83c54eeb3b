import { execFile } from 'node:child_process';
import { mkdir, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { sha256Id } from '../contract/canonical.ts';
import { digestFile } from '../evidence/objects.ts';
import { HostFileError, HostUnavailableError, type HostDatabase } from './database.ts';

/** A forensic copy of the whole node, made and signed by the node's own command. */
export interface Snapshot {
  readonly file: string;
  readonly bytes: number;
  /** `sha256:` and hex, of the file. */
  readonly digest: string;
}

/** What {@link takeSnapshot} works with, all of it from the configuration of the host worker. */
export interface SnapshotSettings {
  /** The `stigmem` command of the node. */
  readonly stigmem: string;
  /** The environment the node runs with. */
  readonly env: Readonly<Record<string, string>>;
  /** Where the copies go: they hold all that the node knows, its private key included. */
  readonly dir: string;
}

const longestMs = 30 * 60_000;
const run = promisify(execFile);

const Manifest = z.object({ node_id: z.string(), signature: z.string() });

/**
 * Takes one for this effect, once: a copy that is there already is the one that was taken before anything was changed,
 * and stays. Throws {@link HostUnavailableError} on PostgreSQL, where the node has no such copy.
 */
export async function takeSnapshot(
  database: HostDatabase,
  { stigmem, env, dir }: SnapshotSettings,
  { key, nodeId }: { readonly key: string; readonly nodeId: string },
): Promise<Snapshot> {
  if (database.kind !== 'sqlite')
    throw new HostUnavailableError('stigmem snapshot create: a node on PostgreSQL has no such copy: use pg_dump');
  const file = join(dir, `stigmem-${sha256Id(key).slice('sha256:'.length, 'sha256:'.length + 16)}.tar.gz`);
  const there = await stat(file).catch(() => undefined);
  if (there === undefined) {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const making = `${file}.${process.pid}.new`;
    try {
      // Another process: this one must not open the database's file in any other way.
      await run(stigmem, ['snapshot', 'create', '--out', making], { env, cwd: dir, timeout: longestMs });
      // With another database path the command makes an empty node, and copies that.
      const { stdout } = await run('tar', ['-xzOf', making, 'manifest.json']);
      const { node_id: of } = Manifest.parse(JSON.parse(stdout));
      if (of !== nodeId)
        throw new HostFileError(`a copy of another node: expected ${nodeId}, came ${of.slice(0, 200)}; is STIGMEM_DB_PATH the node's?`);
      await rename(making, file);
    } catch (error) {
      await unlink(making).catch(() => undefined);
      const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim().split('\n').at(-1) : '';
      throw new HostFileError(`stigmem snapshot create: expected a file in ${dir}, came ${said || String(error)}`.slice(0, 500));
    }
  }
  const copy = await digestFile(file);
  if (copy === undefined) throw new HostFileError(`stigmem snapshot create: expected a file in ${dir}, came none`);
  return { file, bytes: copy.bytes, digest: `sha256:${copy.sha256}` };
}
