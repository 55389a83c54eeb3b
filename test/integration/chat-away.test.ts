import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitUntil } from '../../src/lab/processes.ts';
import { ChatProcess } from '../helpers/chat.ts';
import { ChatScene, digestOf, isOpen, shortOf, words } from '../helpers/chat-scene.ts';
import { closeAs, gateOpen, status } from '../helpers/workflow-env.ts';

let scene: ChatScene;
beforeAll(async () => {
  scene = await ChatScene.start('chat-away');
}, 240_000);
afterAll(async () => {
  await scene?.stop();
});

describe('when parts are away', () => {
  it('no worker: acknowledged, said to be unconfirmed, one signal however often it is clicked, and it counts later', async () => {
    const incident = await scene.begin('no-worker');
    const card = await scene.card(incident);
    await scene.stopWorker();
    try {
      expect(words(await scene.click('approve', card))).toContain('UNCONFIRMED');
      expect(words(await scene.click('approve', card))).toContain('UNCONFIRMED');
    } finally {
      await scene.startWorker();
    }
    await waitUntil('the vote to count', async () => words(await scene.card(incident)).includes('1 of 2 approved: alice'), {
      timeoutMs: 60_000,
    });
    expect((await scene.decisions(incident)).map(({ refusedBecause }) => refusedBecause)).toEqual([null]);
    await closeAs(incident, 'expelled');
  });

  it('no worker when a gate is found: its card comes once one answers, though nothing else changes', async () => {
    await scene.chat.child.kill();
    const incident = await scene.begin('found-late');
    await gateOpen(incident, 'retract');
    await scene.stopWorker();
    try {
      await scene.startChat();
      await waitUntil('the first round', async () => await scene.chat.isHealthy().catch(() => false), { timeoutMs: 20_000 });
      expect(scene.slack.cards(incident.workflowId)).toEqual([]);
    } finally {
      await scene.startWorker();
    }
    await scene.card(incident);
    await closeAs(incident, 'expelled');
  });

  it('a Temporal server that stands still: acknowledged in under 3 s, said to be unconfirmed; clicked again it counts once', async () => {
    const incident = await scene.begin('frozen');
    const card = await scene.card(incident);
    const pid = scene.env.pid ?? 0;
    expect(pid).toBeGreaterThan(0);
    process.kill(pid, 'SIGSTOP');
    try {
      // Acknowledged in under 3 s: the scene checks it for each click.
      expect(words(await scene.click('approve', card))).toContain('UNCONFIRMED');
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await waitUntil('Temporal', async () => (await status(incident)).run, { timeoutMs: 60_000 });
    await scene.click('approve', card);
    await waitUntil('the vote', async () => (await gateOpen(incident, 'retract')).have === 1);
    expect((await scene.decisions(incident)).filter(({ refusedBecause }) => refusedBecause === null)).toHaveLength(1);
    await closeAs(incident, 'expelled');
  });

  it('Slack: what could not be posted is posted when it answers again, once', async () => {
    scene.slack.failing.set('chat.postMessage', { status: 500, body: 'no' });
    const incident = await scene.begin('slack-away');
    await gateOpen(incident, 'retract');
    await waitUntil('an attempt', async () => !(await scene.chat.isHealthy().catch(() => false)), { timeoutMs: 20_000 });
    scene.slack.failing.set('chat.postMessage', {
      status: 429,
      body: { ok: false, error: 'ratelimited' },
      headers: { 'retry-after': '2' },
    });
    await waitUntil('another', async () => scene.chat.log.includes('rate limited') || undefined, { timeoutMs: 20_000 });
    scene.slack.failing.clear();
    await scene.card(incident);
    await waitUntil('health', async () => await scene.chat.isHealthy().catch(() => false), { timeoutMs: 20_000 });
    expect(scene.slack.cards(incident.workflowId)).toHaveLength(1);
    await closeAs(incident, 'expelled');
  });
});

describe('chat that is killed', () => {
  it('finds its cards again: no second one, and what happened meanwhile is shown', async () => {
    const stays = await scene.begin('killed-stays');
    const ends = await scene.begin('killed-ends');
    const [open, closed] = [await scene.card(stays), await scene.card(ends)];
    await scene.chat.child.kill();
    // Somebody else's message with our kind of metadata is not ours, nor is one that can't be read.
    scene.slack.foreign({ ...open, bot_id: 'B0OTHER', blocks: [] });
    scene.slack.foreign({ ...open, metadata: { event_type: 'cordon_gate', event_payload: { digest: 7 } } });
    await stays.signal('approve', { gate: 'retract', digest: digestOf(open), by: 'bob' });
    await ends.signal('reject', { gate: 'retract', digest: digestOf(closed), by: 'alice' });
    const posted = scene.slack.count('chat.postMessage');
    await scene.startChat();
    const shown = await waitUntil('the cards to be brought up to date', async () => {
      const one = scene.slack.messages.find(({ ts }) => ts === open.ts);
      const other = scene.slack.messages.find(({ ts }) => ts === closed.ts);
      return one && other && words(one).includes('1 of 2 approved: bob') && words(other).includes('REJECTED') ? [one, other] : undefined;
    });
    expect(words({ blocks: shown.flatMap(({ blocks }) => blocks) })).toContain('by alice');
    expect(scene.slack.count('chat.postMessage')).toBe(posted);
    expect(words(await scene.click('approve', open))).toContain('(2 of 2 approvals)');
    for (const incident of [stays, ends]) await closeAs(incident, 'expelled');
  });

  it('two at once post one card, whoever comes first, and both keep it up to date', async () => {
    scene.slack.postDelayMs = 500;
    const other = await ChatProcess.start('chat-away-b', scene.slack, scene.env.address);
    try {
      await waitUntil('the other one', async () => await other.isHealthy());
      const incidents = await Promise.all(['pair-1', 'pair-2', 'pair-3'].map((name) => scene.begin(name)));
      for (const incident of incidents) await scene.card(incident);
      await waitUntil('one card each', async () => incidents.every(({ workflowId }) => scene.slack.cards(workflowId).length === 1));
      const [incident] = incidents;
      if (incident === undefined) throw new Error('unreachable');
      await scene.chat.child.kill();
      const card = await scene.card(incident);
      await incident.signal('reject', { gate: 'retract', digest: digestOf(card), by: 'bob' });
      await scene.cardSaying(incident, 'REJECTED');
      await scene.startChat();
      // A card that the other one was about to post when the first was killed is taken back, at the latest by who comes next.
      await waitUntil('one card each still', async () => incidents.every(({ workflowId }) => scene.slack.cards(workflowId).length === 1));
      for (const each of incidents) await closeAs(each, 'expelled');
    } finally {
      scene.slack.postDelayMs = 0;
      await other.child.stop();
    }
  });
});

it('chat that only tells: cards without buttons, and what would decide is refused before it is sent', async () => {
  const incident = await scene.begin('only-tells');
  await scene.chat.child.stop();
  await scene.startChat({ CORDON_CHAT_DECISIONS: 'off' });
  const card = await scene.card(incident, (seen) => !isOpen(seen));
  expect(words(card)).toContain('Chat only tells here');
  const value = `retract ${digestOf(card)} ${incident.workflowId}`;
  expect(words(await scene.click('approve', card, { value }))).toContain('chat only tells here');
  expect(await scene.type(`approve only-tells retract ${shortOf(card)}`)).toContain('chat only tells here');
  expect(await scene.decisions(incident)).toEqual([]);
  await closeAs(incident, 'expelled');
});

it('nothing that was sent to Slack went over its limits or held markup, and no secret stands in a history or a log', async () => {
  await expect(scene.assertClean()).resolves.toBeUndefined();
});
