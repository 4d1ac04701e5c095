import { writeFile } from 'node:fs/promises';

/** A bridge network of a test's own. */
export interface BridgeNetwork {
  name: string;
  bridge: string;
  /** Where host-local keeps its leases. */
  leases: string;
  subnet: string;
}

/** Writes the CNI configuration that tests and the bench give to every daemon. */
export async function writeBridgeNetwork(
  file: string,
  { name, bridge, leases, subnet }: BridgeNetwork,
): Promise<void> {
  const ipam = {
    type: 'host-local',
    dataDir: leases,
    ranges: [[{ subnet }]],
    routes: [{ dst: '0.0.0.0/0' }],
  };
  const plugins = [{ type: 'bridge', bridge, isGateway: true, ipam }];
  await writeFile(file, JSON.stringify({ cniVersion: '1.0.0', name, plugins }));
}
