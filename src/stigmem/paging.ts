import type { Stigmem } from './client.ts';
import { StigmemHttpError, StigmemTooLargeError } from './errors.ts';
import { atItsPace } from './pace.ts';
import type { AuditEvent, AuditPage, QuarantineEntry } from './wire.ts';

/** What was read, and whether it can be shown that this is all there is. */
export interface Collected<T> {
  readonly items: readonly T[];
  readonly complete: boolean;
  /** One or more sentences: how completeness was shown, or what could not be shown and why. */
  readonly why: string;
  /** Requests made. */
  readonly asked: number;
}

export interface CollectOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called after every request, for heartbeats and pacing. What it throws ends the collection. */
  readonly onPage?: ((progress: Progress) => void | Promise<void>) | undefined;
}

export interface Progress {
  readonly asked: number;
  readonly seen: number;
}

/** Counts requests, reports them, and stops between two of them once the signal has fired. */
export class Meter {
  asked = 0;
  seen = 0;
  readonly signal: AbortSignal | undefined;
  readonly #onPage: CollectOptions['onPage'];

  constructor({ signal, onPage }: CollectOptions) {
    this.signal = signal;
    this.#onPage = onPage;
  }

  /** Makes one request, at the node's pace. `seen` is what the caller has collected when the next report is due. */
  async ask<T>(request: (signal: AbortSignal | undefined) => Promise<T>): Promise<T> {
    this.signal?.throwIfAborted();
    this.asked += 1;
    try {
      return await atItsPace(() => request(this.signal), this.signal);
    } finally {
      await this.report();
    }
  }

  async report(): Promise<void> {
    await this.#onPage?.({ asked: this.asked, seen: this.seen });
  }
}

const QUARANTINE_PAGE = 1000;
const QUARANTINE_WALKS = 3;

/**
 * Every quarantined fact, whatever its status. Offset paging over a list that is ordered by claimed time: complete
 * when the ids seen are as many as the node's own total (routes/quarantine.py, list_quarantined_facts).
 */
export async function collectQuarantine(client: Stigmem, options: CollectOptions = {}): Promise<Collected<QuarantineEntry>> {
  const meter = new Meter(options);
  const found = new Map<string, QuarantineEntry>();
  let total = 0;
  // Facts that come or go while we walk shift the offsets; another walk finds what slipped through.
  for (let walk = 0; walk < QUARANTINE_WALKS; walk += 1) {
    for (let offset = 0; ; offset += QUARANTINE_PAGE) {
      const page = await meter.ask((signal) => client.quarantinePage({ limit: QUARANTINE_PAGE, offset }, signal));
      for (const entry of page.items) found.set(entry.fact_id, entry);
      meter.seen = found.size;
      total = page.total;
      if (page.items.length === 0 || offset + QUARANTINE_PAGE >= page.total) break;
    }
    if (found.size === total) break;
  }
  const complete = found.size === total;
  const why = complete
    ? `${total} quarantined facts, as many as the node counts`
    : `${found.size} quarantined facts seen, the node counts ${total}: the list moved while it was read`;
  return { items: [...found.values()], complete, why, asked: meter.asked };
}

const AUDIT_PAGE = 500;
const AUDIT_EXPORT = 50_000;

/**
 * The node's own audit log (local writes, keys, tokens, quarantine decisions; no federated ingest), newest first.
 *
 * The CSV export comes first: it is one request, and it still answers when GET /v1/audit no longer does. One event
 * without a fact id, such as the registration of a key, makes every JSON page that holds it a 500, because
 * models/audit.py declares `fact_id: str` while migration 023 lets it be null. Beyond 50,000 events, which is where
 * the export ends (oldest first), the newest ones come from the JSON pages, whose cursor is sound.
 */
export async function collectAudit(client: Stigmem, options: CollectOptions = {}): Promise<Collected<AuditEvent>> {
  const meter = new Meter(options);
  const found = new Map<string, AuditEvent>();
  const exported = await exportedAudit(client, meter);
  for (const event of exported ?? []) found.set(event.id, event);
  meter.seen = found.size;
  const done = (complete: boolean, why: string): Collected<AuditEvent> => {
    const items = [...found.values()].sort((a, b) => (a.ts < b.ts ? 1 : a.ts > b.ts ? -1 : 0));
    return { items, complete, why, asked: meter.asked };
  };
  if (exported !== null && exported.length < AUDIT_EXPORT) return done(true, `${exported.length} events, fewer than the export's limit`);

  let cursor: string | null = null;
  do {
    const at: string | null = cursor;
    try {
      const page: AuditPage = await meter.ask((signal) =>
        client.auditPage({ limit: AUDIT_PAGE, ...(at === null ? {} : { cursor: at }) }, signal),
      );
      const known = page.entries.some((event) => found.has(event.id));
      for (const event of page.entries) found.set(event.id, event);
      meter.seen = found.size;
      if (known) return done(true, `${found.size} events: the newest by page down to the first that the export holds too`);
      cursor = page.cursor;
    } catch (error) {
      if (!(error instanceof StigmemHttpError) || error.status !== 500) throw error;
      return done(
        false,
        `${found.size} events: the oldest ${exported?.length ?? 0}, and the newest down to a page that the node answers with 500`,
      );
    }
  } while (cursor !== null);
  return done(true, `${found.size} events, down to the last page`);
}

/** null where the node has no export, or one longer than we read. */
async function exportedAudit(client: Stigmem, meter: Meter): Promise<AuditEvent[] | null> {
  try {
    return await meter.ask((signal) => client.auditExport(AUDIT_EXPORT, signal));
  } catch (error) {
    if (error instanceof StigmemTooLargeError) return null;
    if (error instanceof StigmemHttpError && (error.status === 404 || error.status === 405)) return null;
    throw error;
  }
}
