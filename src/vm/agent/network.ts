import { readdir, readFile, writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, during, isErrno } from '../../errors.ts';
import { RouteNetlink } from '../../sys/netlink.ts';
import type { GuestInterface, Params } from '../protocol/messages.ts';
import { parseIp, parseMac, parseNetwork } from './ip.ts';

const INTERFACES = '/sys/class/net';
/** How long a card may take to appear, milliseconds. */
const APPEAR_MS = 5000;
const LOOK_MS = 50;

type Configuration = Params<'configure'>;

/** Brings the loopback and the named interfaces into the wanted state. @throws BerthError naming the interface */
export async function configureInterfaces(interfaces: readonly GuestInterface[]): Promise<void> {
  const netlink = new RouteNetlink();
  try {
    netlink.setLink(await indexOf('lo'), { up: true });
    const indexes = new Map<string, number>();
    for (const wanted of interfaces) {
      const { index, name } = await findByMac(wanted.mac);
      indexes.set(wanted.name, index);
      inStep(wanted, () => {
        // Taking it down would take its routes away, and connections with them.
        if (name !== wanted.name) netlink.setLink(index, { name: wanted.name, up: false });
        netlink.setLink(index, { mtu: wanted.mtu, up: true });
        for (const address of wanted.addresses) netlink.addAddress(index, parseNetwork(address));
      });
    }
    for (const wanted of interfaces) inStep(wanted, () => addRoutes(netlink, wanted, indexes));
  } finally {
    netlink.close();
  }
}

function addRoutes(
  netlink: RouteNetlink,
  wanted: GuestInterface,
  indexes: ReadonlyMap<string, number>,
): void {
  for (const { dst, gateway, dev, scope, metric } of wanted.routes) {
    const index = indexes.get(dev ?? wanted.name);
    if (index === undefined) throw new BerthError('invalid', `route ${dst}: no interface ${dev}`);
    const via = gateway === undefined || gateway === '' ? undefined : parseIp(gateway);
    const network = dst === 'default' ? undefined : parseNetwork(dst);
    const isDefault = network === undefined || network.prefix === 0;
    netlink.addRoute({
      destination: isDefault ? undefined : network,
      family: (network?.bytes ?? via)?.length === 16 ? 6 : 4,
      gateway: via,
      interfaceIndex: index,
      scope,
      metric,
    });
  }
  const index = indexes.get(wanted.name) ?? 0;
  for (const { address, mac } of wanted.neighbours ?? []) {
    netlink.addNeighbour(index, parseIp(address), parseMac(mac));
  }
}

function inStep(wanted: GuestInterface, work: () => void): void {
  try {
    work();
  } catch (e: unknown) {
    throw during(`interface ${wanted.name}`, e);
  }
}

async function findByMac(mac: string): Promise<{ index: number; name: string }> {
  const giveUp = performance.now() + APPEAR_MS;
  for (;;) {
    for (const name of await readdir(INTERFACES)) {
      if ((await readFile(`${INTERFACES}/${name}/address`, 'utf8')).trim() === mac) {
        return { index: await indexOf(name), name };
      }
    }
    if (performance.now() > giveUp)
      throw new BerthError('unavailable', `no network card has the address ${mac}`);
    await delay(LOOK_MS);
  }
}

async function indexOf(name: string): Promise<number> {
  return Number(await readFile(`${INTERFACES}/${name}/ifindex`, 'utf8'));
}

/** Host name, name servers and kernel parameters. @throws BerthError `invalid` for a parameter the guest does not have */
export async function configureNames({ hostname, dns, sysctls }: Configuration): Promise<void> {
  const lines = [
    ...dns.servers.map((server) => `nameserver ${server}`),
    ...(dns.searches.length === 0 ? [] : [`search ${dns.searches.join(' ')}`]),
    ...(dns.options.length === 0 ? [] : [`options ${dns.options.join(' ')}`]),
  ];
  await writeFile('/run/resolv.conf', lines.map((line) => `${line}\n`).join(''));
  await writeFile('/run/hostname', `${hostname}\n`);
  await writeFile('/proc/sys/kernel/hostname', hostname);
  for (const [name, value] of Object.entries(sysctls)) {
    // sysctl(8): a slash may stand for a dot that is part of a name.
    const file = name.includes('/') ? name : name.replaceAll('.', '/');
    if (file.split('/').includes('..')) throw new BerthError('invalid', `sysctl "${name}"`);
    try {
      await writeFile(`/proc/sys/${file}`, value);
    } catch (e: unknown) {
      if (!isErrno(e, 'ENOENT', 'EINVAL', 'EACCES', 'EPERM')) throw e;
      throw new BerthError('invalid', `sysctl ${name}=${value}: ${e.code}`, { cause: e });
    }
  }
}
