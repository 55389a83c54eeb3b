import proto from '@temporalio/proto';

type HistoryEvent = proto.temporal.api.history.v1.IHistoryEvent;

/**
 * One event in the JSON form that `temporal workflow show --output json` writes. Not by the SDK's own `historyToJSON`:
 * it works only where npm happens to install one single copy of protobufjs.
 */
export function eventJson(event: HistoryEvent): unknown {
  const { HistoryEvent: type } = proto.temporal.api.history.v1;
  return protoJson('', type.toObject(type.fromObject(event), { longs: String, enums: String, bytes: String }));
}

/** In events only timestamps and durations have these fields; payloads are base64 text and never look like one. */
function protoJson(name: string, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => protoJson(name, item));
  if (typeof value !== 'object' || value === null) return value;
  const entries: [string, unknown][] = Object.entries(value);
  if (entries.length === 0 && /(timeout|backoff|interval|delay)$/i.test(name)) return '0s';
  if (entries.length > 0 && entries.every(([key]) => key === 'seconds' || key === 'nanos')) {
    const { seconds, nanos } = { seconds: 0, nanos: 0, ...value };
    const isTime = /time$/i.test(name);
    return isTime ? timestamp(Number(seconds), Number(nanos)) : `${Number(seconds)}${fraction(Number(nanos))}s`;
  }
  return Object.fromEntries(entries.map(([key, item]) => [key, protoJson(key, item)]));
}

function timestamp(seconds: number, nanos: number): string {
  return `${new Date(seconds * 1_000).toISOString().slice(0, 19)}${fraction(nanos)}Z`;
}

/** 0, 3, 6 or 9 digits, as protobuf's JSON writes them. */
function fraction(nanos: number): string {
  if (nanos === 0) return '';
  const digits = String(nanos).padStart(9, '0');
  return `.${digits.replace(/(000){1,2}$/, '')}`;
}
