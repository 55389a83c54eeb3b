import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitUntil } from '../../src/lab/processes.ts';
import { buttonsOf } from '../helpers/block-kit.ts';
import { clickBody, nowS, sign } from '../helpers/chat.ts';
import { ChatScene, digestOf, isOpen, shortOf, words } from '../helpers/chat-scene.ts';
import { closeAs, gateOpen, status } from '../helpers/workflow-env.ts';

let scene: ChatScene;
beforeAll(async () => {
  scene = await ChatScene.start('chat');
}, 240_000);
afterAll(async () => {
  await scene?.stop();
});

describe('a gate that opens', () => {
  it('gets one card, which goes with it to the end; approvals from chat count, and the audit knows who clicked', async () => {
    const incident = await scene.begin('whole');
    const card = await scene.card(incident);
    const { digest, expiresAt } = await gateOpen(incident, 'retract');
    const said = words(card);
    for (const part of [digest, digest.slice(7, 19), 'Gate retract waits', '0 of 2', expiresAt.slice(0, 10), incident.workflowId])
      expect(said).toContain(part);
    expect(buttonsOf(card.blocks).get('cordon_approve')).toBe(`retract ${digest} ${incident.workflowId}`);
    expect(JSON.stringify(card.blocks)).toContain('http://127.0.0.1:8233/namespaces/default/workflows/peer-compromise%3Awhole/');

    expect(words(await scene.click('approve', card))).toContain('Counted: approve of gate retract by alice (1 of 2 approvals)');
    const half = await scene.cardSaying(incident, '1 of 2 approved: alice');
    expect(half.ts).toBe(card.ts);
    expect(words(await scene.click('approve', card, { user: 'U0BOB' }))).toContain('(2 of 2 approvals)');
    const over = await scene.cardSaying(incident, 'APPROVED');
    expect(words(over)).toContain('by alice, bob');
    expect([...buttonsOf(over.blocks).keys()]).toEqual(['cordon_open']);
    expect(scene.slack.cards(incident.workflowId)).toHaveLength(1);

    const votes = await scene.decisions(incident);
    expect(votes.map(({ by, refusedBecause, via }) => [by, refusedBecause, via])).toEqual([
      ['alice', null, 'update'],
      ['bob', null, 'update'],
    ]);
    expect(votes[0]?.identity).toMatch(/^cordon-chat@.+ slack:U0ALICE$/);
    await closeAs(incident, 'expelled');
  });

  it('is rejected by a click, and says by whom', async () => {
    const incident = await scene.begin('rejected');
    const card = await scene.card(incident);
    expect(words(await scene.click('reject', card, { user: 'U0BOB' }))).toContain('Counted: reject');
    expect(words(await scene.cardSaying(incident, 'REJECTED'))).toContain('by bob');
    await closeAs(incident, 'expelled');
  });

  it('is decided elsewhere: the card follows', async () => {
    const incident = await scene.begin('elsewhere');
    const card = await scene.card(incident);
    const digest = digestOf(card);
    await incident.signal('approve', { gate: 'retract', digest, by: 'bob' });
    await scene.cardSaying(incident, '1 of 2 approved: bob');
    await incident.signal('reject', { gate: 'retract', digest, by: 'alice' });
    expect(words(await scene.cardSaying(incident, 'REJECTED'))).toContain('by alice');
    await closeAs(incident, 'expelled');
  });

  it('expires: its card says so, and the next opening has its own', async () => {
    const incident = await scene.begin('expires', { gates: { retract: { expiresAfter: '8s' } } });
    const first = await scene.card(incident);
    const second = await scene.card(incident, (seen) => seen.ts !== first.ts);
    await scene.card(incident, (seen) => seen.ts === first.ts && words(seen).includes('EXPIRED'));
    expect(digestOf(second)).not.toBe(digestOf(first));
    await closeAs(incident, 'expelled');
    await waitUntil('every card to be shut', async () => scene.slack.cards(incident.workflowId).every((card) => !isOpen(card)));
  });
});

