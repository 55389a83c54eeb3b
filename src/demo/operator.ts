import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { managedProcess, waitUntil, type ManagedProcess } from '../lab/processes.ts';
import { repoRoot } from '../lab/tools.ts';
import { statusQuery } from '../contract/messages.ts';
import type { Status } from '../contract/schemas.ts';
import { isNoWorker, isNotFound, withDeadline, type TemporalSession } from '../temporal.ts';
import type { Narrator } from './narrate.ts';
import type { Parties } from './parties.ts';

const program = join(repoRoot, 'bin', 'cordon.js');

/** What came of one command. */
export interface Ran {
  readonly code: number;
  readonly text: string;
}

/** The operator's terminal: real commands, in processes of their own, with an operator's environment. */
export class Operator {
  readonly worker: ManagedProcess;
  readonly #env: Record<string, string>;

  constructor(
    private readonly parties: Parties,
    private readonly story: Narrator,
    private readonly session: TemporalSession,
  ) {
    const { ours, temporal, agentKey } = parties;
    this.#env = {
      PATH: process.env['PATH'] ?? '',
      HOME: process.env['HOME'] ?? '',
      TEMPORAL_ADDRESS: temporal.address,
      STIGMEM_URL: ours.url,
      STIGMEM_ADMIN_KEY: ours.adminKey,
      CORDON_AGENT_KEY: agentKey,
      CORDON_EVIDENCE_DIR: parties.evidenceDir,
      CORDON_CONTACTS_FILE: parties.contactsFile,
      CORDON_PEER_ALLOW: 'loopback',
    };
    const logFile = join(parties.dir, 'worker.log');
    this.worker = managedProcess({
      name: 'cordon worker',
      command: process.execPath,
      args: [program, 'worker'],
      cwd: repoRoot,
      env: this.#env,
      logFile,
      ready: () => this.#polls(),
    });
  }

  /** Runs a `cordon` command, shown as an operator types it. */
  async cordon(...args: string[]): Promise<Ran> {
    this.story.command(['npx', 'cordon', ...args]);
    const ran = await run(process.execPath, [program, ...args], this.#env);
    this.story.output(ran.text);
    return ran;
  }

  /** Runs the stock `temporal` command. */
  async temporal(bin: string, ...args: string[]): Promise<Ran> {
    this.story.command(['temporal', ...args]);
    return run(bin, [...args, '--address', this.parties.temporal.address], this.#env);
  }

  status(incident: string): Promise<Status> {
    const { client } = this.session;
    return withDeadline(client, 5_000, () => client.workflow.getHandle(incident).query(statusQuery));
  }

  /** Waits until the status fits. A query needs a worker; while there is none it is asked again. */
  async until(incident: string, what: string, fits: (status: Status) => boolean, timeoutMs = 120_000): Promise<Status> {
    return waitUntil(
      what,
      async () => {
        try {
          const now = await this.status(incident);
          return fits(now) ? now : undefined;
        } catch (error) {
          if (isNoWorker(error) || isNotFound(error)) return undefined;
          throw error;
        }
      },
      { timeoutMs, everyMs: 150 },
    );
  }

  async #polls(): Promise<boolean> {
    const queue = await this.session.client.connection.workflowService.describeTaskQueue({
      namespace: this.session.settings.namespace,
      taskQueue: { name: 'stigmem-runbooks' },
      taskQueueType: 1,
    });
    const since = this.worker.pid;
    return (queue.pollers ?? []).some(({ identity }) => identity?.startsWith(`${since}@`));
  }
}

function run(command: string, args: readonly string[], env: Record<string, string>): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(command, args, { env, maxBuffer: 16 * 1024 * 1024 }, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : 1) : 0;
      resolve({ code, text: `${stdout}${stderr}` });
    });
  });
}
