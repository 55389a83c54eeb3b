import type { FailureType } from '../../src/contract/failures.ts';
import type { Fault, ProxyAnswer } from '../../src/lab/node-proxy.ts';

/** One thing that can go wrong between the worker and its node, and how cordon is to take it. */
export interface FaultKind {
  readonly name: string;
  /** `canary` stands for a secret that a careless server echoes. `attempt` counts the faulty requests of one cell. */
  readonly make: (at: { readonly canary: string; readonly otherNode: string }) => Fault;
  readonly type: FailureType;
  /** What the operator has to read: what came, in words. */
  readonly came: RegExp;
  /** Everything the activity asks goes wrong, not only the one route: so it is when a machine is swapped. */
  readonly wholeActivity?: boolean;
  /** Activities for which it is no fault. */
  readonly notAt?: ReadonlySet<string>;
}

const json = ['content-type', 'application/json'];
const says = (status: number, detail: string, headers: readonly string[] = []) => ({
  make: ({ canary }: { readonly canary: string }): Fault => ({
    kind: 'answer',
    status,
    headers: [...json, ...headers],
    body: JSON.stringify({ detail: `${detail} (Authorization: Bearer ${canary})` }),
  }),
});
const changed = (rewrite: (answer: ProxyAnswer) => ProxyAnswer) => ({ make: (): Fault => ({ kind: 'rewrite', rewrite }) });
const ok = (answer: ProxyAnswer, body: Buffer): ProxyAnswer => ({ status: 200, headers: typeOnly(answer), body });
const typeOnly = ({ headers }: ProxyAnswer): string[] => {
  const at = headers.findIndex((name, index) => index % 2 === 0 && name.toLowerCase() === 'content-type');
  return ['content-type', headers[at + 1] ?? 'application/json'];
};

/** 100 MB of white space: valid JSON would be no better. */
function* hundredMegabytes(): Generator<Buffer> {
  const chunk = Buffer.alloc(1_048_576, 32);
  for (let n = 0; n < 100; n += 1) yield chunk;
}

export const faultKinds: readonly FaultKind[] = [
  { name: 'refused', make: () => ({ kind: 'refuse' }), type: 'StigmemUnavailable', came: /connection (broke|was refused)/ },
  { name: 'reset in the body', make: () => ({ kind: 'cut', keep: 0.5 }), type: 'StigmemUnavailable', came: /connection broke/ },
  { name: 'answer lost', make: () => ({ kind: 'lost' }), type: 'StigmemUnavailable', came: /connection broke/ },
  { name: '401', ...says(401, 'Invalid API key'), type: 'StigmemUnauthorized', came: /401 Unauthorized: Invalid API key/ },
  { name: '403', ...says(403, 'Permission denied'), type: 'StigmemUnauthorized', came: /403 Forbidden: Permission denied/ },
  { name: '404', ...says(404, 'Not Found'), type: 'StigmemRejected', came: /404 Not Found/ },
  { name: '409', ...says(409, 'conflict'), type: 'StigmemRejected', came: /409 Conflict: conflict/ },
  { name: '422', ...says(422, 'value error'), type: 'StigmemRejected', came: /422 Unprocessable Entity: value error/ },
  { name: '429', ...says(429, 'Rate limit exceeded'), type: 'StigmemUnavailable', came: /429 Too Many Requests: Rate limit/ },
  {
    name: '429 with Retry-After',
    ...says(429, 'Rate limit exceeded', ['retry-after', '2']),
    type: 'StigmemUnavailable',
    came: /429 Too Many Requests: Rate limit/,
  },
  { name: '500', ...says(500, 'Internal Server Error'), type: 'StigmemUnavailable', came: /500 Internal Server Error/ },
  {
    name: '502 with HTML',
    make: ({ canary }) => ({
      kind: 'answer',
      status: 502,
      headers: ['content-type', 'text/html'],
      body: `<html><script>alert("${canary}")</script><h1>Bad gateway</h1><p>Bearer ${canary} upstream ${canary}</p></html>`,
    }),
    type: 'StigmemUnavailable',
    came: /502 Bad Gateway: Bad gateway/,
  },
  {
    name: 'half a JSON',
    ...changed((answer) => ok(answer, answer.body.subarray(0, Math.ceil(answer.body.length / 2)))),
    type: 'StigmemContract',
    came: /not complete|unexpected answer/,
  },
  {
    name: 'a JSON of another shape',
    ...changed((answer) => ok(answer, Buffer.from('{"hello":["world",1,null]}'))),
    type: 'StigmemContract',
    came: /unexpected answer: .*expected .*came/,
  },
  {
    name: 'a list',
    ...changed((answer) => ok(answer, Buffer.from('[[],{},"x",7]'))),
    type: 'StigmemContract',
    came: /unexpected answer: .*expected .*came/,
  },
  {
    name: '200 with nothing',
    ...changed((answer) => ok(answer, Buffer.alloc(0))),
    type: 'StigmemContract',
    came: /came an empty body/,
  },
  { name: 'silence', make: () => ({ kind: 'silence' }), type: 'StigmemUnavailable', came: /complete answer within/ },
  {
    name: '100 MB',
    make: () => ({ kind: 'answer', status: 200, headers: json, body: hundredMegabytes }),
    type: 'StigmemContract',
    came: /at most 67108864 bytes/,
  },
  {
    name: 'another node',
    make: ({ otherNode }) => ({ kind: 'elsewhere', target: otherNode }),
    type: 'StigmemIdentity',
    came: /answer from another node: expected node_id stigmem:node:\S+, came stigmem:node:\S+/,
    wholeActivity: true,
    // Which node ours is, it is the one to find out.
    notAt: new Set(['resolvePeer']),
  },
];
