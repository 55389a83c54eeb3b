import { lookup } from 'node:dns/promises';

/** `host:port`, `[::1]:port`. */
export function splitListen(listen: string): { host: string; port: number } {
  const at = listen.lastIndexOf(':');
  return { host: listen.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(listen.slice(at + 1)) };
}

/** The same with the host as an address: the SDK's endpoint takes no names. */
export async function asAddress(listen: string): Promise<string> {
  const { host, port } = splitListen(listen);
  const { address, family } = await lookup(host);
  return family === 6 ? `[${address}]:${port}` : `${address}:${port}`;
}
