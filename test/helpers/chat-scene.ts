import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from '@temporalio/worker';
import { project } from '../../src/audit/project.ts';
import { readHistory } from '../../src/audit/read.ts';
import { defaultPolicy, type GatePolicy } from '../../src/contract/policy.ts';
import { waitUntil } from '../../src/lab/processes.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { buttonsOf, wordsOf } from './block-kit.ts';
import { ChatProcess, signingSecret } from './chat.ts';
import { fakeActivities, fakeWorld } from './fake-activities.ts';
import { SlackStub, type Reply, type StubMessage } from './slack-stub.ts';
import { converterPath, devServer, workflowBundle, type Incident } from './workflow-env.ts';

const taskQueue = 'chat';

/** The built `cordon chat` between a Slack that is played, and a Temporal server and a workflow that are real. */
export class ChatScene {
  readonly slack = new SlackStub();
  readonly env: Awaited<ReturnType<typeof devServer>>;
  readonly name: string;
  #chat: ChatProcess | undefined;
  #worker: (() => Promise<void>) | undefined;
  #asked = 0;

  private constructor(name: string, env: Awaited<ReturnType<typeof devServer>>) {
    this.name = name;
    this.env = env;
  }

  static async start(name: string): Promise<ChatScene> {
    const scene = new ChatScene(name, await devServer(`${name}-temporal`));
    await scene.slack.start();
    await scene.startWorker();
    rmSync(join(repoRoot, '.test', name), { recursive: true, force: true });
    await scene.startChat();
    return scene;
  }

  async stop(): Promise<void> {
    await this.#chat?.child.stop();
    await this.stopWorker();
    await this.slack.stop();
    await this.env.stop();
  }

  get chat(): ChatProcess {
    if (this.#chat === undefined) throw new Error('chat was not started');
    return this.#chat;
  }

  async startChat(settings: Record<string, string> = {}): Promise<void> {
    this.#chat = await ChatProcess.start(this.name, this.slack, this.env.address, settings);
  }

  /** Gate retract takes two approvals, of alice and bob. */
  async startWorker(): Promise<void> {
    const rules: GatePolicy = { need: 2, approvers: ['alice', 'bob'], expiresAfter: '24h', remindEvery: '4h' };
    const policy = { ...defaultPolicy, gates: { ...defaultPolicy.gates, retract: rules } };
    const worker = await Worker.create({
      connection: this.env.nativeConnection,
      taskQueue,
      workflowBundle: await workflowBundle(),
      dataConverter: { payloadConverterPath: converterPath },
      activities: fakeActivities(fakeWorld({ policy })),
    });
    const running = worker.run();
    this.#worker = async () => {
      worker.shutdown();
      await running;
    };
  }

  async stopWorker(): Promise<void> {
    await this.#worker?.();
    this.#worker = undefined;
  }

  async begin(name: string, policy?: object): Promise<Incident> {
    const args = [{ peer: `https://${name}.example`, ...(policy === undefined ? {} : { policy }) }];
    return await this.env.client.workflow.start('PeerCompromise', { taskQueue, workflowId: `peer-compromise:${name}`, args });
  }

  /** The newest card of an incident that fits, once it is there. */
  async card({ workflowId }: Incident, fits: (card: StubMessage) => boolean = () => true): Promise<StubMessage> {
    const found = async () => this.slack.cards(workflowId).findLast(fits);
    return await waitUntil(`a card of ${workflowId}`, found, { timeoutMs: 60_000 });
  }

  /** As {@link card}, by what it says. */
  async cardSaying(incident: Incident, part: string): Promise<StubMessage> {
    return await this.card(incident, (card) => words(card).includes(part));
  }

  /** Clicks, and gives the answer that only this user sees. The acknowledgement is checked: at once, and empty. */
  async click(
    action: 'approve' | 'reject',
    card: Pick<StubMessage, 'ts' | 'blocks'>,
    { user = 'U0ALICE', value }: { user?: string; value?: string } = {},
  ): Promise<Reply> {
    const to = this.#address();
    const got = await this.chat.click(action, card, { to, user, slack: this.slack, ...(value === undefined ? {} : { value }) });
    assert.deepEqual([got.status, got.text], [200, '']);
    assert.ok(got.ms < 3_000, `acknowledged after ${got.ms} ms`);
    return await this.reply(to);
  }

  /** `/cordon <text>`: the answer in words. */
  async type(text: string, { user = 'U0ALICE', trigger }: { user?: string; trigger?: string } = {}): Promise<string> {
    const to = this.#address();
    const got = await this.chat.command(text, { user, to, slack: this.slack, ...(trigger === undefined ? {} : { trigger }) });
    assert.deepEqual([got.status, got.text], [200, '']);
    return words(await this.reply(to));
  }

  async reply(to: string): Promise<Reply> {
    const answer = await waitUntil(`the answer to ${to}`, async () => this.slack.repliesTo(to)[0], { timeoutMs: 60_000 });
    assert.deepEqual([answer.response_type, answer.replace_original], ['ephemeral', false]);
    return answer;
  }

  /** Everything that history says was decided, refusals too. */
  async decisions({ workflowId }: Incident) {
    return project(await readHistory({ kind: 'workflow', id: workflowId, client: this.env.client })).decisions;
  }

  /** What must hold of everything that was sent and written. */
  async assertClean(): Promise<void> {
    assert.deepEqual(this.slack.problems, []);
    assert.ok(this.slack.messages.length > 2);
    const ids = new Set<string>();
    for await (const { workflowId } of this.env.client.workflow.list()) ids.add(workflowId);
    const { client } = this.env;
    const histories = await Promise.all([...ids].map((id) => readHistory({ kind: 'workflow', id, client })));
    const written = JSON.stringify(histories) + this.chat.log;
    assert.ok(written.includes('cordon-chat@'));
    for (const secret of [this.slack.token, signingSecret, 'xyzz0WbapA4vBCDEFasx0q6G', '/response/']) assert.ok(!written.includes(secret));
  }

  #address(): string {
    this.#asked += 1;
    return `${this.name}-${this.#asked}`;
  }
}

export const words = (message: { readonly blocks: readonly unknown[] }): string => wordsOf(message.blocks);
export const isOpen = (card: StubMessage): boolean => buttonsOf(card.blocks).has('cordon_approve');
export const digestOf = (card: StubMessage): string => String(card.metadata.event_payload['digest']);
/** What people type of a digest. */
export const shortOf = (card: StubMessage): string => digestOf(card).slice(7, 19);
