import { readFile } from 'node:fs/promises';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { explainIssues } from '../contract/schemas.ts';

const maxBytes = 1024 * 1024;
const Line = z
  .string()
  .trim()
  .min(1)
  .max(300)
  .regex(/^[^\p{Cc}\p{Zl}\p{Zp}]*$/u, 'expected one line without control characters');

/** A person or a desk, and how they are reached: an e-mail address, a phone number, a channel. */
export const Contact = z.strictObject({ name: Line, contact: Line });
export type Contact = z.infer<typeof Contact>;
const ByName = z.record(z.string().trim().min(1).max(2_048), Contact).default({});

/**
 * The contacts file. `ours`: who we are, as the notices are signed · `peers`, `downstream`: by node_id, URL or entity
 * URI · `agents`: owners of our local agents by entity URI prefix; the longest prefix counts.
 */
export const Contacts = z.strictObject({
  ours: Contact.optional(),
  peers: ByName,
  downstream: ByName,
  agents: ByName,
});
export type Contacts = z.infer<typeof Contacts>;

/** The contacts file can't be read or used; the message names the file and the field. */
export class ContactsError extends Error {
  override readonly name = 'ContactsError';
}

/** Reads the contacts file, YAML or JSON; without one, nobody is known. Throws {@link ContactsError}. */
export async function loadContacts(file: string | undefined): Promise<Contacts> {
  return file === undefined ? parseContacts('{}', 'no file') : parseContacts(await read(file), file);
}

/** Parses the text of a contacts file; `name` is for errors. */
export function parseContacts(text: string, name: string): Contacts {
  const wrong = (what: string) => new ContactsError(`contacts file ${JSON.stringify(name)}: ${what}`);
  const document = parseDocument(text, { uniqueKeys: true });
  const [error] = document.errors;
  if (error) throw wrong(`expected YAML or JSON, got an error at line ${error.linePos?.[0].line ?? '?'}: ${error.code}`);
  // Aliases are bounded: a small file must not grow into a large one.
  const raw: unknown = document.toJS({ maxAliasCount: 100 });
  const parsed = Contacts.safeParse(raw ?? {});
  if (!parsed.success) throw wrong(explainIssues(parsed.error, raw));
  return parsed.data;
}

async function read(file: string): Promise<string> {
  try {
    const bytes = await readFile(file);
    if (bytes.length > maxBytes)
      throw new ContactsError(`contacts file ${JSON.stringify(file)}: expected at most ${maxBytes} bytes, got ${bytes.length}`);
    return bytes.toString('utf8');
  } catch (error) {
    if (error instanceof ContactsError) throw error;
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'an error';
    throw new ContactsError(`contacts file ${JSON.stringify(file)}: expected a readable file, got ${code}`);
  }
}

/** Who a node is, as far as our own node and the node itself say. */
export interface NodeIds {
  readonly nodeIds: readonly string[];
  readonly urls: readonly string[];
  /** The node's own claim. */
  readonly entityUri: string;
}

/**
 * The contact of a node's operator. node_id first, then URL, both from our own node's list; the entity URI last, since
 * it is the node's own claim and could name somebody else's contact.
 */
export function operatorOf(contacts: Contacts, ids: NodeIds): Contact | undefined {
  const known = [...Object.entries(contacts.peers), ...Object.entries(contacts.downstream)];
  for (const wanted of [ids.nodeIds, ids.urls, [ids.entityUri]]) {
    const names = new Set(wanted.filter((id) => id !== '').map(normal));
    const found = known.find(([name]) => names.has(normal(name)));
    if (found) return found[1];
  }
  return undefined;
}

/** Every owner of local agents: who read a fact otherwise than by recall is recorded nowhere. */
export function agentOwners(contacts: Contacts): Contact[] {
  const owners = Object.entries(contacts.agents).toSorted(([a], [b]) => b.length - a.length);
  const unique = new Map(owners.map(([, who]) => [`${who.name}\n${who.contact}`, who]));
  return [...unique.values()];
}

function normal(id: string): string {
  return id.trim().replace(/\/+$/, '');
}
