import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import { defaultPolicy, Policy, PolicyFile } from '../contract/policy.ts';
import { gates } from '../contract/names.ts';
import { explainIssues } from '../contract/schemas.ts';

/** The policy file can't be read or does not fit its schema: which file, which field, what was expected, what came. */
export class PolicyError extends Error {
  override readonly name = 'PolicyError';
}

/** The policy in force: the file's fields over the defaults. Without a file, the defaults. Throws {@link PolicyError}. */
export async function loadPolicy(file: string | undefined): Promise<Policy> {
  if (file === undefined) return defaultPolicy;
  let content: unknown;
  try {
    content = parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw new PolicyError(`policy file ${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
  const parsed = PolicyFile.safeParse(content ?? {});
  if (!parsed.success) throw new PolicyError(`policy file ${file}: ${explainIssues(parsed.error, content)}`);
  const { gates: changed = {}, ...rest } = parsed.data;
  const merged = {
    ...defaultPolicy,
    ...rest,
    gates: Object.fromEntries(gates.map((gate) => [gate, { ...defaultPolicy.gates[gate], ...changed[gate] }])),
  };
  const whole = Policy.safeParse(merged);
  if (!whole.success) throw new PolicyError(`policy file ${file}: ${explainIssues(whole.error, merged)}`);
  return whole.data;
}
