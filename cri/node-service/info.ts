import type { InfoResponse } from '../../proto/gen/berth/v1/InfoResponse.ts';
import { repairsDue } from '../../src/repair.ts';
import type { Services } from '../../src/services.ts';
import { BERTH_VERSION } from '../../src/version.ts';

/** Info: what an operator asks first, and the list of what could not be taken down yet. */
export async function info(s: Services): Promise<InfoResponse> {
  const network = await s.cni.status();
  const sandboxes = [...s.sandboxes.values()];
  const containers = [...s.containers.values()];
  // What has not failed yet is work in progress.
  const failed = repairsDue(s).filter(({ cleanup }) => cleanup !== undefined);
  return {
    version: BERTH_VERSION,
    node_version: process.version,
    root: s.paths.root,
    state: s.paths.state,
    uptime_seconds: String(Math.floor(process.uptime())),
    sandboxes: String(sandboxes.filter((r) => r.phase === 'live').length),
    containers: String(containers.filter((r) => r.phase === 'live').length),
    images: String(s.images.list().length),
    cgroup_mode: s.cgroups.mode,
    cgroup_driver: s.cgroupDriver,
    network_ready: network.ready,
    network_reason: network.message,
    cleanup_tasks: failed.map(({ kind, id, what, cleanup }) => ({
      kind: `${kind}: ${what}`,
      target: id,
      last_error: cleanup?.lastError ?? '',
      attempts: String(cleanup?.attempts ?? 0),
    })),
  };
}
