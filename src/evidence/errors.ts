/**
 * Why the store refused, stable: branch on this, never on the message.
 * `full`: no space or quota left · `readOnly`: not allowed to write here · `corrupt`: what lies there does not
 * match its name or the chain · `invalid`: the caller gave something that can't be sealed · `io`: anything else.
 */
export type EvidenceErrorCode = 'full' | 'readOnly' | 'corrupt' | 'invalid' | 'io';

/** The only error this folder throws. The message names the file and says what to do. */
export class EvidenceError extends Error {
  override readonly name = 'EvidenceError';
  readonly code: EvidenceErrorCode;
  /** The file or folder it is about, as the store was given it. */
  readonly file: string;

  constructor(code: EvidenceErrorCode, file: string, message: string, options?: ErrorOptions) {
    super(`${file}: ${message}`, options);
    this.code = code;
    this.file = file;
  }
}

const CODES: Readonly<Record<string, EvidenceErrorCode>> = {
  ENOSPC: 'full',
  EDQUOT: 'full',
  EROFS: 'readOnly',
  EACCES: 'readOnly',
  EPERM: 'readOnly',
};

const ADVICE: Readonly<Record<EvidenceErrorCode, string>> = {
  full: 'no space left; free space or grow the disk, then try again: nothing sealed so far is lost',
  readOnly: 'not writable by this process; check the owner and that the disk is not mounted read-only, then try again',
  corrupt: 'does not match; keep the folder as it is, run `cordon verify` on it, and restore this file from a copy',
  invalid: 'can not be sealed as it is',
  io: 'could not be read or written; check the path and the disk, then try again',
};

/** The errno name (`ENOENT`) of a Node error, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** Turns whatever was thrown while `doing` something to `file` into an EvidenceError; one that is already is kept. */
export function toEvidenceError(error: unknown, file: string, doing: string): EvidenceError {
  if (error instanceof EvidenceError) return error;
  const errno = errnoOf(error) ?? '';
  const code = CODES[errno] ?? 'io';
  const why = errno === '' ? (error instanceof Error ? error.message : String(error)) : errno;
  return new EvidenceError(code, file, `${doing}: ${ADVICE[code]} (${why})`, { cause: error });
}

/** Runs `work`; what it throws becomes an EvidenceError about `file`. */
export async function guarded<T>(file: string, doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toEvidenceError(error, file, doing);
  }
}
