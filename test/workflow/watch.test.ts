import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { defaultPolicy } from '../../src/contract/policy.ts';
import { back } from '../helpers/way-back.ts';
import { approve, closeAs, decide, devServer, gateOpen, status, stepOf, until, waits } from '../helpers/workflow-env.ts';

describe('a watch under way, on a real clock', () => {
  let real: Awaited<ReturnType<typeof devServer>>;
  beforeAll(async () => {
    real = await devServer('way-back');
  });
  afterAll(async () => {
    await real?.stop();
  });

  test('lasts longer by a word of those who may approve, for so long at most', async () => {
    const gates = { ...defaultPolicy.gates, restore: { ...defaultPolicy.gates.restore, approvers: ['bob'] } };
    await back(
      real,
      async ({ incident, world }) => {
        const { run } = await status(incident);
        await incident.signal('extend', { for: '1h', run, by: 'bob' });
        await until(incident, ({ refused }) => refused.last.some(({ because }) => because === 'not_open'), 'refused before the watch');
        await approve(incident, 'testPull');
        const before = (await waits(incident, 'watch')).why ?? '';
        await incident.signal('extend', { for: '1h', run, by: 'mallory' });
        await incident.signal('extend', { for: '9999d', run, by: 'bob' });
        await incident.signal('extend', { for: '3s', run: 'another-run', by: 'bob' });
        await until(incident, ({ refused }) => refused.count === 4, 'refused');
        expect((await status(incident)).refused.last.map(({ because }) => because).toSorted()).toEqual([
          'malformed',
          'not_allowed',
          'not_open',
          'stale_run',
        ]);
        await incident.signal('extend', { for: '3s', run, by: 'bob', note: 'not sure' });
        const longer = await until(incident, ({ notes }) => notes.some(({ text }) => text.includes('extended by 3s')), 'extended');
        await until(
          incident,
          (now) => now.waitingFor.some((one) => one.kind === 'step' && one.step === 'watch' && one.why !== before),
          'anew',
        );
        expect(longer.phase).toBe('watch');
        const asked = world.calls.get('watchPeer') ?? 0;
        await gateOpen(incident, 'restore');
        expect(asked).toBeGreaterThan(1);
        const [watched] = (await status(incident)).steps.filter(({ name }) => name === 'watch');
        expect(watched).toMatchObject({ outcome: 'verified' });
        const [, from = '', to = ''] = /from (\S+) to (\S+):/.exec(watched?.detail ?? '') ?? [];
        expect(Date.parse(to) - Date.parse(from)).toBeGreaterThanOrEqual(9_000);
      },
      { policy: { ...defaultPolicy, gates } },
      { watch: '6s' },
    );
  });

  test('ends sooner only behind gate skip', async () => {
    await back(real, async ({ incident }) => {
      await approve(incident, 'testPull');
      const { run } = await waits(incident, 'watch');
      await incident.signal('skip', { step: 'watch', run, by: 'alice', note: 'known good' });
      await gateOpen(incident, 'skip');
      expect(stepOf(await status(incident), 'watch')).toBeUndefined();
      await approve(incident, 'skip');
      await gateOpen(incident, 'restore');
      expect(stepOf(await status(incident), 'watch')).toMatchObject({ outcome: 'unverified', detail: 'skipped by alice: known good' });
    });
  });

  test('looks at once when people ask for it', async () => {
    await back(real, async ({ incident, world }) => {
      await approve(incident, 'testPull');
      const { run } = await waits(incident, 'watch');
      await until(incident, () => world.calls.get('watchPeer') === 1, 'a look');
      world.trips.push({ wire: 'burst', why: 'many facts', ids: [] });
      await incident.signal('retry', { step: 'watch', run, by: 'alice' });
      await gateOpen(incident, 'reregister', 2);
    });
  });

  test('goes on while people are asked for full trust: a trip takes the question back', async () => {
    const policy = { ...defaultPolicy, gates: { ...defaultPolicy.gates, restore: { ...defaultPolicy.gates.restore, need: 2 } } };
    await back(
      real,
      async ({ incident, world }) => {
        await approve(incident, 'testPull');
        await approve(incident, 'restore', 'bob');
        const { run } = await waits(incident, 'watch');
        world.trips.push({ wire: 'replays', why: 'six within an hour', ids: [] });
        await incident.signal('retry', { step: 'watch', run, by: 'alice' });
        await gateOpen(incident, 'reregister', 2);
        expect((await status(incident)).waitingFor.some((one) => one.kind === 'gate' && one.gate === 'restore')).toBe(false);
      },
      { policy },
      { watch: '2s' },
    );
  });

  test('goes on when full trust is rejected, for as long again', async () => {
    await back(
      real,
      async ({ incident }) => {
        await approve(incident, 'testPull');
        const { digest } = await gateOpen(incident, 'restore');
        await decide(incident, { gate: 'restore', decision: 'reject', digest, by: 'bob' });
        await gateOpen(incident, 'restore', 2);
        await approve(incident, 'restore');
        expect((await incident.result()).outcome).toBe('restored');
      },
      {},
      { watch: '2s' },
    );
  });

  test('expelled in the middle of it: fenced first', async () => {
    await back(real, async ({ incident, world, host }) => {
      await approve(incident, 'testPull');
      await waits(incident, 'watch');
      const fenced = world.calls.get('fenceInbound') ?? 0;
      expect((await closeAs(incident, 'expelled')).outcome).toBe('expelled');
      expect(world.calls.get('fenceInbound')).toBe(fenced + 1);
      expect(host.calls.get('endHolds')).toBe(1);
    });
  });

  test('dismissed in the middle of it: all is given back, and what was held back is shown', async () => {
    await back(real, async ({ incident, host }) => {
      await approve(incident, 'testPull');
      await waits(incident, 'watch');
      expect((await closeAs(incident, 'dismissed')).outcome).toBe('dismissed');
      for (const name of ['endHolds', 'restoreOnHost', 'reinstatePeers']) expect(host.calls.get(name), name).toBe(1);
    });
  });

  test('goes on in the next run, and what is asked through the switch is answered', async () => {
    await back(
      real,
      async ({ incident, world }) => {
        await approve(incident, 'testPull');
        const { run: first } = await waits(incident, 'watch');
        const sent: Promise<unknown>[] = [];
        for (let junk = 0; junk < 2_100; junk += 50) {
          sent.push(...Array.from({ length: 50 }, () => incident.signal('sudo', {})));
          await Promise.all(sent.splice(0));
        }
        const latest = real.client.workflow.getHandle<typeof import('../../workflows/index.ts').PeerCompromise>(incident.workflowId);
        // Every kind of message while it switches: each is taken, or refused on record.
        const asked = ['note', 'alert', 'retry', 'skip', 'close', 'extend', 'approve'].map((name) => latest.signal(name, {}));
        const decided = latest.executeUpdate('decide', {
          args: [{ gate: 'restore', decision: 'approve', digest: `sha256:${'0'.repeat(64)}`, by: 'bob' }],
        });
        await Promise.all(asked);
        expect(await decided).toMatchObject({ accepted: false, refusedBecause: 'not_open' });
        const next = await until(latest, ({ run }) => run !== first, 'the next run', 60_000);
        expect(next.refused.count).toBeGreaterThanOrEqual(2_100 + 8);
        expect(next).toMatchObject({ phase: 'watch', round: 1 });
        const { run, why } = await waits(latest, 'watch');
        expect(why).toContain('The peer is in, and watched since');
        world.trips.push({ wire: 'replays', why: 'six within an hour', ids: [] });
        await latest.signal('retry', { step: 'watch', run, by: 'alice' });
        await gateOpen(latest, 'reregister', 2);
        expect(stepOf(await status(latest), 'judgeBacklog')).toBeDefined();
      },
      {},
      { watch: '1h' },
    );
  });
});
