/** One database row, by column name. */
export type Row = Readonly<Record<string, string | number | null>>;

/** The value as an object. Throws when it is none. */
export function asRecord(value: unknown): Record<string, unknown> {
  if (!isRecord(value)) throw new TypeError(`expected an object, got ${JSON.stringify(value)?.slice(0, 200)}`);
  return value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** One field of an object; undefined when it is absent. Throws when the value is no object. */
export function field(value: unknown, name: string): unknown {
  return asRecord(value)[name];
}

/** The value as a list. Throws when it is none. */
export function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new TypeError(`expected a list, got ${JSON.stringify(value)?.slice(0, 200)}`);
  return value;
}

/** The value as a text. Throws when it is none. */
export function text(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError(`expected a text, got ${JSON.stringify(value)?.slice(0, 200)}`);
  return value;
}

/** The value as a number. Throws when it is none. */
export function number(value: unknown): number {
  if (typeof value !== 'number') throw new TypeError(`expected a number, got ${JSON.stringify(value)?.slice(0, 200)}`);
  return value;
}

/** The value as database rows. Throws when a column is neither text, number nor null. */
export function rows(value: unknown): Row[] {
  return list(value).map((item) =>
    Object.fromEntries(
      Object.entries(asRecord(item)).map(([name, cell]) => {
        if (cell === null || typeof cell === 'string' || typeof cell === 'number') return [name, cell];
        throw new TypeError(`column ${name} is neither text, number nor null`);
      }),
    ),
  );
}
