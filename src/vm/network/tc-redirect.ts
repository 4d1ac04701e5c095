import { inNetns } from './command.ts';
import type { Plug, PlugOptions } from './connect.ts';
import { UndoStack } from './undo.ts';

/**
 * Makes a tap and redirects what arrives at it to the pod's interface, and the other way: at ingress, before
 * the namespace's own stack sees a frame. So the interface keeps its addresses, which CNI plugins look for when
 * they are asked to check or delete, and yet answers neither ARP nor anything else.
 *
 * @throws BerthError; nothing is left then
 */
export async function addRedirectedTap(
  { netns, link, device }: PlugOptions,
  signal: AbortSignal,
): Promise<Plug> {
  const undo = new UndoStack(netns);
  const ip = (...args: string[]): Promise<string> => inNetns(netns, ['ip', ...args], signal);
  const tc = (...args: string[]): Promise<string> => inNetns(netns, ['tc', ...args], signal);
  try {
    // With frame headers for virtio: checksums and segmentation are left to the last device.
    await ip('tuntap', 'add', 'dev', device, 'mode', 'tap', 'vnet_hdr');
    undo.push(device, () => inNetns(netns, ['ip', 'link', 'del', 'dev', device]));
    // Without a link-local address of its own the tap says nothing to the guest.
    await ip('link', 'set', 'dev', device, 'mtu', `${link.mtu}`, 'addrgenmode', 'none', 'up');
    for (const [from, to] of [
      [device, link.name],
      [link.name, device],
    ] as const) {
      await tc('qdisc', 'add', 'dev', from, 'ingress');
      undo.push(from, () => inNetns(netns, ['tc', 'qdisc', 'del', 'dev', from, 'ingress']));
      // All frames: every kernel with classifiers has u32, but not matchall.
      const all = ['parent', 'ffff:', 'protocol', 'all', 'u32', 'match', 'u8', '0', '0'];
      await tc('filter', 'add', 'dev', from, ...all, 'action', 'mirred', 'egress', 'redirect', 'dev', to);
    }
    return { tap: { kind: 'tap', device }, undo: undo.undo };
  } catch (e: unknown) {
    await undo.undo();
    throw e;
  }
}
