import { createHash } from 'node:crypto';
import * as contract from '../contract/canonical.ts';

import { EvidenceError } from './errors.ts';

/** RFC 8785 canonical JSON, as src/contract/canonical.ts writes it. Throws EvidenceError `invalid`. */
export function canonicalJson(value: unknown): string {
  try {
    return contract.canonicalJson(value);
  } catch (error) {
    if (!(error instanceof contract.CanonicalError)) throw error;
    throw new EvidenceError('invalid', error.path, error.message);
  }
}

/** Lower-case hex of sha256. */
export function sha256Hex(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}
