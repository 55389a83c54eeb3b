/** Small pure helpers on text that came from a machine that may be hostile or careless. */

/** Removes the given secrets, bearer values and compact JWTs; then folds white space and cuts to `max` characters. */
export function safeExcerpt(text: string, secrets: readonly string[], max: number): string {
  let safe = text;
  for (const secret of secrets) {
    if (secret !== '') safe = safe.replaceAll(secret, '[redacted]');
  }
  safe = safe
    .replace(/\bbearer\s+[^\s"',;<>]+/gi, 'Bearer [redacted]')
    .replace(/\beyJ[\w-]+\.[\w-]+\.[\w-]*/g, '[redacted]')
    // Control characters could rewrite an operator's terminal.
    .replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ')
    .replace(/\s+/g, ' ')
    .trim();
  return safe.length > max ? `${safe.slice(0, max - 1)}…` : safe;
}

/** `Retry-After` in either form (RFC 9110, 10.2.3) as milliseconds from `nowMs`, never negative; null if unreadable. */
export function parseRetryAfter(header: string | undefined, nowMs: number): number | null {
  if (header === undefined) return null;
  const value = header.trim();
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  // An HTTP date names a day and ends in GMT; Date.parse alone would also accept "-5" or "1.5".
  if (!/^[A-Za-z]{3,9}, .* GMT$/.test(value)) return null;
  const at = Date.parse(value);
  return Number.isNaN(at) ? null : Math.max(0, at - nowMs);
}
