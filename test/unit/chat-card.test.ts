import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { printed, section } from '../../src/chat/blocks.ts';
import { buttonValue, ButtonValue, cardBlocks, cardText, type Ending, type Opening } from '../../src/chat/card.ts';
import { parseCommand } from '../../src/chat/commands.ts';
import { gates } from '../../src/contract/names.ts';
import { blockKitProblems, buttonsOf, wordsOf } from '../helpers/block-kit.ts';

const digest = `sha256:${'0123456789ab'.padEnd(64, 'c')}`;
const opening: Opening = {
  incident: 'peer-compromise:node:peer',
  run: '0190a1b2-c3d4',
  mode: 'live',
  peer: 'node:peer',
  phase: 'retract',
  round: 1,
  gate: 'retract',
  opening: 1,
  digest,
  have: 1,
  need: 2,
  since: '2026-11-23T01:00:00.000Z',
  expiresAt: '2026-11-24T01:00:00.000Z',
  summary: 'suppress 620, keep 3',
  evidence: `sha256:${'e'.repeat(64)}`,
  approvedBy: ['alice'],
};
const options = { decisions: true, uiUrl: 'http://127.0.0.1:8233', namespace: 'default' };
const ending: Ending = { how: 'approved', by: ['alice', 'bob'], detail: 'Decided at 2026-11-23T02:00:00Z' };

describe('a card', () => {
  it('says what it is about, how far it is, and until when', () => {
    const words = wordsOf(cardBlocks(opening, options));
    for (const part of [
      'Gate retract waits: node:peer',
      'suppress 620, keep 3',
      '0123456789ab',
      digest,
      '2026-11-24 01:00 UTC',
      '1 of 2',
      'alice',
    ])
      expect(words).toContain(part);
    expect([...buttonsOf(cardBlocks(opening, options)).keys()]).toEqual(['cordon_approve', 'cordon_reject', 'cordon_open']);
  });

  it('asks again before it approves, and shows it as dangerous', () => {
    const blocks = JSON.stringify(cardBlocks(opening, options));
    expect(blocks).toContain('"style":"danger"');
    expect(blocks).toContain('Approve gate retract?');
  });

  it('has no button any more once it ended, and says how', () => {
    const blocks = cardBlocks(opening, options, ending);
    expect([...buttonsOf(blocks).keys()]).toEqual(['cordon_open']);
    expect(wordsOf(blocks)).toContain('APPROVED by alice, bob');
    expect(blockKitProblems({ text: cardText(opening, ending), blocks })).toEqual([]);
  });

  it('has no button where chat only tells, nor where an approval takes a fingerprint', () => {
    expect([...buttonsOf(cardBlocks(opening, { ...options, decisions: false })).keys()]).toEqual(['cordon_open']);
    expect([...buttonsOf(cardBlocks({ ...opening, gate: 'reregister' }, options)).keys()]).toEqual(['cordon_reject', 'cordon_open']);
  });

  it('fits what Slack takes, and holds no markup, whatever a peer calls itself', () => {
    const hostile = fc.oneof(
      fc.string({ maxLength: 3_000, unit: 'binary' }),
      fc.string({ maxLength: 3_000, unit: 'grapheme' }),
      fc.constantFrom(
        '<!channel>',
        '<https://evil.test|cordon approve>',
        '*bold*\n# head',
        '@here',
        '\u202Etxt',
        '\uD83D'.repeat(2_001),
        '',
      ),
    );
    const given = fc.record({
      peer: hostile,
      summary: hostile,
      incident: hostile.map((text) => text.slice(0, 1_000)),
      approvedBy: fc.array(hostile, { maxLength: 20 }),
      evidence: hostile,
      gate: fc.constantFrom(...gates),
      mode: fc.constantFrom('live' as const, 'drill' as const),
    });
    fc.assert(
      fc.property(given, fc.boolean(), fc.boolean(), (change, decisions, isOver) => {
        const shown = { ...opening, ...change };
        const over = isOver ? { ...ending, by: change.approvedBy, detail: change.summary } : undefined;
        const message = { text: cardText(shown, over), blocks: cardBlocks(shown, { ...options, decisions }, over) };
        expect(blockKitProblems(message)).toEqual([]);
        // No line of ours can be made by somebody else's text.
        expect(JSON.stringify(wordsOf(message.blocks))).not.toMatch(/[\u202A-\u202E\u2066-\u2069]|\\u[dD][89abAB]/);
      }),
      { numRuns: 300 },
    );
  });
});

describe('what a button carries', () => {
  it('comes back as it was', () => {
    fc.assert(
      fc.property(fc.constantFrom(...gates), fc.string({ minLength: 1, maxLength: 1_000, unit: 'binary' }), (gate, incident) => {
        fc.pre(incident.length <= 1_000);
        expect(ButtonValue.parse(buttonValue({ gate, digest, incident }))).toEqual({ gate, digest, incident });
      }),
    );
  });

  it.each([
    '',
    'retract',
    `retract ${digest}`,
    `retract ${digest.slice(0, 20)} x`,
    `nonsense ${digest} x`,
    `retract ${digest} ${'x'.repeat(2_000)}`,
  ])('is refused as %j', (value) => {
    expect(ButtonValue.safeParse(value).success).toBe(false);
  });
});

describe('what is typed after /cordon', () => {
  const payload = { gate: 'retract', decision: 'approve', digest: 'sha256:0123456789ab', by: 'alice' };
  it.each([
    ['approve node retract sha256:0123456789ab', payload],
    ['approve node retract 0123456789ab', payload],
    ['  approve   node --gate retract --digest sha256:0123456789ab ', payload],
    ['approve node retract 0123456789ab read it with bob', { ...payload, note: 'read it with bob' }],
    ['approve node retract 0123456789ab --note read it', { ...payload, note: 'read it' }],
    [`approve node retract 0123456789ab --fingerprint ${digest}`, { ...payload, fingerprint: digest }],
    ['reject node close 0123456789ab', { ...payload, gate: 'close', decision: 'reject' }],
  ])('%s', (text, expected) => {
    expect(parseCommand(text, 'alice')).toEqual({ verb: expected.decision, incident: 'node', payload: expected });
  });

  it.each([
    ['approve node retract', 'which plan'],
    ['approve node', 'an incident and a gate'],
    ['approve node retract 0123', '12 to 64'],
    ['approve node retract 0123456789ab --by bob', 'as who you are'],
    ['approve node retract 0123456789ab --force', 'force'],
    ['show', 'which incident'],
    ['expel node', 'expected list, show'],
  ])('%s is refused', (text, words) => {
    expect(() => parseCommand(text, 'alice')).toThrow(words);
  });

  it('knows help and list', () => {
    expect([parseCommand('', 'a').verb, parseCommand('help', 'a').verb, parseCommand(' list ', 'a').verb]).toEqual([
      'help',
      'help',
      'list',
    ]);
  });
});

it('what a command printed fits into a message, cut with a word about it', () => {
  const long = printed(`${'x'.repeat(5_000)}\n${'line\n'.repeat(5_000)}`);
  expect(blockKitProblems({ text: 'cordon', blocks: long })).toEqual([]);
  expect(wordsOf(long)).toContain('Cut:');
  expect(blockKitProblems({ text: 'cordon', blocks: [...printed(''), section('')] })).toEqual([]);
});
