/** `terminated`: a newline followed · `tooLong`: longer than asked for, `bytes` is only its beginning. */
export type Line = { bytes: Buffer; terminated: boolean; tooLong: boolean };

/**
 * Cuts a byte stream at 0x0A only (node:readline also cuts at U+2028, which JSON strings may hold). At most
 * `maxBytes` of a line are kept; the rest of a longer one is skipped.
 */
export async function* splitLines(chunks: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Line> {
  let parts: Buffer[] = [];
  let kept = 0;
  let seen = 0;
  const take = (piece: Buffer): void => {
    seen += piece.length;
    const room = piece.subarray(0, maxBytes - kept);
    if (room.length > 0) parts.push(Buffer.from(room));
    kept += room.length;
  };
  const flush = (terminated: boolean): Line => {
    const line = { bytes: Buffer.concat(parts), terminated, tooLong: seen > maxBytes };
    parts = [];
    kept = 0;
    seen = 0;
    return line;
  };
  for await (const given of chunks) {
    const chunk = Buffer.from(given.buffer, given.byteOffset, given.byteLength);
    let from = 0;
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, from)) {
      take(chunk.subarray(from, at));
      yield flush(true);
      from = at + 1;
    }
    take(chunk.subarray(from));
  }
  if (seen > 0) yield flush(false);
}
