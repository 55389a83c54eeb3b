// Preloaded into the built worker (`node --import`): names every moment at which it could die, and dies at the one
// that is armed. Nothing of the worker is replaced; it is only watched. The harness arms it by a file:
//   {"points": [{"point": "before:fenceInbound#1", "fuse": path}], "journal": path}
// Points are named <kind>:<activity>[:<what>]#<how often so far>. The fuse is a file that burns once: of two workers
// that reach the point only one dies, and the one that comes after does not.
import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe } from 'node:diagnostics_channel';
import fs from 'node:fs';
import { createRequire, syncBuiltinESMExports } from 'node:module';

const require = createRequire(import.meta.url);
const armFile = process.env.CRASH_ARM ?? '';
const nodeOrigin = new URL(process.env.STIGMEM_URL ?? 'http://127.0.0.1').origin;
const activities = new AsyncLocalStorage();

let armedText = '';
let armed;
let counts = new Map();

/** Notes the moment; true when it is the one to die at. */
function reached(kind, of, more = {}) {
  const text = fs.readFileSync(armFile, 'utf8');
  if (text !== armedText) {
    armedText = text;
    armed = JSON.parse(text);
    counts = new Map();
  }
  const n = (counts.get(`${kind}:${of}`) ?? 0) + 1;
  counts.set(`${kind}:${of}`, n);
  const point = `${kind}:${of}#${n}`;
  const fatal = armed.points.some((one) => one.point === point && burns(one.fuse));
  fs.appendFileSync(armed.journal, `${JSON.stringify({ at: Date.now(), pid: process.pid, point, fatal, ...more })}\n`);
  return fatal;
}

function burns(fuse) {
  try {
    fs.unlinkSync(fuse);
    return true;
  } catch {
    return false;
  }
}

function die() {
  process.kill(process.pid, 'SIGKILL');
  // Not one more instruction of the worker.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

const moment = (kind, of, more) => {
  if (reached(kind, of, more)) die();
};

// Step boundaries: right before an activity runs, and when it has returned and nobody was told.
const { Worker } = require('@temporalio/worker');
const create = Worker.create.bind(Worker);
Worker.create = (options) => {
  const watch = ({ info }) => ({
    inbound: {
      execute: async (input, next) => {
        const { activityType: name, activityId: id, attempt, workflowExecution: run } = info;
        const more = { id, attempt, run: run?.runId };
        moment('before', name, more);
        const result = await activities.run(name, () => next(input));
        moment('after', name, more);
        return result;
      },
    },
  });
  const { activity = [], ...others } = options.interceptors ?? {};
  return create({ ...options, interceptors: { ...others, activity: [watch, ...activity] } });
};

// Inside: each request that changes something, before it leaves, and when it was done and its answer not yet read.
const readOnly = /^\/v1\/(recall|lint)$/;
const requests = new WeakMap();
subscribe('undici:request:create', ({ request }) => {
  const { pathname } = new URL(request.path, nodeOrigin);
  if (request.method === 'GET' || readOnly.test(pathname)) return;
  const route = request.origin === nodeOrigin ? pathname.replaceAll(/[0-9a-f-]{36}/g, '{}') : 'webhook';
  const of = `${activities.getStore() ?? 'none'}:${request.method} ${route}`;
  requests.set(request, of);
  moment('request', of);
});
subscribe('undici:request:headers', ({ request }) => {
  const of = requests.get(request);
  if (of !== undefined) moment('answered', of);
});

// The same for what activities change on the Temporal server.
const grpc = createRequire(require.resolve('@temporalio/client'))('@grpc/grpc-js');
const { makeUnaryRequest } = grpc.Client.prototype;
grpc.Client.prototype.makeUnaryRequest = function watched(path, ...args) {
  const method = path.split('/').at(-1);
  const name = activities.getStore();
  const told = args.at(-1);
  if (name === undefined || /^(Get|List|Describe|Count)/.test(method) || typeof told !== 'function') {
    return makeUnaryRequest.call(this, path, ...args);
  }
  moment('rpc', `${name}:${method}`);
  return makeUnaryRequest.call(this, path, ...args.slice(0, -1), (...answer) => {
    moment('rpcdone', `${name}:${method}`);
    told(...answer);
  });
};

// And for evidence: before a line is added to the chain, in the middle of it, and when it is there.
const { open } = fs.promises;
fs.promises.open = async (path, flags, ...rest) => {
  const handle = await open(path, flags, ...rest);
  if (flags !== 'a' || !String(path).endsWith('index.jsonl')) return handle;
  const of = activities.getStore() ?? 'none';
  const { writeFile } = handle;
  handle.writeFile = async (bytes, ...more) => {
    moment('append', of);
    if (reached('torn', of)) {
      fs.writeSync(handle.fd, bytes.subarray(0, Math.floor(bytes.length / 2)));
      die();
    }
    await writeFile.call(handle, bytes, ...more);
    moment('appended', of);
  };
  return handle;
};
syncBuiltinESMExports();
