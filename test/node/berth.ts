import { setTimeout as delay } from 'node:timers/promises';
import { BUSYBOX, busyboxArchive } from '../support/busybox.ts';
import { importArchive } from '../support/pods.ts';
import type { Node } from './node.ts';

/** Where the guest keeps the checkout, as docs/install.md has it. */
export const INSTALLED = '/usr/local/lib/berth';

/** An address range that nothing else in the guest uses. */
const NETWORK = {
  cniVersion: '1.0.0',
  name: 'pods',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni0',
      isGateway: true,
      ipam: {
        type: 'host-local',
        ranges: [[{ subnet: '10.88.0.0/24' }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
  ],
};

/** How the daemon in the guest differs from a fresh installation. */
export interface InstallOptions {
  /** All of config.toml. */
  readonly config?: string;
  /** Lines for `systemctl edit berth`. */
  readonly dropIn?: string;
}

/**
 * Installs berthd in a guest as docs/install.md says, as the systemd unit of the checkout, starts it, and
 * imports the busybox image.
 *
 * @throws Error with the end of the journal when the unit does not start
 */
export async function installBerth(node: Node, options: InstallOptions = {}): Promise<void> {
  const { config = 'log_level = "debug"\n', dropIn = '' } = options;
  await node.sh(`mkdir -p /etc/berth /etc/cni/net.d /etc/systemd/system/berth.service.d
    ln -sf ${INSTALLED}/bin/berthd ${INSTALLED}/bin/berth /usr/local/bin/
    install -m 644 ${INSTALLED}/systemd/berth.service /etc/systemd/system/`);
  await node.write('/etc/berth/config.toml', config);
  await node.write('/etc/cni/net.d/10-pods.conflist', JSON.stringify(NETWORK));
  await node.write('/etc/systemd/system/berth.service.d/override.conf', dropIn);
  const { code, stderr } = await node.run('systemctl daemon-reload && systemctl enable --now berth', {
    timeoutMs: 300_000,
  });
  if (code !== 0) throw new Error(`${stderr}\n${await journal(node)}`);
  await answers(node);
  await importArchive(node, await busyboxArchive(BUSYBOX, ['sh']));
}

/** Waits until the daemon of the guest answers; it may be starting. */
export async function answers(node: Node, timeoutMs = 200_000): Promise<void> {
  for (const since = Date.now(); ; await delay(200)) {
    try {
      await node.client.runtime('Version', {}, { timeoutMs: 5_000 });
      return;
    } catch (e: unknown) {
      if (Date.now() - since > timeoutMs)
        throw new Error(`berthd does not answer:\n${await journal(node)}`, { cause: e });
    }
  }
}

/** The end of what the daemon and systemd have logged about the unit. */
export function journal(node: Node): Promise<string> {
  return node.sh('journalctl --no-pager -o cat -u berth | tail -n 40');
}
