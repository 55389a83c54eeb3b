import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { HostDone, IncidentRef } from '../../src/contract/steps.ts';
import { HostFileError } from '../../src/host/database.ts';
import { headOf, seal } from '../deps.ts';
import { assertServes, type HostDeps } from './deps.ts';

const longestMs = 4_000;
const run = promisify(execFile);
/** Name of the evidence that holds whether it ran. */
export const promotionBefore = 'promotion before pause';

/**
 * Runs the program of CORDON_PROMOTION_COMMAND with one word, `pause`, `resume` or `status`, and nothing else. Exit code 0
 * is success; `status` has to print `paused` or `running`, which is how pause and resume are read back.
 */
export async function runPromotionCommand(
  deps: HostDeps,
  ref: IncidentRef,
  word: 'pause' | 'resume' | 'status',
  wanted: 'paused' | 'running',
): Promise<HostDone> {
  await assertServes(deps, ref);
  const command = deps.promotionCommand;
  if (command === undefined) {
    const sealed = await seal(deps, ref, `promotion ${word}`, 'promotions', { command: null });
    return { works: false, done: 0, detail: 'CORDON_PROMOTION_COMMAND is not set on the host', evidence: headOf(sealed) };
  }
  const call = async (argument: string): Promise<string> => {
    try {
      // Of the environment the path alone: what the program needs it has from its own configuration, and no secret reaches it.
      const env = { PATH: '/usr/local/bin:/usr/bin:/bin' };
      const { stdout } = await run(command, [argument], { timeout: longestMs, env, maxBuffer: 100_000 });
      return stdout.trim().slice(0, 100);
    } catch (error) {
      throw new HostFileError(`CORDON_PROMOTION_COMMAND ${argument}: expected exit code 0, came ${wordsOf(error)}`.slice(0, 500));
    }
  };
  const before = await call('status');
  await seal(deps, ref, word === 'pause' ? promotionBefore : `promotion before ${word}`, 'promotions', { status: before });
  if (word !== 'status' && ref.mode !== 'drill') await call(word);
  const status = await call('status');
  const sealed = await seal(deps, ref, `promotion after ${word}`, 'promotions', { status });
  return {
    works: true,
    done: status === wanted ? 1 : 0,
    residual: status === wanted ? [] : [{ what: 'promotion from quarantine', why: `its status is ${status}, not ${wanted}`, count: 1 }],
    detail: `CORDON_PROMOTION_COMMAND ${word}: its status was ${before}, and is ${status}`,
    evidence: headOf(sealed),
  };
}

function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'code' in error ? `${String(error.code)}` : error.message;
}
