import type { StatusRequest__Output } from '../../proto/gen/runtime/v1/StatusRequest.ts';
import type { StatusResponse } from '../../proto/gen/runtime/v1/StatusResponse.ts';
import type { Services } from '../../src/services.ts';

/** Status: both conditions always, the handlers with what they can do, the default one also as "". */
export async function status(s: Services, request: StatusRequest__Output): Promise<StatusResponse> {
  const network = await s.cni.status();
  return {
    status: {
      conditions: [
        { type: 'RuntimeReady', status: true },
        { type: 'NetworkReady', status: network.ready, reason: network.reason, message: network.message },
      ],
    },
    runtime_handlers: [...s.runtimes.keys()].sort().map((name) => ({
      name,
      features: { recursive_read_only_mounts: recursiveReadOnly(s), user_namespaces: false },
    })),
    features: { supplemental_groups_policy: true },
    info: request.verbose
      ? {
          config: JSON.stringify(s.config),
          node: JSON.stringify(process.version),
          lastCNILoadStatus: JSON.stringify(network.ready ? 'OK' : network.message),
          cgroups: JSON.stringify({ mode: s.cgroups.mode, driver: s.cgroupDriver }),
        }
      : {},
  };
}

/** Mounts can be made read-only with all below them since Linux 5.12 (mount_setattr(2)) and runc 1.1. */
function recursiveReadOnly({ host: { kernel } }: Services): boolean {
  return kernel[0] > 5 || (kernel[0] === 5 && kernel[1] >= 12);
}
