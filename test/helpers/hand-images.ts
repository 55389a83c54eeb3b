import { appendFileSync, chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { temporalBin } from '../../src/lab/tools.ts';
import { makeBox, placeIn, type Box } from './box.ts';
import type { HandImage } from './by-hand.ts';

// The images of others, as far as docker-compose.yml uses them: their programs from this machine, under the names
// and paths they have there.

function addProgram(box: Box, name: string, text: string): void {
  const place = placeIn(box, `/usr/local/bin/${name}`);
  mkdirSync(dirname(place), { recursive: true });
  writeFileSync(place, text);
  chmodSync(place, 0o755);
}

const program = (from: string, name: string) => ({ from, to: `/usr/local/bin/${name}`, readOnly: true });

/** temporalio/admin-tools: the `temporal` command, and the schema tool where it was built. */
export function adminTools(dir: string, sqlTool?: string): HandImage {
  const binds = [program(temporalBin(), 'temporal'), ...(sqlTool === undefined ? [] : [program(sqlTool, 'temporal-sql-tool')])];
  return { box: makeBox(dir), binds };
}

/** temporalio/server: the server, and BusyBox's `nc -z` for the health check. */
export function temporalServer(dir: string, server: string): HandImage {
  const box = makeBox(dir);
  addProgram(box, 'nc', '#!/bin/bash\n[ "$1" = -z ] && exec 3<>"/dev/tcp/$2/$3"\n');
  return { box, binds: [program(server, 'temporal-server')] };
}

/** postgres: makes the database at the first start as that image's entry point does, then serves on `port`. */
export function postgres(dir: string, port: number): HandImage {
  const box = makeBox(dir);
  addProgram(
    box,
    'entrypoint',
    `#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  echo "create database $POSTGRES_USER" | postgres --single -j postgres > /dev/null
fi
exec postgres -p ${port} -c "listen_addresses=*" -c unix_socket_directories=/run/postgresql
`,
  );
  // initdb wants its user to have a name.
  const passwd = placeIn(box, '/etc/passwd');
  copyFileSync('/etc/passwd', passwd);
  appendFileSync(passwd, 'postgres-image:x:999:999::/:/bin/sh\n');
  const env = { PGDATA: '/var/lib/postgresql/data', PGPORT: String(port), LANG: 'C.UTF-8' };
  return { box, env, command: ['entrypoint'] };
}

/** The folder of the server and its tool, built by \`npm run test:postgres\`. */
export function built(root: string): { server: string; sql: string } {
  const bin = join(root, '.tools', 'temporal-server', 'v1.31.1');
  return { server: join(bin, 'server'), sql: join(bin, 'sql') };
}
