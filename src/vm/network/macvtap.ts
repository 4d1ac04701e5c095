import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { BerthError, isErrno } from '../../errors.ts';
import { makedev, mknod, S_IFCHR } from '../../sys/mknod.ts';
import { withNamespace } from '../../sys/namespaces.ts';
import { withSysfsOf } from '../../sys/sysfs.ts';
import { inNetns } from './command.ts';
import type { Plug, PlugOptions } from './connect.ts';
import { UndoStack } from './undo.ts';

/**
 * Puts a macvtap on top of the pod's interface, with the same MAC. It gets all frames; but broadcasts go to the
 * interface below as well, which must not answer in the guest's place, so its addresses are taken away until
 * the end.
 *
 * The device node is made where the caller says: /dev/tap<index> is one name for the interfaces of that index in
 * all network namespaces.
 *
 * @throws BerthError; nothing is left then
 */
export async function addMacvtap(
  { netns, link, device, node }: PlugOptions & { node: string },
  signal: AbortSignal,
): Promise<Plug> {
  const commands = new UndoStack(netns);
  const undo = async (): Promise<void> => {
    await rm(node, { force: true });
    await commands.undo();
  };
  const ip = (...args: string[]): Promise<string> => inNetns(netns, ['ip', ...args], signal);
  try {
    // The routes go with the addresses; plugins ask for these alone when they delete.
    for (const address of link.addresses) {
      await ip('address', 'del', address, 'dev', link.name);
      const add = ['address', 'add', address, 'dev', link.name, ...noDad(address)];
      commands.push(link.name, () => inNetns(netns, ['ip', ...add]));
    }
    // The link-local address is the guest's too.
    enableIpv6(netns, link.name, false);
    commands.push(link.name, () => enableIpv6(netns, link.name, true));
    await ip('link', 'add', 'link', link.name, 'name', device, 'type', 'macvtap', 'mode', 'passthru');
    commands.push(device, () => inNetns(netns, ['ip', 'link', 'del', 'dev', device]));
    // Neighbour discovery of IPv6 is multicast, to groups that only the guest knows.
    const settings = ['mtu', `${link.mtu}`, 'addrgenmode', 'none', 'allmulticast', 'on', 'up'];
    await ip('link', 'set', 'dev', device, ...settings);
    mknod(node, S_IFCHR | 0o600, deviceNumber(netns, device));
    return { tap: { kind: 'macvtap', device, node }, undo };
  } catch (e: unknown) {
    await undo();
    throw e;
  }
}

/** It has been the pod's all the time. */
function noDad(address: string): string[] {
  return address.includes(':') ? ['nodad'] : [];
}

/** The kernel makes the link-local address again when it is enabled (Documentation/networking/ip-sysctl.rst). */
function enableIpv6(netns: string, device: string, enabled: boolean): void {
  try {
    withNamespace(netns, 'net', () =>
      writeFileSync(`/proc/sys/net/ipv6/conf/${device}/disable_ipv6`, enabled ? '0' : '1'),
    );
  } catch (e: unknown) {
    // A kernel without IPv6.
    if (!isErrno(e, 'ENOENT')) throw e;
  }
}

/** Of the character device behind a macvtap. @throws BerthError */
function deviceNumber(netns: string, device: string): number {
  const text = withSysfsOf(netns, (root) => {
    const taps = path.join(root, 'class/net', device, 'macvtap');
    const [tap = ''] = readdirSync(taps);
    return readFileSync(path.join(taps, tap, 'dev'), 'latin1');
  });
  const [, major, minor] = /^(\d+):(\d+)\s*$/.exec(text) ?? [];
  if (major === undefined || minor === undefined) {
    throw new BerthError('internal', `${device}: no device number but ${JSON.stringify(text)}`);
  }
  return makedev(Number(major), Number(minor));
}
