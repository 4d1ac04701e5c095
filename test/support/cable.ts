import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const exec = promisify(execFile);

/** Two network namespaces with a cable between them: a pod's as CNI leaves it, and its peer. */
export interface Cable {
  /** Names, as `ip -n` takes them; files of these names are in /run/netns. The pod has 10.7.0.2 and fd07::2. */
  pod: string;
  peer: string;
  /** Repeatable. */
  close(): Promise<void>;
}

/** @param prefix of the namespaces' names, unique on this machine */
export async function layCable(prefix: string): Promise<Cable> {
  const [pod, peer] = [`${prefix}-pod`, `${prefix}-peer`];
  for (const name of [pod, peer]) await exec('ip', ['netns', 'add', name]);
  const ip = (name: string, args: string) => exec('ip', ['-n', name, ...args.split(' ')]);
  await exec('ip', ['link', 'add', 'eth0', 'netns', pod, 'type', 'veth', 'peer', 'eth0', 'netns', peer]);
  for (const [name, last] of [
    [pod, 2],
    [peer, 1],
  ] as const) {
    await ip(name, 'link set eth0 mtu 1400 up');
    await ip(name, `address add 10.7.0.${last}/24 dev eth0`);
    await ip(name, `address add fd07::${last}/64 dev eth0 nodad`);
  }
  await ip(pod, 'route add default via 10.7.0.1');
  const close = async () => {
    for (const name of [pod, peer]) await exec('ip', ['netns', 'delete', name]).catch(() => {});
  };
  return { pod, peer, close };
}
