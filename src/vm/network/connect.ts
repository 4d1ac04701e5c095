import path from 'node:path';
import type { GuestInterface } from '../protocol/messages.ts';
import type { VmNic } from '../types.ts';
import { type PodInterface, readInterfaces } from './interfaces.ts';
import { addMacvtap } from './macvtap.ts';
import { TAP_PREFIX } from './names.ts';
import { addRedirectedTap } from './tc-redirect.ts';

/**
 * How frames go between a pod's interface and its guest: `tcfilter` hands each frame that arrives at one on to
 * the other, whatever kind of interface it is; `macvtap` puts the guest on top of it, which takes less time a frame
 * but works with veth and Ethernet devices only.
 */
export type NetworkModel = 'tcfilter' | 'macvtap';

/** What is to be joined: `device` is the name of what is made. */
export interface PlugOptions {
  netns: string;
  link: PodInterface;
  device: string;
}

/** A device that a hypervisor opens, in place of one of the pod's interfaces. */
export interface Plug {
  tap: VmNic['tap'];
  /** Takes away what was made and gives back what was taken. Repeatable; a namespace that is gone is done. */
  undo(): Promise<void>;
}

/** The network of a pod, handed to its guest. */
export interface VmNetwork {
  nics: VmNic[];
  /** What the agent is to configure. */
  interfaces: GuestInterface[];
  /** Repeatable. */
  close(): Promise<void>;
}

/**
 * Joins every interface of a pod's network namespace, loopback apart, to a device for its guest, which takes
 * over MAC, MTU, addresses and routes: from now on the namespace itself answers nobody.
 *
 * @param dir where device nodes may be made
 * @throws BerthError; nothing is left then
 */
export async function connectNetwork(
  options: { netns: string; model: NetworkModel; dir: string },
  signal: AbortSignal,
): Promise<VmNetwork> {
  const { netns, model, dir } = options;
  const interfaces = await readInterfaces(netns, signal);
  const plugs: Plug[] = [];
  const close = async (): Promise<void> => {
    for (const { undo } of plugs) await undo();
  };
  const plug = (link: PodInterface, index: number): Promise<Plug> =>
    model === 'tcfilter'
      ? addRedirectedTap({ netns, link, device: `${TAP_PREFIX}${index}` }, signal)
      : addMacvtap(
          { netns, link, device: `${TAP_PREFIX}${index}`, node: path.join(dir, `tap${index}`) },
          signal,
        );
  try {
    for (const [index, link] of interfaces.entries()) plugs.push(await plug(link, index));
  } catch (e: unknown) {
    await close();
    throw e;
  }
  const nics = interfaces.flatMap(({ name, mac, mtu }, index) => {
    const tap = plugs[index]?.tap;
    return tap === undefined ? [] : { name, mac, mtu, tap };
  });
  return { nics, interfaces, close };
}
