import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { z } from 'zod';
import type { Incident } from './workflow-env.ts';

/** A payload as the wire has it: whatever bytes a client of any language may send. */
export interface RawPayload {
  readonly metadata?: Record<string, Uint8Array>;
  readonly data?: Uint8Array;
}

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
export const json = (text: string, encoding = 'json/plain'): RawPayload => ({ metadata: { encoding: bytes(encoding) }, data: bytes(text) });
export const payloadOf = (value: unknown): RawPayload => json(JSON.stringify(value));

/** Everything that can be wrong with what a message carries, whatever its name. */
export const junk: Readonly<Record<string, readonly RawPayload[]>> = {
  'bad JSON': [json('{"gate":')],
  'bytes that are no UTF-8': [{ metadata: { encoding: bytes('json/plain') }, data: new Uint8Array([0xff, 0xfe, 0x00]) }],
  'an unknown encoding': [json('{}', 'made/up')],
  'an encoding of bytes that are no text': [{ metadata: { encoding: new Uint8Array([0xff, 0x00]) }, data: bytes('{}') }],
  'no arguments': [],
  null: [json('null')],
  'an array': [json('[1,2]')],
  'a wrong type': [json('42')],
  'no metadata': [{ data: bytes('{}') }],
  'no data': [{ metadata: { encoding: bytes('json/plain') } }],
  'nothing at all': [{}],
  'protobuf encoding': [
    { metadata: { encoding: bytes('binary/protobuf'), messageType: bytes('made.Up') }, data: new Uint8Array([1, 2, 3]) },
  ],
  'raw bytes': [{ metadata: { encoding: bytes('binary/plain') }, data: new Uint8Array(2_000).fill(7) }],
  __proto__: [json('{"__proto__":{"accepted":true},"constructor":{"prototype":{"by":"mallory"}}}')],
  'two arguments': [json('{}'), json('{}')],
};

/** A string of 1.5 MB: under the server's limit for one payload. */
export const large: readonly RawPayload[] = [payloadOf('x'.repeat(1_500_000))];

export const knownSignals = ['approve', 'reject', 'amend', 'alert', 'note', 'retry', 'done', 'skip', 'close'] as const;
export const unknownSignals = ['decide', 'sudo', '__temporal_made_up', '__proto__', 'constructor'] as const;

/** Sends a signal under any name, with any bytes. */
export async function rawSignal(
  env: TestWorkflowEnvironment,
  incident: Pick<Incident, 'workflowId'>,
  signalName: string,
  payloads: readonly RawPayload[],
): Promise<void> {
  await env.client.workflowService.signalWorkflowExecution({
    namespace: 'default',
    workflowExecution: { workflowId: incident.workflowId },
    signalName,
    input: { payloads: [...payloads] },
    requestId: randomUUID(),
    identity: 'ciso@example.org',
  });
}

/** What the workflow answered, as JSON; the failure where it failed the update. */
export async function rawUpdate(
  env: TestWorkflowEnvironment,
  incident: Pick<Incident, 'workflowId'>,
  name: string,
  payloads: readonly RawPayload[],
): Promise<unknown> {
  const { workflowService } = env.client;
  const waitPolicy = { lifecycleStage: 3 };
  const answered = await workflowService.updateWorkflowExecution({
    namespace: 'default',
    workflowExecution: { workflowId: incident.workflowId },
    waitPolicy,
    request: { meta: { updateId: randomUUID(), identity: 'x' }, input: { name, args: { payloads: [...payloads] } } },
  });
  // The server answers without an outcome when it took long. Whoever still wants it asks again, as every SDK does.
  let { outcome } = answered;
  while (!outcome) {
    const polled = await workflowService.pollWorkflowExecutionUpdate({
      namespace: 'default',
      updateRef: answered.updateRef ?? null,
      waitPolicy,
    });
    outcome = polled.outcome;
  }
  if (outcome.failure) return { failure: outcome.failure.message };
  const answer: unknown = JSON.parse(Buffer.from(outcome.success?.payloads?.[0]?.data ?? []).toString('utf8'));
  return answer;
}

export interface RawMessage {
  readonly name: string;
  readonly payloads: readonly RawPayload[];
}

/** Signals by the thousand, from a process of their own: `count` of them, the given ones in turn. */
export async function flood(
  address: string,
  incident: Pick<Incident, 'workflowId'>,
  count: number,
  messages: readonly RawMessage[],
): Promise<{ sent: number; refused: number }> {
  const base64 = (data: Uint8Array): string => Buffer.from(data).toString('base64');
  const plain = messages.map(({ name, payloads }) => ({
    name,
    payloads: payloads.map(({ metadata, data }) => ({
      ...(metadata ? { metadata: Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, base64(value)])) } : {}),
      ...(data ? { data: base64(data) } : {}),
    })),
  }));
  const script = fileURLToPath(new URL('flooder.mjs', import.meta.url));
  const sending = promisify(execFile)(process.execPath, [script, address, incident.workflowId, String(count), '50']);
  sending.child.stdin?.end(JSON.stringify(plain));
  const { stdout } = await sending;
  return z.object({ sent: z.int(), refused: z.int() }).parse(JSON.parse(stdout));
}
