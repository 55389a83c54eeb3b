import { describe, expect, it } from 'vitest';
import { inlineCode } from '../../src/notify/markdown.ts';
import { downstreamNotice, localNotice, peerNotice, type NoticeInput } from '../../src/notify/notices.ts';

const input: NoticeInput = {
  mode: 'live',
  reference: '01a20666',
  at: '2026-11-23T03:00:00.000Z',
  ours: { contact: { name: 'Home operations', contact: 'ops@home.example' }, nodeId: 'node:ours' },
  peer: {
    nodeId: 'node:peer',
    url: 'https://peer.example',
    entityUri: 'stigmem://peer.example/node/self',
    peerIds: ['row-1'],
    nodeIds: ['node:peer'],
    allowedScopes: ['company'],
  },
  alerts: [
    { name: 'peer_replay_burst', at: '2026-11-23T01:00:00Z', corroborated: true, why: 'rule secret-rule-7', eventIds: ['ev-1', 'ev-2'] },
    { name: 'peer_capability_violation', at: null, corroborated: false, why: 'no event', eventIds: [] },
  ],
  steps: [
    { name: 'fenceInbound', outcome: 'verified', at: '2026-11-23T02:00:00Z' },
    { name: 'fenceOutbound', outcome: 'manual', at: '2026-11-23T02:01:00Z' },
    { name: 'revokeKeys', outcome: 'unavailable', at: '2026-11-23T02:02:00Z' },
  ],
  firstBad: { at: '2026-11-23T00:30:00Z', from: 'arrival' },
  residual: [{ what: 'recall', why: 'still answers for stigmem://home/agent/secret', count: 2 }],
  plan: { scopes: ['company', 'local'], examples: ['fact-1', 'fact-2'], affected: 2, unreadable: 0 },
  callers: null,
};

describe("the notice to the peer's operator", () => {
  const { markdown, subject } = peerNotice(input);

  it('1. names the peer by entity URI and URL', () => {
    expect(markdown).toContain('Entity URI: `stigmem://peer.example/node/self`');
    expect(markdown).toContain('URL: `https://peer.example`');
  });

  it('2. lists alert names and times, and whether our audit bears them out', () => {
    expect(markdown).toContain('`peer_replay_burst`, `2026-11-23T01:00:00Z`: corroborated by our audit log (2 events)');
    expect(markdown).toContain('`peer_capability_violation`, time not given: not corroborated by our audit log');
  });

  it('3. gives fact ids and audit event ids as examples', () => {
    for (const line of ['fact `fact-1`', 'fact `fact-2`', 'audit event `ev-1`', 'audit event `ev-2`']) expect(markdown).toContain(line);
  });

  it('4. says of each contain step what was read back, and claims nothing else', () => {
    expect(markdown).toContain('accepting facts from your node: disabled and read back, `2026-11-23T02:00:00Z`');
    expect(markdown).toContain('serving facts to your node: disabled by hand and read back');
    expect(markdown).toContain('API keys and agent keys issued to your entities: not confirmed as disabled so far');
    expect(markdown).toContain('capability tokens issued to your node: not confirmed as disabled so far');
  });

  it('5. asks for root cause, keys, manifest and a fingerprint over another channel', () => {
    expect(markdown).toMatch(/root cause[\s\S]*new node keys[\s\S]*new manifest[\s\S]*fingerprint of the new key[\s\S]*another channel/);
  });

  it('tells a peer that may be hostile no rule, residual risk, scope or other party', () => {
    for (const hidden of ['secret-rule-7', 'stigmem://home', 'recall', 'local', 'company']) expect(markdown).not.toContain(hidden);
  });

  it('says drill in its first line and subject', () => {
    const drill = peerNotice({ ...input, mode: 'drill' });
    expect(drill.markdown.split('\n')[0]).toContain('DRILL');
    expect(drill.subject).toBe(`DRILL: ${subject}`);
  });

  it('says so where nothing is known', () => {
    const { markdown: bare } = peerNotice({ ...input, alerts: [], plan: null, firstBad: null, peer: { ...input.peer, entityUri: '' } });
    expect(bare).toContain('Entity URI: not known to us');
    expect(bare).toContain('No alert was raised');
    expect(bare).toContain('No fact or audit event can be named');
  });
});

