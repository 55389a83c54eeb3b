/** What POST /v1/facts takes at most: models/facts.py, AssertRequest. */
export const longestName = 2_048;

/**
 * Would POST /v1/facts keep this entity letter by letter? Mirrors utility/entity_normalizer.py,
 * normalize_entity_uri (0.9.0a12): it trims, turns to lower case and turns white space into hyphens. For printable
 * ASCII that is lower case alone. Beyond ASCII Python's idea of lower case and white space is not JavaScript's, so
 * the answer is no: unsure counts as changed.
 */
export function survivesNormalisation(entity: string): boolean {
  return entity.length <= longestName && /^[\x21-\x40\x5b-\x7e]+$/.test(entity);
}

/** Surely not what an honest node stores: its own POST would have changed it. */
export function isUnnormalised(entity: string): boolean {
  return entity === '' || /[A-Z\s]/.test(entity);
}

/** The authority of a `stigmem://authority/…` URI in lower case; null for anything else. */
export function authorityOf(uri: string): string | null {
  return /^stigmem:\/\/([^/]+)/i.exec(uri.trim())?.[1]?.toLowerCase() ?? null;
}
