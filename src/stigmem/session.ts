import type { z } from 'zod';
import { StigmemIdentityError } from './errors.ts';
import type { StigmemOptions } from './requests.ts';
import { Transport, type Call, type Query } from './transport.ts';
import { WellKnown } from './wire.ts';

export interface Rest {
  readonly query?: Query;
  readonly body?: unknown;
  readonly accept?: Call<unknown>['accept'];
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
}

/** The connection to one node: keys, transport and the node_id it is bound to. */
export class StigmemSession {
  readonly #transport: Transport;
  readonly #adminKey: string;
  readonly #agentKey: string;
  /** Whether what is asked "as an agent" is: without a key of its own the admin key asks, which may see more. */
  readonly hasAgentKey: boolean;
  #nodeId: string | null = null;

  constructor({ url, adminKey, agentKey = adminKey, timeoutMs = 15_000, maxBytes = 64 * 1024 * 1024 }: StigmemOptions) {
    for (const [name, key] of [
      ['adminKey', adminKey],
      ['agentKey', agentKey],
    ] as const) {
      // The value itself stays out of the message.
      if (!/^[\x21-\x7e]+$/.test(key)) throw new TypeError(`${name}: expected printable ASCII without spaces`);
    }
    this.#adminKey = adminKey;
    this.#agentKey = agentKey;
    this.hasAgentKey = agentKey !== adminKey;
    this.#transport = new Transport({ url, timeoutMs, maxBytes, secrets: [adminKey, agentKey] });
  }

  /** Binds this client to one node; `assertSameNode` checks it. */
  expectNodeId(nodeId: string): void {
    this.#nodeId = nodeId;
  }

  /** Asks the node who it is. Throws StigmemIdentityError if it is not the bound one. */
  async assertSameNode(signal?: AbortSignal): Promise<WellKnown> {
    const known = await this.wellKnown(signal);
    if (this.#nodeId !== null && known.node_id !== this.#nodeId) {
      const site = { method: 'GET', path: '/.well-known/stigmem' };
      throw new StigmemIdentityError(site, this.#nodeId, known.node_id.slice(0, 200));
    }
    return known;
  }

  async wellKnown(signal?: AbortSignal): Promise<WellKnown> {
    return this.open('/.well-known/stigmem', WellKnown, signal);
  }

  /** Drops open connections; pending calls fail. */
  async close(): Promise<void> {
    await this.#transport.close();
  }

  /** A public document: asked without any key. */
  protected open<T>(path: string, schema: z.ZodType<T>, signal?: AbortSignal): Promise<T> {
    return this.#transport.send({ method: 'GET', path, schema, signal });
  }

  protected admin<T>(method: Call<T>['method'], path: string, schema: z.ZodType<T>, rest: Rest): Promise<T> {
    return this.#transport.send({ method, path, schema, bearer: this.#adminKey, ...rest });
  }

  protected agent<T>(method: Call<T>['method'], path: string, schema: z.ZodType<T>, rest: Rest): Promise<T> {
    return this.#transport.send({ method, path, schema, bearer: this.#agentKey, ...rest });
  }
}
