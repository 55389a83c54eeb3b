import fc from 'fast-check';
import { bytes, json, junk, knownSignals, payloadOf, unknownSignals, type RawPayload } from './raw-messages.ts';

/** What a message says, once it is known which run and which digest are live. */
export interface Live {
  readonly run: string;
  readonly digest: string;
}

/** One message of the fuzz, and what must become of it. Nothing here may ever count. */
export interface Fuzzed {
  readonly via: 'signal' | 'update';
  readonly name: string;
  readonly payloads: (live: Live) => readonly RawPayload[];
  /** `malformed` does not fit the contract, `refused` fits and must not count, the others are taken and change nothing. */
  readonly expect: 'malformed' | 'refused' | 'alert' | 'note';
}

type Shape = (live: Live) => Record<string, unknown>;

/** A payload that fits each message. None of these people may decide, and no such step waits. */
const fitting: Readonly<Record<string, Shape>> = {
  approve: ({ digest }) => ({ gate: 'retract', digest, by: 'mallory', note: 'let me' }),
  reject: ({ digest }) => ({ gate: 'retract', digest, by: 'mallory' }),
  decide: ({ digest }) => ({ gate: 'retract', decision: 'approve', digest, by: 'mallory' }),
  amend: ({ digest }) => ({ gate: 'retract', digest, keep: [{ factId: 'fact-a', justification: 'mine' }], by: 'mallory' }),
  alert: () => ({ name: 'peer_replay_burst', detail: 'again' }),
  note: () => ({ by: 'alice', text: 'still here' }),
  retry: ({ run }) => ({ step: 'fenceInbound', run, by: 'mallory' }),
  done: ({ run }) => ({ step: 'revokeKeys', run, by: 'mallory' }),
  skip: ({ run }) => ({ step: 'undoFacts', run, by: 'mallory', note: 'no need' }),
  close: () => ({ outcome: 'dismissed', run: 'ffffffff-none', by: 'mallory', reason: 'false alarm' }),
};

/** Almost right: each makes a fitting payload not fit any more. */
const spoil: readonly ((payload: Record<string, unknown>, pick: number) => unknown)[] = [
  (payload, pick) => without(payload, pick),
  (payload) => ({ ...payload, sudo: true }),
  (payload, pick) => change(payload, pick, null),
  (payload, pick) => change(payload, pick, 42),
  (payload, pick) => change(payload, pick, [payload]),
  (payload, pick) => change(payload, pick, ''),
  (payload, pick) => change(payload, pick, 'x'.repeat(5_000)),
  (payload, pick) => change(payload, pick, { toString: 'retract' }),
  (payload) => [payload],
  (payload) => JSON.stringify(payload),
  (payload) => ({ payload }),
  (payload) => ({ ...payload, digest: 'sha256:abc', run: '0198', at: 'yesterday' }),
];

function required(payload: Record<string, unknown>): string[] {
  return Object.keys(payload).filter((key) => !['note', 'detail'].includes(key));
}

function keyOf(payload: Record<string, unknown>, pick: number): string {
  const keys = required(payload);
  return keys[pick % keys.length] ?? '';
}

function without(payload: Record<string, unknown>, pick: number): unknown {
  const { [keyOf(payload, pick)]: _gone, ...rest } = payload;
  return rest;
}

function change(payload: Record<string, unknown>, pick: number, to: unknown): unknown {
  return { ...payload, [keyOf(payload, pick)]: to };
}

const updates = ['decide', 'amend'] as const;
const unknownName = fc.oneof(
  // A signal of that name is unknown, an update is not.
  fc.constantFrom(...unknownSignals.filter((name) => name !== 'decide')),
  fc.string({ minLength: 1, maxLength: 60 }).map((text) => `x ${text.replaceAll('\0', '')}`),
  fc.constantFrom('Approve', 'approve ', 'APPROVE', 'decide2', 'status', 'plan', '__stack_trace', 'x'.repeat(900)),
);
const named = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...knownSignals).map((name) => ({ via: 'signal' as const, name: String(name) })) },
  { weight: 2, arbitrary: fc.constantFrom(...updates).map((name) => ({ via: 'update' as const, name: String(name) })) },
);
const anyName = fc.oneof(
  { weight: 3, arbitrary: named },
  { weight: 2, arbitrary: unknownName.map((name) => ({ via: 'signal' as const, name })) },
  { weight: 1, arbitrary: unknownName.map((name) => ({ via: 'update' as const, name })) },
);

