import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { canonicalJson } from '../../src/contract/canonical.ts';
import { judgeRotation, type KnownPeer, type RotationInput } from '../../src/policy/rotation.ts';

// Has the peer rotated its key? The documents are signed here; the node's own code agrees in test/integration/manifest.test.ts.

interface Key {
  readonly text: string;
  readonly id: string;
  readonly sign: (body: unknown) => string;
}

function newKey(id: string): Key {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  return { id, text: jwkOf(publicKey), sign: (body) => sign(null, Buffer.from(canonicalJson(body)), privateKey).toString('base64url') };
}
const jwkOf = (key: KeyObject): string => key.export({ format: 'jwk' }).x ?? '';

const now = '2026-11-23T12:00:00Z';
const [old, next, other] = [newKey('key-1'), newKey('key-2'), newKey('key-x')];
const entity = 'stigmem://peer.test';
const nodeId = 'stigmem:node:peer';

function rotated(from: Key, to: Key, at = '2026-11-22T00:00:00Z') {
  const body = { previous_key_id: from.id, new_key_id: to.id, new_public_key: to.text, rotated_at: at };
  return { ...body, signature: from.sign(body), previous_public_key: from.text };
}

function manifestOf(key: Key, events: readonly object[] = [], over: object = {}) {
  const body = {
    entity_uri: entity,
    key_id: key.id,
    public_key: key.text,
    issued_at: '2026-11-22T00:00:00Z',
    expires_at: '2027-11-22T00:00:00Z',
    entities: [entity, nodeId],
    rotation_events: events,
    ...over,
  };
  return { ...body, signature: key.sign(body) };
}

const wellKnownOf = (key: Key, over: object = {}) => ({ node_id: nodeId, federation_pubkey: key.text, entity_uri: entity, ...over });
const known: KnownPeer = {
  pinned: { publicKey: old.text },
  pinnedBy: 'node',
  seen: [old.text],
  nodeIds: [nodeId],
  entityUri: entity,
  ourEntityUri: 'stigmem://ours.test',
};
const judge = (wellKnown: unknown, manifest: unknown, over: Partial<RotationInput> = {}) =>
  judgeRotation({ wellKnown, manifest, known, firstBad: '2026-11-22T12:00:00Z', now, strict: false, ...over });
const chained = manifestOf(next, [rotated(old, next)]);

describe('a peer has rotated its key', () => {
  it.each([
    ['both show the old key', old, manifestOf(old), 'both'],
    ['only the manifest changed', old, chained, 'only its manifest'],
    ['only the well-known changed', next, manifestOf(old), 'only its well-known'],
  ])('not yet, where %s', (_what, key, manifest, why) => {
    expect(judge(wellKnownOf(key), manifest)).toMatchObject({ kind: 'notYet', why: expect.stringContaining(why) });
  });

  it('once both show the new one, with the chain from the old key', () => {
    const verdict = judge(wellKnownOf(next), chained);
    expect(verdict).toMatchObject({
      kind: 'new',
      keys: { publicKey: next.text, keyId: 'key-2', nodeId, entityUri: entity, chain: 'whole' },
    });
  });

  it('with a remark where whoever stole the old key could have made the chain', () => {
    const late = judge(wellKnownOf(next), manifestOf(next, [rotated(old, next, '2026-11-22T12:00:00Z')]));
    expect(late).toMatchObject({ kind: 'new', keys: { chain: 'afterFirstBad' } });
    expect(JSON.stringify(late)).toContain('whoever stole it could have done so');
    expect(judge(wellKnownOf(next), chained, { firstBad: null })).toMatchObject({ kind: 'new', keys: { chain: 'afterFirstBad' } });
  });

  it('with a remark where nothing leads from the old key to the new one, which is not forbidden', () => {
    for (const manifest of [manifestOf(next), manifestOf(next, [rotated(other, next)])]) {
      const verdict = judge(wellKnownOf(next), manifest);
      expect(verdict).toMatchObject({ kind: 'new', keys: { chain: 'none' } });
      expect(JSON.stringify(verdict)).toContain('only the fingerprint brought from outside');
    }
  });

  it('from a later key of a longer chain too, found by its text where no key id is known', () => {
    const manifest = manifestOf(other, [rotated(old, next), rotated(next, other)]);
    const pinned = { publicKey: next.text };
    expect(judge(wellKnownOf(other), manifest, { known: { ...known, pinned, seen: [old.text, next.text] } })).toMatchObject({
      kind: 'new',
      keys: { chain: 'whole' },
    });
  });

  it('as another node under another entity, whose key ids are its own', () => {
    const uri = 'stigmem://peer-again.test';
    const manifest = manifestOf({ ...next, id: 'key-1' }, [], { entity_uri: uri, entities: [uri, 'stigmem:node:again'] });
    const pinned = { publicKey: old.text, keyId: 'key-1' };
    const verdict = judge(wellKnownOf(next, { node_id: 'stigmem:node:again', entity_uri: uri }), manifest, { known: { ...known, pinned } });
    expect(verdict).toMatchObject({ kind: 'new', keys: { nodeId: 'stigmem:node:again', entityUri: uri, chain: 'none' } });
    expect(JSON.stringify(verdict)).toContain('to our node a new peer');
  });
});

