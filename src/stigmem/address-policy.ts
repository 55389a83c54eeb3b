import ipaddr from 'ipaddr.js';

/** What may be asked beyond the public internet: `loopback`, CIDRs, addresses, host names. Empty: nothing. */
export type AllowPrivate = readonly string[];

/**
 * Whether an address may be connected to. Only ipaddr.js's `unicast` range passes by itself: private, loopback,
 * link-local, CGNAT, unique local, unspecified, multicast, benchmarking, 6to4, Teredo, NAT64 and reserved ones do not,
 * and an IPv4 address wrapped in IPv6 is judged as the IPv4 address it is.
 */
export function addressAllowed(address: string, allow: AllowPrivate): boolean {
  const parsed = parse(address);
  if (parsed === null) return false;
  if (parsed.range() === 'unicast') return true;
  return allow.some((entry) => admits(entry, parsed));
}

/** Whether a host name was named outright; its addresses then need not be public. */
export function hostAllowed(host: string, allow: AllowPrivate): boolean {
  return allow.some((entry) => entry.toLowerCase() === host.toLowerCase() && parse(entry) === null);
}

function admits(entry: string, address: ipaddr.IPv4 | ipaddr.IPv6): boolean {
  if (entry === 'loopback') return address.range() === 'loopback';
  const whole = parse(entry);
  if (whole !== null) return whole.kind() === address.kind() && whole.toString() === address.toString();
  if (!ipaddr.isValidCIDR(entry)) return false;
  const [network, bits] = ipaddr.parseCIDR(entry);
  return network.kind() === address.kind() && address.match(network, bits);
}

function parse(address: string): ipaddr.IPv4 | ipaddr.IPv6 | null {
  // A zone (fe80::1%eth0) is no part of the address, and never public.
  const [bare = ''] = address.split('%');
  if (!ipaddr.isValid(bare)) return null;
  // ipaddr.process turns ::ffff:127.0.0.1 into 127.0.0.1.
  return ipaddr.process(bare);
}