describe('a click', () => {
  it('made twice, or sent again, is one decision', async () => {
    const incident = await scene.begin('double');
    const card = await scene.card(incident);
    const answers = await Promise.all([1, 2, 3].map(() => scene.click('approve', card)));
    for (const answer of answers) expect(words(answer)).toContain('(1 of 2 approvals)');
    // Later, under a new signature: the same click still.
    expect(words(await scene.click('approve', card))).toContain('Counted: approve of gate retract by alice (1 of 2 approvals)');
    // The same request to the letter is not even looked at.
    const body = clickBody('approve', card, { user: 'U0ALICE', to: 'copied', slack: scene.slack });
    const headers = sign(body, nowS());
    expect([(await scene.chat.request(body, headers)).status, (await scene.chat.request(body, headers)).status]).toEqual([200, 401]);
    await scene.reply('copied');
    expect((await scene.decisions(incident)).map(({ refusedBecause }) => refusedBecause)).toEqual([null]);
    expect((await status(incident)).refused.count).toBe(0);
    await closeAs(incident, 'expelled');
  });

  it('by somebody who is not in the people file sends nothing to Temporal', async () => {
    const incident = await scene.begin('unmapped');
    const card = await scene.card(incident);
    const before = (await incident.describe()).historyLength;
    expect(words(await scene.click('approve', card, { user: 'U0MALLORY' }))).toContain('not in the people file');
    expect(await scene.type(`approve ${incident.workflowId} retract ${shortOf(card)}`, { user: 'U0MALLORY' })).toContain(
      'not in the people file',
    );
    expect((await incident.describe()).historyLength).toBe(before);
    await closeAs(incident, 'expelled');
  });

  it('by somebody whom the policy does not allow is refused by the incident, on record', async () => {
    const incident = await scene.begin('not-allowed');
    const card = await scene.card(incident);
    scene.chat.people('U0ALICE: alice\nU0BOB: bob\nU0CAROL: carol\n');
    expect(words(await scene.click('approve', card, { user: 'U0CAROL' }))).toContain('REFUSED (not_allowed)');
    expect((await status(incident)).refused.last[0]).toMatchObject({ by: 'carol', because: 'not_allowed' });
    await closeAs(incident, 'expelled');
  });

  it('on a stale card is refused, with the reason and the new card, which can be clicked', async () => {
    const incident = await scene.begin('stale');
    const card = await scene.card(incident);
    const { digest } = await gateOpen(incident, 'retract');
    await incident.signal('amend', { gate: 'retract', digest, keep: [{ factId: 'fact-a', justification: 'ours' }], by: 'bob' });
    const { digest: now } = await gateOpen(incident, 'retract', 2);
    const answer = await scene.click('approve', card);
    expect(words(answer)).toContain('REFUSED (stale_digest)');
    expect(words(answer)).toContain(now);
    expect(buttonsOf(answer.blocks).get('cordon_approve')).toBe(`retract ${now} ${incident.workflowId}`);
    const superseded = await scene.card(incident, (seen) => seen.ts === card.ts && words(seen).includes('SUPERSEDED'));
    expect(isOpen(superseded)).toBe(false);
    expect(words(await scene.click('approve', { ts: card.ts, blocks: answer.blocks }))).toContain('Counted');
    await closeAs(incident, 'expelled');
  });

  it('with a value that is not ours, or on an incident that is over, sends nothing', async () => {
    const incident = await scene.begin('over');
    const card = await scene.card(incident);
    expect(words(await scene.click('approve', card, { user: 'U0ALICE', value: 'rm -rf' }))).toContain('nothing was sent');
    await closeAs(incident, 'expelled');
    expect(words(await scene.click('approve', card))).toContain('is closed');
    await waitUntil('the card to be shut', async () => scene.slack.cards(incident.workflowId).every((seen) => !isOpen(seen)));
  });
});

describe('commands', () => {
  it('list, show, approve and reject', async () => {
    const incident = await scene.begin('typed');
    const card = await scene.card(incident);
    const hex = shortOf(card);
    expect(await scene.type('list')).toContain('peer-compromise:typed');
    expect(await scene.type('show typed')).toContain('gate retract, opening 1: 0 of 2 approvals');
    expect(await scene.type('show nobody-has-this')).toContain('no incident is called');
    expect(await scene.type(`approve typed retract 000000000000`)).toContain('REFUSED (stale_digest)');
    expect(await scene.type(`approve typed retract ${hex} read it with bob`)).toContain('(1 of 2 approvals)');
    expect(await scene.type(`approve typed retract ${hex}`)).toContain('REFUSED (already_counted)');
    expect(await scene.type(`reject typed retract sha256:${hex}`, { user: 'U0BOB' })).toContain('Counted: reject');
    const votes = await scene.decisions(incident);
    expect(votes.map(({ by, refusedBecause, note }) => [by, refusedBecause, note])).toEqual([
      ['alice', 'stale_digest', ''],
      ['alice', null, 'read it with bob'],
      ['alice', 'already_counted', ''],
      ['bob', null, ''],
    ]);
    await closeAs(incident, 'expelled');
  });

  it('one that Slack sends again is one decision', async () => {
    const incident = await scene.begin('retried');
    const card = await scene.card(incident);
    const text = `approve retried retract ${shortOf(card)}`;
    const trigger = '398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c';
    for (let sent = 0; sent < 2; sent += 1) {
      expect(await scene.type(text, { trigger })).toContain('Counted: approve of gate retract by alice (1 of 2 approvals)');
    }
    expect(await scene.decisions(incident)).toHaveLength(1);
    await closeAs(incident, 'expelled');
  });
});

it('nothing that was sent to Slack went over its limits or held markup, and no secret stands in a history or a log', async () => {
  await expect(scene.assertClean()).resolves.toBeUndefined();
});
