import { readFile } from 'node:fs/promises';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { explainIssues } from '../contract/schemas.ts';

const maxBytes = 1024 * 1024;
const UserId = z.string().regex(/^[UW][A-Z0-9]{1,30}$/, "a Slack user's id, like U0123ABCD (in the profile: Copy member ID)");
const Person = z
  .string()
  .trim()
  .min(1)
  .max(200)
  .regex(/^[^\p{Cc}\p{Zl}\p{Zp}]*$/u, 'expected one line without control characters');

/** The people file: Slack user id to the name under which the person decides. */
export const People = z.record(UserId, Person);

/** The people file can't be read or used; the message names the file and the field. */
export class PeopleError extends Error {
  override readonly name = 'PeopleError';
}

/**
 * Who this Slack user is; undefined for somebody who is not in the file. Reads the file each time, so that who was
 * taken out of it is out at once. A file that can't be used knows nobody: it throws {@link PeopleError}.
 */
export async function personOf(file: string, user: string): Promise<string | undefined> {
  const people = await loadPeople(file);
  return Object.hasOwn(people, user) ? people[user] : undefined;
}

/** Reads the whole file. Throws {@link PeopleError}. */
export async function loadPeople(file: string): Promise<z.infer<typeof People>> {
  const wrong = (what: string) => new PeopleError(`people file ${JSON.stringify(file)}: ${what}`);
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (error) {
    throw wrong(`expected a readable file, got ${error instanceof Error && 'code' in error ? String(error.code) : 'an error'}`);
  }
  if (bytes.length > maxBytes) throw wrong(`expected at most ${maxBytes} bytes, got ${bytes.length}`);
  const document = parseDocument(bytes.toString('utf8'), { uniqueKeys: true });
  const [error] = document.errors;
  if (error) throw wrong(`expected YAML or JSON, got an error at line ${error.linePos?.[0].line ?? '?'}: ${error.code}`);
  const raw: unknown = document.toJS({ maxAliasCount: 100 });
  const parsed = People.safeParse(raw ?? {});
  if (!parsed.success) throw wrong(explainIssues(parsed.error, raw));
  return parsed.data;
}
