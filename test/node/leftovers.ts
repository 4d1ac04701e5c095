import { setTimeout as delay } from 'node:timers/promises';
import type { Node } from './node.ts';

/** What the kernel and systemd take down by themselves, a moment after the last user. */
const SETTLE_MS = 20_000;

/** One line for each thing that pods have left in a guest: nothing matches once they are removed. */
const LOOK = `
exec 2>/dev/null
ps -eo pid,args | grep -E '[/]conmon|[/]pause -P' | sed 's/^/process: /'
systemctl list-units --all --plain --no-legend 'berth-*.scope' | sed 's/^/unit: /'
find /sys/fs/cgroup -depth -name '*berth-*.scope' | sed 's/^/cgroup: /'
awk '{print $2}' /proc/mounts | grep -E '^(/run/berth/sandboxes/|/run/berth/containers/|/var/lib/berth/)' | sed 's/^/mount: /'
ls /var/lib/cni/networks/pods | grep -vE '^(lock|last_reserved_ip)' | sed 's/^/lease: /'
ls /sys/class/net/cni0/brif | sed 's/^/link: /'
for dir in /run/berth/sandboxes /run/berth/containers /run/berth/exits /run/berth/runtimes/* /var/lib/berth/containers; do
  ls $dir | sed "s|^|file: $dir/|"
done
true`;

/** What pods have left behind in a guest with berthd's usual directories; an empty list is what tests expect. */
export async function leftovers(node: Node): Promise<string[]> {
  for (const since = Date.now(); ; await delay(200)) {
    const left = (await node.sh(LOOK)).split('\n').filter((line) => line !== '');
    if (left.length === 0 || Date.now() - since > SETTLE_MS) return left;
  }
}
