import { hostname } from 'node:os';
import { Client } from '@temporalio/client';
import { connectTemporal, type TemporalSession, type TemporalSettings } from '../temporal.ts';

/** The connection, made when it is first needed and again after it failed: chat outlives the server it talks to. */
export class LazyTemporal {
  readonly settings: TemporalSettings;
  #session: Promise<TemporalSession> | undefined;

  constructor(settings: TemporalSettings) {
    this.settings = settings;
  }

  /** Throws TemporalUnreachable; the next call tries again. */
  async session(): Promise<TemporalSession> {
    this.#session ??= connectTemporal(this.settings, { timeoutMs: 5_000 });
    const asked = this.#session;
    try {
      return await asked;
    } catch (error) {
      if (this.#session === asked) this.#session = undefined;
      throw error;
    }
  }

  /** As somebody in Slack: history shows through whom a decision came, beside the name it carries. */
  async sessionAs(user: string): Promise<TemporalSession> {
    const session = await this.session();
    const { connection } = session.client;
    const identity = `cordon-chat@${hostname()} slack:${user}`;
    return { ...session, client: new Client({ connection, namespace: this.settings.namespace, identity }) };
  }

  async close(): Promise<void> {
    const session = await this.#session?.catch(() => undefined);
    await session?.close();
  }
}
