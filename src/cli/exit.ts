/** Exit codes that scripts can use; docs/reference/cli.md and `cordon --help` show this list. */
export const exitCodes = {
  ok: { code: 0, meaning: 'done, or answered' },
  failed: { code: 1, meaning: 'refused by the incident, or failed' },
  usage: { code: 2, meaning: 'wrong use, input or configuration; nothing was sent' },
  noIncident: { code: 3, meaning: 'no such incident' },
  unreachable: { code: 4, meaning: 'Temporal does not answer' },
  unconfirmed: { code: 5, meaning: 'sent or shown, but no worker answered' },
  unverified: { code: 6, meaning: 'the evidence does not verify' },
} as const;
export type Exit = keyof typeof exitCodes;

/** An error an operator can act on. `next` is the command or act that helps. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exit: Exit;
  readonly next: string | undefined;
  constructor(exit: Exit, message: string, next?: string) {
    super(message);
    this.exit = exit;
    this.next = next;
  }
}
