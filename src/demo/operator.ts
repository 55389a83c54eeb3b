import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { managedProcess, waitUntil, type ManagedProcess } from '../lab/processes.ts';
import { repoRoot, stigmemBin } from '../lab/tools.ts';
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
  /** On the machine of our node, with the node's own environment and none of the operator's keys. */
  readonly hostWorker: ManagedProcess;
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
    this.worker = this.#process('worker', this.#env, 'stigmem-runbooks', workflowQueue);
    this.hostWorker = this.#process('host-worker', hostEnvironment(parties, this.#env), 'stigmem-host', activityQueue);
  }

  async stop(): Promise<void> {
    await Promise.all([this.worker.stop(), this.hostWorker.stop()]);
  }

  #process(command: string, env: Record<string, string>, queue: string, type: number): ManagedProcess {
    const process_: ManagedProcess = managedProcess({
      name: `cordon ${command}`,
      command: process.execPath,
      args: [program, command],
      cwd: repoRoot,
      env,
      logFile: join(this.parties.dir, `${command}.log`),
      ready: () => this.#polls(queue, type, process_.pid),
    });
    return process_;
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

  async #polls(queue: string, type: number, pid: number | undefined): Promise<boolean> {
    const { pollers } = await this.session.client.connection.workflowService.describeTaskQueue({
      namespace: this.session.settings.namespace,
      taskQueue: { name: queue },
      taskQueueType: type,
    });
    return (pollers ?? []).some(({ identity }) => identity?.startsWith(`${pid}@`));
  }
}

/** temporal.api.enums.v1.TaskQueueType */
const [workflowQueue, activityQueue] = [1, 2];

function hostEnvironment(
  { ours, dir }: Parties,
  { PATH = '', HOME = '', TEMPORAL_ADDRESS = '', CORDON_EVIDENCE_DIR = '' },
): Record<string, string> {
  return {
    ...ours.env,
    PATH,
    HOME,
    TEMPORAL_ADDRESS,
    CORDON_EVIDENCE_DIR,
    CORDON_STIGMEM_BIN: stigmemBin(),
    CORDON_SNAPSHOT_DIR: join(dir, 'snapshots'),
  };
}

function run(command: string, args: readonly string[], env: Record<string, string>): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(command, args, { env, maxBuffer: 16 * 1024 * 1024 }, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === 'number' ? error.code : 1) : 0;
      resolve({ code, text: `${stdout}${stderr}` });
    });
  });
}
