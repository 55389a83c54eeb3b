import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { run } from '../../src/lab/python.ts';
import { stigmemPython } from '../../src/lab/tools.ts';
import { checkChain, checkManifest, problem, type Problem } from '../../src/policy/manifest.ts';
import { judgeRotation } from '../../src/policy/rotation.ts';

// The node's own code and ours, on the same thousands of manifests, good and bad.

vi.setConfig({ testTimeout: 180_000 });

const Case = z.object({
  name: z.string(),
  stored: z.object({ publicKey: z.string(), keyId: z.string(), entityUri: z.string(), nodeId: z.string() }),
  strict: z.boolean(),
  now: z.string(),
  node: z.string(),
  manifest: z.unknown(),
});
type Case = z.infer<typeof Case>;

const script = fileURLToPath(new URL('../helpers/manifests.py', import.meta.url));

async function vectors(seed: string, count: number): Promise<Case[]> {
  const cwd = mkdtempSync(join(tmpdir(), 'cordon-manifests-'));
  try {
    const env = { PATH: process.env['PATH'] ?? '', HOME: cwd, STIGMEM_DB_PATH: join(cwd, 'stigmem.db') };
    const { stdout } = await run(stigmemPython(), ['-B', script], { env, cwd, input: JSON.stringify({ seed, count }) });
    return stdout
      .trim()
      .split('\n')
      .map((line) => Case.parse(JSON.parse(line)));
  } finally {
    rmSync(cwd, { recursive: true });
  }
}

