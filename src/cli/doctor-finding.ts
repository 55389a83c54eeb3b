/** One line of the doctor's report; `mend` is what to do about it. */
export interface Finding {
  check: string;
  state: 'ok' | 'warn' | 'fail';
  found: string;
  mend?: string;
}

/** One thing to look at; nothing is changed by looking. */
export interface Check {
  readonly name: string;
  readonly look: () => Promise<Finding>;
}

/** How a finding about `check` begins. */
export function about(check: string) {
  return {
    ok: (found: string): Finding => ({ check, state: 'ok', found }),
    warn: (found: string, mend: string): Finding => ({ check, state: 'warn', found, mend }),
    fail: (found: string, mend: string): Finding => ({ check, state: 'fail', found, mend }),
  };
}
