import { isIP, isIPv6 } from 'node:net';
import { BerthError } from '../errors.ts';
import { atLeast, type CniVersion } from './conf.ts';
import { excerpt, isJsonObject, type JsonObject } from './json.ts';

/** The JSON text of a plugin's ADD answer, in the version of its network. */
export function parseResult(stdout: string, version: CniVersion): JsonObject {
  let raw: unknown;
  try {
    raw = JSON.parse(stdout);
  } catch {
    throw untrusted(
      stdout.trim() === '' ? 'answered nothing' : `answered what is not JSON: ${excerpt(stdout)}`,
    );
  }
  if (!isJsonObject(raw)) throw untrusted('answered JSON that is not an object');
  return toVersion(raw, version);
}

/**
 * The result as a plugin of another version of the specification expects it. The only difference
 * between 0.3.0 and 1.1.0 that reaches a plugin is `ips[].version`, "4" or "6", which 1.0.0 dropped;
 * members that a version does not know are ignored by it.
 */
function toVersion(raw: JsonObject, version: CniVersion): JsonObject {
  if (raw.cniVersion === version) return raw;
  const ips: unknown = raw.ips;
  if (!Array.isArray(ips)) return { ...raw, cniVersion: version };
  const modern = atLeast(version, '1.0.0');
  const converted = ips.map((ip: unknown) => {
    if (!isJsonObject(ip)) return ip;
    const { version: _family, ...rest } = ip;
    return modern ? rest : { ...rest, version: isIPv6(addressOf(ip) ?? '') ? '6' : '4' };
  });
  return { ...raw, cniVersion: version, ips: converted };
}

/**
 * The pod's addresses: those of interface `ifName` in the sandbox, in the plugin's order, the first of
 * each family before further ones. The first is the pod's IP, the rest are the additional ones.
 *
 * Plugins differ in how they say which interface an address is on: by index (bridge, ptp), not at all
 * (Calico), or with interfaces whose `sandbox` they leave out. So what names no interface counts as the
 * pod's, and an address on another interface is taken only when there is nothing better.
 * @throws BerthError `internal` when there is none, or when one is malformed (the result is untrusted)
 */
export function podIps(result: JsonObject, ifName: string): string[] {
  const interfaces = readList(result, 'interfaces');
  const addresses = readList(result, 'ips').map((ip, i) => {
    const address = addressOf(ip);
    if (address === undefined) throw untrusted(`answered ips[${i}] without a valid address`);
    return { address, rank: rankOf(ip, interfaces, ifName, i) };
  });
  const best = Math.min(...addresses.map((a) => a.rank));
  const ips = [...new Set(addresses.filter((a) => a.rank === best).map((a) => a.address))];
  if (ips.length === 0) throw untrusted(`gave interface ${ifName} no IP address`);
  const first = [4, 6].map((family) => ips.findIndex((ip) => isIP(ip) === family));
  return [...ips.filter((_, i) => first.includes(i)), ...ips.filter((_, i) => !first.includes(i))];
}

/** 0: the pod's interface; 1: another one in the sandbox; 2: outside. */
function rankOf(ip: JsonObject, interfaces: readonly JsonObject[], ifName: string, i: number): 0 | 1 | 2 {
  if (ip.interface === undefined || ip.interface === null) return 0;
  const owner = typeof ip.interface === 'number' ? interfaces[ip.interface] : undefined;
  if (owner === undefined) throw untrusted(`answered ips[${i}] on an interface that is not in its list`);
  if (typeof owner.sandbox !== 'string' || owner.sandbox === '') return 2;
  return owner.name === ifName ? 0 : 1;
}

/** `address` of an entry of `ips` without its prefix length; undefined when it is not an IP address. */
function addressOf(ip: JsonObject): string | undefined {
  if (typeof ip.address !== 'string') return undefined;
  const match = /^([0-9a-fA-F.:]+)\/(\d{1,3})$/.exec(ip.address);
  const address = match?.[1] ?? '';
  const family = isIP(address);
  if (family === 0 || Number(match?.[2]) > (family === 4 ? 32 : 128)) return undefined;
  return address;
}

function readList(result: JsonObject, key: string): JsonObject[] {
  const list: unknown = result[key] ?? [];
  if (!Array.isArray(list) || !list.every(isJsonObject))
    throw untrusted(`answered "${key}" that is no list of objects`);
  if (list.length > 1024) throw untrusted(`answered more than 1024 "${key}"`);
  return list;
}

function untrusted(problem: string): BerthError {
  return new BerthError('internal', problem);
}