describe('the other notices', () => {
  it('tells a downstream operator the shared scopes only, and names no agent', () => {
    const { markdown } = downstreamNotice(input, ['company']);
    expect(markdown).toContain('- `company`');
    expect(markdown).not.toContain('`local`');
    expect(markdown).not.toContain('stigmem://home');
    expect(markdown).toContain('a retracted fact can still be recalled');
  });

  it('says that callers are not knowable, or names them', () => {
    expect(localNotice(input).markdown).toContain('not knowable on this node');
    const caller = { caller: 'stigmem://home/agent/a', scope: 'company', times: 3, last: '2026-11-23T01:30:00Z' };
    const named = localNotice({ ...input, callers: [caller] }).markdown;
    expect(named).toContain('`stigmem://home/agent/a`: 3 times in `company`, last `2026-11-23T01:30:00Z`');
    expect(named).toContain('who read facts otherwise, is recorded nowhere');
    expect(localNotice({ ...input, callers: [] }).markdown).toContain('Nobody asked recall in the affected scopes');
  });
});

describe('hostile strings', () => {
  const attacks = [
    'x`\n# Owned\n[click](https://evil.example)',
    '``` `` `\r\n\r\n<img src=x onerror=alert(1)>',
    '\u202Egnp.exe\u0000\u001b[31m\u2028# heading',
    '`[a](javascript:alert(1))`',
    '`'.repeat(500),
    '   ',
    `${'a'.repeat(5_000)}![](https://evil.example/pixel)`,
  ];

  it.each(attacks)('%j stays inside one code span on one line', (attack) => {
    const code = inlineCode(attack);
    expect(code).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    const fence = /^`+/.exec(code)?.[0] ?? '';
    const inside = code.slice(fence.length, -fence.length);
    expect(code.endsWith(fence)).toBe(true);
    expect(inside.match(/`+/g) ?? []).not.toContain(fence);
    expect(code.length).toBeLessThan(1_500);
  });

  it.each(attacks)('%j adds no line, heading or link to a notice', (attack) => {
    const hostile: NoticeInput = {
      ...input,
      peer: { ...input.peer, nodeId: attack, url: attack, entityUri: attack, nodeIds: [attack] },
      alerts: [{ name: attack, at: attack, corroborated: true, why: attack, eventIds: [attack] }],
      plan: { scopes: [attack], examples: [attack], affected: 1, unreadable: 0 },
    };
    const honest = {
      ...hostile,
      peer: { ...input.peer, nodeIds: ['n'] },
      alerts: [{ name: 'a', at: 'b', corroborated: true, why: 'c', eventIds: ['d'] }],
      plan: { scopes: ['s'], examples: ['e'], affected: 1, unreadable: 0 },
    };
    for (const make of [peerNotice, localNotice, (of: NoticeInput) => downstreamNotice(of, of.plan?.scopes ?? [])]) {
      const [bad, good] = [make(hostile).markdown.split('\n'), make(honest).markdown.split('\n')];
      expect(bad).toHaveLength(good.length);
      expect(bad.filter((line) => line.startsWith('#'))).toEqual(good.filter((line) => line.startsWith('#')));
      for (const line of bad) expect(withoutCode(line)).not.toMatch(/\]\(|<|onerror/);
    }
  });
});

/** The line without its code spans, as CommonMark pairs them: a run of backticks ends at the next run of its length. */
function withoutCode(line: string): string {
  const runs = line.split(/(`+)/);
  let out = '';
  for (let i = 0; i < runs.length; i += 1) {
    const run = runs[i] ?? '';
    const end = run.startsWith('`') ? runs.indexOf(run, i + 1) : -1;
    if (end > 0) i = end;
    else out += run;
  }
  return out;
}
