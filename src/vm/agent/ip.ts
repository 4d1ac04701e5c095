import { isIP } from 'node:net';
import { invalid } from '../../errors.ts';
import type { IpNetwork } from '../../sys/netlink.ts';

/** The 4 or 16 bytes of an address. @throws BerthError `invalid` */
export function parseIp(text: string): Buffer {
  const family = isIP(text);
  if (family === 4) return Buffer.from(text.split('.').map(Number));
  if (family === 6 && !text.includes('%')) return parseIpv6(text);
  throw invalid('address', `"${text}" is no IP address`);
}

/** An address with a prefix length; without one, that of a single address. @throws BerthError `invalid` */
export function parseNetwork(text: string): IpNetwork {
  const [address = '', length] = text.split('/');
  const bytes = parseIp(address);
  const prefix = length === undefined ? bytes.length * 8 : Number(length);
  if (!/^\d{1,3}$/.test(length ?? '0') || prefix > bytes.length * 8) {
    throw invalid('address', `"${text}" has no valid prefix length`);
  }
  return { bytes, prefix };
}

/** The 6 bytes of `02:00:00:00:00:01`, whose form has been checked. */
export function parseMac(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

function parseIpv6(text: string): Buffer {
  // The last 32 bits may be written as IPv4.
  const dotted = /[^:]*\..*$/.exec(text)?.[0];
  const last = dotted === undefined ? undefined : Buffer.from(dotted.split('.').map(Number)).toString('hex');
  const plain =
    last === undefined ? text : text.replace(/[^:]*\..*$/, `${last.slice(0, 4)}:${last.slice(4)}`);
  const [head = '', tail] = plain.split('::');
  const groups = (part: string) => (part === '' ? [] : part.split(':'));
  const [before, after] = [groups(head), groups(tail ?? '')];
  const zeros = tail === undefined ? 0 : 8 - before.length - after.length;
  const all = [...before, ...Array<string>(zeros).fill('0'), ...after];
  return Buffer.from(all.map((group) => group.padStart(4, '0')).join(''), 'hex');
}
