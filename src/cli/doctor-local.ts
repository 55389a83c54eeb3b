import { randomUUID } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { access, rm, statfs, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { CliConfig } from '../config.ts';
import { PolicyFile } from '../contract/policy.ts';
import { Contacts } from '../notify/contacts.ts';
import { about, type Check, type Finding } from './doctor-finding.ts';
import { CliError } from './exit.ts';
import { checked, readDataFile } from './input.ts';
import { messageOf } from './text.ts';

const mebibyte = 1_048_576;
/** Evidence of an incident with thousands of facts takes some hundred MiB; without room every step parks. */
const room = { enough: 1_024 * mebibyte, least: 64 * mebibyte } as const;

/** What this machine has to have. */
export function localChecks({ evidenceDir, policyFile, contactsFile }: CliConfig): Check[] {
  return [
    { name: 'evidence folder', look: () => evidenceCheck(evidenceDir) },
    { name: 'policy file', look: () => fileCheck('policy', 'CORDON_POLICY_FILE', policyFile, 'the built-in policy is used') },
    {
      name: 'contacts file',
      look: () => fileCheck('contacts', 'CORDON_CONTACTS_FILE', contactsFile, 'notices are written but nobody is named'),
    },
  ];
}

async function evidenceCheck(dir: string): Promise<Finding> {
  const { ok, warn, fail } = about('evidence folder');
  const path = resolve(dir);
  const mend = 'make it writable for who runs the worker, or set CORDON_EVIDENCE_DIR';
  const there = nearest(path);
  try {
    if (there === path) {
      const probe = join(path, `.doctor-${randomUUID()}`);
      try {
        await writeFile(probe, '', { flag: 'wx' });
      } finally {
        await rm(probe, { force: true });
      }
    } else await access(there, constants.W_OK);
  } catch (error) {
    return fail(`${path}: ${messageOf(error)}`, mend);
  }
  const { bavail, bsize } = await statfs(there);
  const free = bavail * bsize;
  const found = `${path} ${there === path ? 'is writable' : 'will be made'}, ${Math.floor(free / mebibyte)} MiB free`;
  const grow = `make room, or set CORDON_EVIDENCE_DIR to a disk with ${room.enough / mebibyte} MiB or more`;
  if (free < room.least) return fail(`${found}: steps would park for want of it`, grow);
  return free < room.enough ? warn(found, grow) : ok(found);
}

/** The folder, or the nearest one above it that exists. */
function nearest(path: string): string {
  let at = path;
  while (!existsSync(at) && at !== dirname(at)) at = dirname(at);
  return at;
}

async function fileCheck(what: 'policy' | 'contacts', variable: string, file: string | undefined, without: string): Promise<Finding> {
  const { ok, warn, fail } = about(`${what} file`);
  if (file === undefined) return what === 'policy' ? ok(`none: ${without}`) : warn(`none: ${without}`, `set ${variable}`);
  try {
    checked<unknown>(what === 'policy' ? PolicyFile : Contacts, readDataFile(file, variable), file);
    return ok(file);
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    return fail(messageOf(error), `correct the file: docs/how-to/policy-and-contacts.md has an example`);
  }
}
