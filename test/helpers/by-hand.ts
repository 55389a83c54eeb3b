import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { managedProcess, waitUntil, type ManagedProcess } from '../../src/lab/processes.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { inBox, type Box, type Inside } from './box.ts';
import { startOrder, type ComposeProject, type ComposeService } from './compose.ts';

// The services of docker-compose.yml, run one by one in boxes: their commands, variables, users, secrets, volumes and
// health checks as they stand in the file. Only ports differ, since this machine runs other things as well.

/** What an image gives a service. */
export interface HandImage {
  readonly box: Box;
  readonly env?: Readonly<Record<string, string>>;
  readonly workdir?: string;
  readonly entrypoint?: readonly string[];
  readonly command?: readonly string[];
  /** Executables of this machine that the real image has. */
  readonly binds?: Inside['binds'];
}

export interface HandOptions {
  readonly project: ComposeProject;
  /** Volumes, secrets (`secrets/`) and logs. */
  readonly dir: string;
  /** By image name without version. */
  readonly images: Readonly<Record<string, HandImage>>;
  /** Port in the file -> port here, as `port` or, for one service's own, as `service:port`. */
  readonly ports: ReadonlyMap<string, number>;
  /** Further variables of a service, for this machine only. */
  readonly env?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

export class ByHand {
  readonly #options: HandOptions;
  readonly #running = new Map<string, ManagedProcess>();
  constructor(options: HandOptions) {
    this.#options = options;
  }

  /** A port of the file, as it is here. */
  port(port: number | string, service = ''): number {
    const { ports } = this.#options;
    return ports.get(`${service}:${port}`) ?? ports.get(String(port)) ?? Number(port);
  }

  log(name: string): string {
    return join(this.#options.dir, 'logs', `${name}.log`);
  }

  /** These services in their order: jobs to their end, the others until they are healthy. */
  async up(names: readonly string[]): Promise<void> {
    for (const name of startOrder(this.#options.project.services)) if (names.includes(name)) await this.start(name);
  }

  async start(name: string): Promise<void> {
    const service = this.#service(name);
    if (service.restart?.startsWith('on-failure') === true) {
      const { code, output } = this.run(name);
      if (code !== 0) throw new Error(`${name} ended with ${code}:\n${output}`);
      return;
    }
    const running = this.#running.get(name) ?? this.#process(name);
    this.#running.set(name, running);
    await running.start();
  }

  /** One run to the end, with another command than the service's own if given. */
  run(name: string, command?: readonly string[]): { code: number | null; out: string; output: string } {
    const line = this.#line(name, command);
    const done = spawnSync(line.command, line.args, { encoding: 'utf8', timeout: 120_000 });
    return { code: done.status, out: done.stdout, output: `${done.stdout}${done.stderr}` };
  }

  /** What an engine would call healthy. */
  isHealthy(name: string): boolean {
    const { healthcheck } = this.#service(name);
    const [kind, ...command] = healthcheck?.test ?? [];
    if (kind !== 'CMD') throw new Error(`${name} has no health check by command`);
    return this.run(name, command).code === 0;
  }

  process(name: string): ManagedProcess {
    const running = this.#running.get(name);
    if (running === undefined) throw new Error(`${name} was not started`);
    return running;
  }

  async down(): Promise<void> {
    // The other way round: nobody loses what it depends on before it has stopped.
    for (const each of [...this.#running.values()].toReversed()) await each.stop();
  }

  #service(name: string): ComposeService {
    const service = this.#options.project.services[name];
    if (service === undefined) throw new Error(`no service ${name}`);
    return service;
  }

  #process(name: string): ManagedProcess {
    const { dir } = this.#options;
    return managedProcess({
      name,
      ...this.#line(name),
      cwd: dir,
      env: { PATH: process.env['PATH'] ?? '' },
      logFile: this.log(name),
      ready: () => Promise.resolve(this.isHealthy(name)),
      readyTimeoutMs: 90_000,
    });
  }

  #line(name: string, command?: readonly string[]): { command: string; args: string[] } {
    const { project, dir, images, env = {} } = this.#options;
    const service = this.#service(name);
    const image = images[service.image.split(':')[0] ?? ''];
    if (image === undefined) throw new Error(`no image for ${name}: ${service.image}`);
    // As the engine has it: an entry point of the service leaves nothing of the image's own.
    const own =
      service.entrypoint === undefined
        ? [...(image.entrypoint ?? []), ...(service.command ?? image.command ?? [])]
        : [...service.entrypoint, ...(service.command ?? [])];
    return inBox(image.box, {
      command: (command ?? own).map((word) => this.#ported(word, name)),
      env: {
        PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        ...image.env,
        ...Object.fromEntries(Object.entries(service.environment).map(([key, value]) => [key, this.#ported(value, name)])),
        ...env[name],
      },
      cwd: image.workdir ?? '/',
      user: service.user ?? '0:0',
      tmpfs: service.tmpfs,
      hosts: Object.keys(project.services),
      binds: [
        ...(image.binds ?? []),
        ...service.volumes.map((volume) => this.#mount(volume, service)),
        ...service.secrets.map((secret) => ({
          from: join(dir, project.secrets[secret]?.file ?? ''),
          to: `/run/secrets/${secret}`,
          readOnly: true,
        })),
      ],
    });
  }

  #mount(volume: string, { user = '0:0' }: ComposeService) {
    const [from = '', to = '', mode] = volume.split(':');
    if (from.startsWith('.')) return { from: join(repoRoot, from), to, readOnly: mode === 'ro' };
    const place = join(this.#options.dir, 'volumes', from);
    mkdirSync(place, { recursive: true });
    const [uid, gid] = user.split(':').map(Number);
    // A new volume has the owner of the image's folder.
    if (process.getuid?.() === 0) chownSync(place, uid ?? 0, gid ?? 0);
    else chmodSync(place, 0o777);
    return { from: place, to, readOnly: mode === 'ro' };
  }

  #ported(word: string, service: string): string {
    return word.replaceAll(/(^|:)(\d{4,5})(?=$|\/)/g, (_whole, before: string, port: string) => `${before}${this.port(port, service)}`);
  }
}

/** Waits until the service's own health check says so. */
export async function untilHealthy(hand: ByHand, name: string, healthy = true): Promise<void> {
  await waitUntil(`${name} to be ${healthy ? 'healthy' : 'unhealthy'}`, async () => hand.isHealthy(name) === healthy, {
    timeoutMs: 90_000,
  });
}
