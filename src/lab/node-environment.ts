import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { StigmemNodeOptions } from './stigmem-node.ts';

/** The whole environment of a lab node: nothing of ours leaks in, proxies least of all. */
export function baseEnvironment(options: StigmemNodeOptions, url: string, port: number, dbPath: string): Record<string, string> {
  return {
    PATH: process.env['PATH'] ?? '',
    HOME: options.dir,
    STIGMEM_DB_PATH: dbPath,
    STIGMEM_HOST: '127.0.0.1',
    STIGMEM_PORT: String(port),
    STIGMEM_NODE_URL: url,
    STIGMEM_ENTITY_URI: options.entityUri ?? `stigmem://${options.name}.test`,
    STIGMEM_FEDERATION_ENABLED: 'true',
    STIGMEM_FEDERATION_INSECURE: 'true',
    STIGMEM_FEDERATION_PULL_INTERVAL_S: String(options.pullIntervalS ?? 1),
    STIGMEM_RATE_LIMIT_READ_PER_HOUR: '1000000',
    STIGMEM_RATE_LIMIT_WRITE_PER_HOUR: '1000000',
    STIGMEM_LOG_LEVEL: 'info',
  };
}

/** The admin key of this folder: the node keeps only its hash, so a second start needs the first one's. */
export function keptKey(dir: string): string {
  const file = join(dir, 'admin-key');
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    const key = randomBytes(32).toString('hex');
    writeFileSync(file, `${key}\n`, { mode: 0o600 });
    return key;
  }
}
