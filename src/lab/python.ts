import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { labScripts, stigmemPython } from './tools.ts';

/** What a finished command wrote, as text. */
export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end. Throws with its standard error when the exit code is not 0. */
export function run(
  command: string,
  args: readonly string[],
  options: { readonly env: Readonly<Record<string, string>>; readonly cwd?: string; readonly input?: string },
): Promise<Output> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      args,
      { env: options.env, cwd: options.cwd, maxBuffer: 256 * 1024 * 1024, timeout: 60_000 },
      (error, stdout, stderr) => {
        if (error) reject(new Error(`${command} ${args[0] ?? ''} failed: ${stderr.trim() || error.message}`, { cause: error }));
        else resolve({ stdout, stderr });
      },
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.input ?? '');
  });
}

/**
 * Runs one verb of `node_tool.py` in the node's Python: a JSON object in, JSON out.
 * @param env the node's own STIGMEM_ environment, so that the code opens its database
 */
export async function nodeTool(
  verb: 'bootstrap' | 'declare' | 'sql' | 'exec',
  input: object,
  node: { readonly env: Readonly<Record<string, string>>; readonly cwd: string },
): Promise<unknown> {
  const { stdout } = await run(stigmemPython(), ['-B', join(labScripts, 'node_tool.py'), verb], {
    ...node,
    input: JSON.stringify(input),
  });
  const answer: unknown = JSON.parse(stdout);
  return answer;
}
