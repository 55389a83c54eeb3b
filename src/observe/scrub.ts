/** Cuts the known secrets out of a text. */
export type Scrub = (text: string) => string;

/** Shorter ones would tear holes into ordinary words; no key of a node is that short. */
const shortestSecret = 8;

/**
 * A last line of defence: nothing is meant to write a secret, and what does all the same shows `[secret]`.
 * Each is known as it is, as it stands in JSON, and as it stands in a URL.
 */
export function scrubberOf(secrets: readonly (string | undefined)[]): Scrub {
  const known = secrets.flatMap((secret) => (secret === undefined ? [] : [secret, ...partsOfUrl(secret)]));
  const written = known.flatMap((secret) => [secret, JSON.stringify(secret).slice(1, -1), encodeURIComponent(secret)]);
  const longestFirst = [...new Set(written)].filter(({ length }) => length >= shortestSecret).toSorted((a, b) => b.length - a.length);
  return (text) => longestFirst.reduce((rest, secret) => rest.replaceAll(secret, '[secret]'), text);
}

/** What makes a webhook's URL secret is its path. */
function partsOfUrl(text: string): string[] {
  if (!/^https?:/.test(text) || !URL.canParse(text)) return [];
  const { pathname, search, username, password } = new URL(text);
  return [`${pathname}${search}`, pathname, username, password];
}