const rawPayload: fc.Arbitrary<RawPayload> = fc.record(
  {
    metadata: fc.dictionary(
      fc.constantFrom('encoding', 'messageType', 'x'),
      fc.oneof(
        fc.constantFrom(...['json/plain', 'binary/null', 'json/protobuf', 'binary/encrypted'].map(bytes)),
        fc.uint8Array({ maxLength: 20 }),
      ),
    ),
    data: fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.json().map(bytes)),
  },
  { requiredKeys: [] },
);

/** Whatever came by no plan can't fit: it never names the right person, and rarely even has the right keys. */
const wild: fc.Arbitrary<Fuzzed> = fc
  .tuple(
    anyName,
    fc.oneof(
      fc.constantFrom(...Object.values(junk)),
      fc.array(rawPayload, { maxLength: 3 }),
      fc.json({ maxDepth: 4 }).map((text) => [json(text)]),
      fc.string({ maxLength: 20_000, minLength: 2_000 }).map((text) => [payloadOf(text)]),
    ),
  )
  .map(([{ via, name }, payloads]) => ({ via, name, payloads: () => payloads, expect: 'malformed' }));

const nearMiss: fc.Arbitrary<Fuzzed> = fc
  .tuple(named, fc.constantFrom(...spoil), fc.nat({ max: 20 }))
  .map(([{ via, name }, spoiled, pick]) => ({
    via,
    name,
    payloads: (live) => [payloadOf(spoiled(fitting[name]?.(live) ?? {}, pick))],
    expect: 'malformed',
  }));

const strangeName: fc.Arbitrary<Fuzzed> = fc
  .tuple(unknownName, fc.constantFrom(...Object.values(fitting)), fc.constantFrom('signal' as const, 'update' as const))
  .map(([name, shape, via]) => ({ via, name, payloads: (live) => [payloadOf(shape(live))], expect: 'malformed' }));

const wrongPerson: fc.Arbitrary<Fuzzed> = fc
  .tuple(
    named,
    fc.constantFrom('mallory', 'bob2', 'b o b', 'admin', 'bob,carol'),
    fc.constantFrom<(live: Live) => Live>(
      (live) => live,
      ({ run, digest }) => ({ run, digest: `${digest.slice(0, -1)}${digest.endsWith('0') ? '1' : '0'}` }),
      ({ digest }) => ({ run: 'ffffffff-none', digest }),
      ({ run }) => ({ run, digest: `sha256:${'0'.repeat(12)}` }),
    ),
  )
  .map(([{ via, name }, by, about]) => ({
    via,
    name,
    payloads: (live) => {
      const payload = fitting[name]?.(about(live)) ?? {};
      return [payloadOf('by' in payload ? { ...payload, by } : payload)];
    },
    expect: name === 'alert' ? 'alert' : name === 'note' ? 'note' : 'refused',
  }));

const otherGate: fc.Arbitrary<Fuzzed> = fc
  .tuple(
    fc.constantFrom('approve', 'reject', 'decide'),
    fc.constantFrom('close', 'restore', 'skip', 'reregister', 'testPull', 'Retract', 'retract ', 'sudo', '__proto__', 'constructor'),
  )
  .map(([name, gate]) => ({
    via: name === 'decide' ? 'update' : 'signal',
    name,
    // Somebody who may decide, at a gate that is not open.
    payloads: (live) => [payloadOf({ ...fitting[name]?.(live), gate, by: 'bob' })],
    expect: 'refused',
  }));

/** Messages of all kinds. The same seed gives the same messages. */
export function fuzzed(count: number, seed: number): Fuzzed[] {
  const message = fc.oneof(
    { weight: 3, arbitrary: wild },
    { weight: 4, arbitrary: nearMiss },
    { weight: 1, arbitrary: strangeName },
    { weight: 3, arbitrary: wrongPerson },
    { weight: 1, arbitrary: otherGate },
  );
  return fc.sample(message, { numRuns: count, seed });
}
