/** One page of a query whose cursor cannot be trusted. `last`: the node says that nothing was left out. */
export interface SweepPage<T> {
  readonly rows: readonly T[];
  readonly last: boolean;
}

export interface Swept {
  /** The plain query fitted one page, so every row it matches has been seen. */
  readonly closed: boolean;
  /** About how many rows the query matches, from how densely the ids lie; null when that can't be said. */
  readonly estimate: number | null;
}

const FIRST_SHARE = 1 / 64;
const SMALLEST_SHARE = 1 / 1_048_576;
const GROWTH = 1.5;

/**
 * Reads what can be read of a query that the node orders by time while its cursor means "id sorts after this"
 * (routes/federation/audit_conflicts.py, get_audit_log; routes/facts/query.py, _FACT_QUERY_SQL). Following such a
 * cursor loses rows at random. But any string may be given as one: `id > X` with X near the top of the id space
 * leaves few enough rows for a page that is shown complete, and lowering X step by step brings older rows into
 * sight than the plain query does. Rows that are both old and low in the id space stay out of reach.
 */
export async function sweep<T extends { readonly id: string }>(
  ask: (cursor: string | undefined) => Promise<SweepPage<T>>,
  found: Map<string, T>,
): Promise<Swept> {
  const take = async (cursor: string | undefined): Promise<SweepPage<T>> => {
    const page = await ask(cursor);
    for (const row of page.rows) found.set(row.id, row);
    return page;
  };
  if ((await take(undefined)).last) return { closed: true, estimate: null };

  let share = FIRST_SHARE;
  let page = await take(idAbove(share));
  while (!page.last && share > SMALLEST_SHARE) {
    share /= 8;
    page = await take(idAbove(share));
  }
  let estimate: number | null = null;
  while (share < 1) {
    if (page.last) estimate = Math.round(page.rows.length / share);
    share *= GROWTH;
    if (share < 1) page = await take(idAbove(share));
  }
  return { closed: false, estimate };
}

/** The id above which this share of random (version 4) UUIDs lies. */
function idAbove(share: number): string {
  return Math.floor((1 - share) * 0xffff_ffff)
    .toString(16)
    .padStart(8, '0');
}