describe('a new key is bad, and each problem named by field, expectation and what came,', () => {
  const again = { entities: [entity, 'stigmem:node:again'] };
  const forged = { ...rotated(other, next), previous_key_id: old.id, previous_public_key: old.text };
  it.each<[string, string, unknown, unknown, Partial<RotationInput>]>([
    ['its two documents show two', 'well-known.federation_pubkey', wellKnownOf(other), chained, {}],
    ['it was seen before', 'manifest.public_key', wellKnownOf(next), chained, { known: { ...known, seen: [old.text, `${next.text}=`] } }],
    [
      'it keeps the old key id',
      'manifest.key_id',
      wellKnownOf(next),
      manifestOf({ ...next, id: 'key-1' }),
      { known: { ...known, pinned: { publicKey: old.text, keyId: 'key-1' } } },
    ],
    ['another signed the rotation', 'manifest.rotation_events.0.signature', wellKnownOf(next), manifestOf(next, [forged]), {}],
    [
      'a key of others would stay good',
      'manifest.rotation_events.0.previous_public_key',
      wellKnownOf(next),
      manifestOf(next, [{ ...rotated(old, next), previous_public_key: other.text }]),
      {},
    ],
    ['the manifest names another node', 'manifest.entities', wellKnownOf(next), manifestOf(next, [], { entities: [entity] }), {}],
    [
      'a known node has another entity',
      'manifest.entity_uri',
      wellKnownOf(next, { entity_uri: null }),
      manifestOf(next, [], { entity_uri: 'stigmem://x.test' }),
      {},
    ],
    [
      'another node has the old entity',
      'manifest.entity_uri',
      wellKnownOf(next, { node_id: 'stigmem:node:again' }),
      manifestOf(next, [], again),
      {},
    ],
    [
      'it claims our entity',
      'manifest.entity_uri',
      wellKnownOf(next, { entity_uri: null }),
      manifestOf(next, [], { entity_uri: 'stigmem://ours.test' }),
      { known: { ...known, entityUri: '' } },
    ],
    ['its two documents name two entities', 'well-known.entity_uri', wellKnownOf(next, { entity_uri: 'stigmem://x.test' }), chained, {}],
    [
      'it is valid too long for strict',
      'manifest.expires_at',
      wellKnownOf(next),
      manifestOf(next, [], { expires_at: '2027-12-22T00:00:00Z' }),
      { strict: true },
    ],
    ['it has expired', 'manifest.expires_at', wellKnownOf(next), chained, { now: '2028-01-01T00:00:00Z' }],
    ['no key is known from before', 'pinned key', wellKnownOf(next), chained, { known: { ...known, pinned: undefined, seen: [] } }],
    ['no manifest came', 'manifest', wellKnownOf(next), undefined, {}],
    ['no well-known came', 'well-known', undefined, chained, {}],
  ])('where %s: %s', (_what, field, wellKnown, manifest, over) => {
    const verdict = judge(wellKnown, manifest, over);
    expect(verdict.kind === 'bad' ? verdict.problems.map((each) => each.field) : verdict).toContain(field);
  });

  it('and nothing that JSON can hold makes it throw', () => {
    let deep: unknown = [];
    for (let level = 0; level < 20_000; level += 1) deep = [deep];
    const odd = [
      null,
      0,
      '',
      [],
      {},
      deep,
      { rotation_events: deep },
      JSON.parse('{"__proto__":{"toJSON":1},"toJSON":1}'),
      { ...chained, entities: Array(100_000).fill('x') },
    ];
    for (const one of odd) for (const two of odd) expect(judge(one, two).kind).toBe('bad');
    for (const name of Object.keys(chained))
      for (const value of odd) {
        expect(judge(wellKnownOf(next), { ...chained, [name]: value }).kind).toBe('bad');
        expect(() => judge({ ...wellKnownOf(next), [name]: value, node_id: value }, chained)).not.toThrow();
      }
  });
});
