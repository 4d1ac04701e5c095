import type { StatusRequest__Output } from '../../proto/gen/runtime/v1/StatusRequest.ts';
import type { StatusResponse } from '../../proto/gen/runtime/v1/StatusResponse.ts';
import { readCdiFiles } from '../../src/cdi/read.ts';
import type { MissingFeatures } from '../../src/isolation/features.ts';
import type { Services } from '../../src/services.ts';

/** Status: both conditions always, the handlers with what they can do, the default one also as "". */
export async function status(s: Services, request: StatusRequest__Output): Promise<StatusResponse> {
  const network = await s.cni.status();
  const missing = await s.features.all();
  return {
    status: {
      conditions: [
        { type: 'RuntimeReady', status: true },
        { type: 'NetworkReady', status: network.ready, reason: network.reason, message: network.message },
      ],
    },
    runtime_handlers: [...s.runtimes.keys()].sort().map((name) => ({
      name,
      features: features(missing[name === '' ? s.config.default_runtime : name]),
    })),
    features: { supplemental_groups_policy: true },
    info: request.verbose ? await details(s, missing, network.ready ? 'OK' : network.message) : {},
  };
}

async function details(s: Services, missing: object, network: string): Promise<Record<string, string>> {
  const cdi = await readCdiFiles(s.config.cdi_spec_dirs);
  return {
    config: JSON.stringify(s.config),
    node: JSON.stringify(process.version),
    lastCNILoadStatus: JSON.stringify(network),
    // Why a handler does not have a feature: the protocol's answer is yes or no.
    missingFeatures: JSON.stringify(missing),
    cgroups: JSON.stringify({ mode: s.cgroups.mode, driver: s.cgroupDriver }),
    security: JSON.stringify({
      apparmor: s.apparmor.enabled ? 'enabled' : 'this host has no AppArmor',
      selinux: s.selinux.unavailable ?? 'enabled',
    }),
    cdi: JSON.stringify({ files: cdi.files.map(({ path }) => path), problems: cdi.problems }),
  };
}

function features(missing: MissingFeatures = {}) {
  return {
    recursive_read_only_mounts: missing.recursiveReadOnlyMounts === undefined,
    user_namespaces: missing.userNamespaces === undefined,
  };
}