/** Where ours refuses on purpose what the node takes: exactly why, and which problem says so. */
const stricter: readonly { readonly why: string; readonly is: (problem: Problem, of: Case) => boolean }[] = [
  { why: 'a field is no text where the specification has text', is: ({ expected }) => /^(string|array|object)$/.test(expected) },
  {
    why: 'base64url with padding, another alphabet, junk or unread bits: one key, several fingerprints',
    is: ({ expected }) => expected.includes('in base64url without padding'),
  },
  { why: 'no entity URI', is: ({ expected }) => expected === 'an entity of its own' },
  { why: 'a time that is not RFC 3339 with an offset', is: ({ expected }) => expected.includes('(RFC 3339)') },
  {
    why: 'a time to come: issued, or rotated (the key before would stay good for as long)',
    is: ({ expected }) => expected.startsWith('a time that was'),
  },
  {
    why: 'more than 256 entities: read no further, so the signature does not match',
    is: ({ field }, { manifest }) => field === 'manifest.signature' && entitiesOf(manifest) > 256,
  },
  {
    why: 'a text of more than 2,048 characters: read no further',
    is: ({ field }, { manifest }) => field === 'manifest.signature' && /[^"]{2049}/.test(JSON.stringify(manifest)),
  },
  {
    why: "another key under the stored key's id: the node asks for no chain",
    is: ({ expected }) => expected === "another than the old key's",
  },
  {
    why: 'previous_public_key is not the key before: the node would take that key for days',
    is: ({ field }) => field.endsWith('.previous_public_key'),
  },
  { why: 'the old key under another id is still the old key', is: ({ expected }) => expected === theOldKey },
  { why: 'a key that was there before comes back under another id', is: ({ expected }) => expected.startsWith('a key not used before') },
  { why: 'an event before the pinned key is broken: the node looks at none of them', is: ({ field }, of) => eventOf(field) < startOf(of) },
  {
    why: 'an event before the pinned key does not lead to it',
    is: ({ field, expected }, of) =>
      eventOf(field) === startOf(of) && (expected.startsWith('the key that our node pinned') || expected.endsWith(', the key before')),
  },
  {
    why: 'a key id from before the pinned key',
    is: ({ expected, came }, of) => expected === 'a key id not used before' && idsBefore(of).includes(came),
  },
  {
    why: 'the chain does not end at the manifest, whose key id our node knows already',
    is: ({ expected }, of) => expected.includes('where the chain ends') && startOf(of) === -1,
  },
  {
    why: 'nothing of the chain is asked where the key id is the stored one',
    is: (_problem, { manifest, stored }) => textOf(manifest, 'key_id') === stored.keyId,
  },
];

const Loose = z.looseObject({ entities: z.unknown(), rotation_events: z.unknown() });
const entitiesOf = (manifest: unknown): number => z.array(z.unknown()).catch([]).parse(Loose.parse(manifest).entities).length;
const textOf = (manifest: unknown, name: string): string => z.string().catch('').parse(Loose.parse(manifest)[name]);
const eventOf = (field: string): number => Number(/^manifest\.rotation_events\.(\d+)\./.exec(field)?.[1] ?? Infinity);
function startOf({ manifest, stored }: Case): number {
  const events = z
    .array(z.looseObject({ previous_key_id: z.unknown() }))
    .catch([])
    .parse(Loose.parse(manifest).rotation_events);
  return events.findIndex(({ previous_key_id: id }) => id === stored.keyId);
}

function idsBefore(of: Case): string[] {
  const Ids = z.array(z.looseObject({ previous_key_id: z.string(), new_key_id: z.string() })).catch([]);
  const events = Ids.parse(Loose.parse(of.manifest).rotation_events).slice(0, startOf(of));
  return events.flatMap(({ previous_key_id: before, new_key_id: after }) => [before, after]);
}

const theOldKey = 'another than the old key, whatever its id';
type Said = { readonly takes: boolean; readonly words: string; readonly problems: readonly Problem[] };

/** What ours makes of it, in the node's terms: would it be stored over the pinned key's manifest? */
function ours(of: Case): Said {
  const { stored, strict, now, manifest } = of;
  const said = (takes: boolean, words: string, problems: readonly Problem[] = []): Said => ({ takes, words, problems });
  const own = checkManifest(manifest, { now, strict });
  if (!own.manifest || own.problems.length > 0) return said(false, 'bad', own.problems);
  const { public_key: key, entities } = own.manifest;
  if (key === stored.publicKey) {
    if (own.manifest.key_id !== stored.keyId) return said(false, 'the old key under another id', [problem('key', theOldKey, key)]);
    const { problems } = checkChain(own.manifest, stored);
    return said(problems.length === 0, 'the same key', problems);
  }
  const verdict = judgeRotation({
    // Both of its documents show the new key: what the manifest alone comes to.
    wellKnown: { node_id: stored.nodeId, federation_pubkey: key, entity_uri: own.manifest.entity_uri },
    manifest: entities.includes(stored.nodeId) ? manifest : undefined,
    known: { pinned: stored, pinnedBy: 'node', seen: [], nodeIds: [stored.nodeId], entityUri: '', ourEntityUri: 'stigmem://ours.test' },
    firstBad: null,
    now,
    strict,
  });
  if (!entities.includes(stored.nodeId)) {
    // To the node's store it is all the same whom it names; what the chain comes to is.
    const { start, problems } = checkChain(own.manifest, stored);
    return said(start !== -1 && problems.length === 0, 'without the node_id', problems);
  }
  if (verdict.kind === 'bad') return said(false, 'bad', verdict.problems);
  if (verdict.kind === 'notYet') return said(false, verdict.why);
  return said(verdict.keys.chain !== 'none', `chain ${verdict.keys.chain}`);
}

/** The first reason for each problem; undefined where there is a problem without one, or none at all. */
function reasonsOf(problems: readonly Problem[], of: Case): Set<string> | undefined {
  const whys = problems.map((each) => stricter.find(({ is }) => is(each, of))?.why);
  const known = new Set(whys.filter((why) => why !== undefined));
  return whys.length === 0 || whys.includes(undefined) ? undefined : known;
}

describe('a manifest', () => {
  it("is taken and refused as the node's own code does, on thousands of them, and stricter only for a named reason", async () => {
    const cases: Case[] = [];
    for (const seed of ['a', 'b', 'c', 'd']) cases.push(...(await vectors(seed, 1_200)));
    const agreed = { takes: 0, refuses: 0 };
    const onPurpose = new Map<string, number>();
    const differs: unknown[] = [];
    for (const of of cases) {
      const said = ours(of);
      const takes = of.node === 'stored';
      if (said.takes === takes) agreed[takes ? 'takes' : 'refuses'] += 1;
      else {
        const reasons = takes ? reasonsOf(said.problems, of) : undefined;
        if (reasons) for (const why of reasons) onPurpose.set(why, (onPurpose.get(why) ?? 0) + 1);
        else differs.push({ ...of, ours: said });
      }
    }
    expect(differs).toEqual([]);
    expect(agreed.takes).toBeGreaterThanOrEqual(800);
    expect(agreed.refuses).toBeGreaterThanOrEqual(2_200);
    // A reason that explains nothing any more has no place in the list.
    expect([...onPurpose.keys()].sort()).toEqual(stricter.map(({ why }) => why).sort());
  });
});
