import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { startTemporal } from '../../src/lab/temporal-server.ts';
import { managedProcess } from '../../src/lab/processes.ts';
import { repoRoot } from '../../src/lab/tools.ts';
import { readFileSync } from 'node:fs';
import { figure, median, type Figure } from './figures.ts';
import { parkedWorker, sampleBundle, stopParked } from './memory.ts';

/** From the command to the first poll, against a worker of the sample shape with a bundle made ahead as ours is. */
export async function startFigures({ rounds }: { rounds: number }): Promise<Figure[]> {
  const dir = join(repoRoot, '.test', 'bench', 'start');
  rmSync(dir, { recursive: true, force: true });
  const server = await startTemporal({ dir });
  try {
    const bundle = await sampleBundle(dir);
    const [ours, plain]: [number[], number[]] = [[], []];
    for (let round = 0; round < rounds; round += 1) {
      const logFile = join(dir, `worker-${round}.log`);
      const worker = managedProcess({
        name: 'cordon worker',
        command: process.execPath,
        args: [join(repoRoot, 'bin', 'cordon.js'), 'worker'],
        cwd: dir,
        env: {
          PATH: process.env['PATH'] ?? '',
          HOME: dir,
          TEMPORAL_ADDRESS: server.address,
          // Nobody listens there: a worker starts whether its node answers or not.
          STIGMEM_URL: 'http://127.0.0.1:1',
          STIGMEM_ADMIN_KEY: 'bench',
          CORDON_EVIDENCE_DIR: join(dir, 'evidence'),
        },
        logFile,
        ready: async () => readFileSync(logFile, 'utf8').includes('cordon worker is ready'),
      });
      const began = performance.now();
      await worker.start();
      ours.push(performance.now() - began);
      await worker.stop(15_000);
      const begun = performance.now();
      const child = await parkedWorker(server.address, bundle, { kind: 'sample', taskQueue: 'sample', planItems: 0 });
      plain.push(performance.now() - begun);
      await stopParked(child);
    }
    return [
      figure({
        group: 'worker',
        what: 'start until it polls, p50',
        unit: 'ms',
        value: median(ours),
        baseline: median(plain),
        samples: rounds,
      }),
    ];
  } finally {
    await server.stop();
  }
}
