import path from 'node:path';
import { invalid } from '../../errors.ts';
import { expand } from './expand.ts';
import { parseBytes } from './quantity.ts';
import type { Pod, PodContainer, PodVolume, VolumeMount } from './schema.ts';

/** A volume of a pod: where it is on the node, and what has to be there before a container starts. */
export interface VolumePlan {
  name: string;
  hostPath: string;
  source:
    | { kind: 'emptyDir'; memory: boolean; sizeLimit: bigint | undefined }
    | { kind: 'hostPath'; type: string };
}

/** One mount of a container. `subPath` is relative to the volume and checked when the mount is made. */
export interface MountPlan {
  volume: VolumePlan;
  subPath: string;
  containerPath: string;
  readonly: boolean;
  recursiveReadOnly: boolean;
  propagation: 'PROPAGATION_PRIVATE' | 'PROPAGATION_HOST_TO_CONTAINER' | 'PROPAGATION_BIDIRECTIONAL';
}

const HOST_PATH_TYPES = [
  '',
  'DirectoryOrCreate',
  'Directory',
  'FileOrCreate',
  'File',
  'Socket',
  'CharDevice',
  'BlockDevice',
];

/**
 * The volumes of a pod by name.
 *
 * @param podDirectory absolute path under which the pod's own volumes live
 * @throws BerthError invalid for a volume that berth cannot provide
 */
export function planVolumes(pod: Pod, podDirectory: string): Map<string, VolumePlan> {
  const plans = new Map<string, VolumePlan>();
  for (const [index, volume] of (pod.spec.volumes ?? []).entries()) {
    if (plans.has(volume.name)) throw invalid(`spec.volumes[${index}].name`, `${volume.name} is there twice`);
    plans.set(volume.name, planVolume(volume, `spec.volumes[${index}]`, podDirectory));
  }
  return plans;
}

function planVolume(volume: PodVolume, field: string, podDirectory: string): VolumePlan {
  const types = Object.keys(volume).filter((key) => key !== 'name' && volume[key] != null);
  const other = types.find((type) => type !== 'emptyDir' && type !== 'hostPath');
  if (other !== undefined) {
    throw invalid(`${field}.${other}`, 'is not a volume that berth run can make; use emptyDir or hostPath');
  }
  if (types.length > 1) throw invalid(field, 'must have one type, emptyDir or hostPath');
  if (volume.hostPath) {
    const { path: hostPath, type } = volume.hostPath;
    if (!path.isAbsolute(hostPath) || hostPath.split('/').includes('..')) {
      throw invalid(`${field}.hostPath.path`, 'must be absolute and without ".."');
    }
    if (!HOST_PATH_TYPES.includes(type ?? '')) {
      throw invalid(`${field}.hostPath.type`, `must be one of ${HOST_PATH_TYPES.slice(1).join(', ')}`);
    }
    return { name: volume.name, hostPath, source: { kind: 'hostPath', type: type ?? '' } };
  }
  const { medium, sizeLimit } = volume.emptyDir ?? {};
  return {
    name: volume.name,
    hostPath: path.join(podDirectory, 'volumes', volume.name),
    source: {
      kind: 'emptyDir',
      memory: medium === 'Memory',
      sizeLimit: sizeLimit == null ? undefined : parseBytes(sizeLimit, `${field}.emptyDir.sizeLimit`),
    },
  };
}

/**
 * The mounts of one container, in the pod's order.
 *
 * @param values environment of the container, for `subPathExpr`
 * @param field path of the container, for errors
 * @throws BerthError invalid
 */
export function planMounts(
  container: PodContainer,
  volumes: ReadonlyMap<string, VolumePlan>,
  values: ReadonlyMap<string, string>,
  field: string,
): MountPlan[] {
  const privileged = container.securityContext?.privileged === true;
  const plans = (container.volumeMounts ?? []).map((mount, index) =>
    planMount(mount, volumes, values, privileged, `${field}.volumeMounts[${index}]`),
  );
  const paths = plans.map(({ containerPath }) => containerPath);
  const twice = paths.find((name, at) => paths.indexOf(name) !== at);
  if (twice !== undefined) throw invalid(`${field}.volumeMounts`, `two mounts at ${twice}`);
  return plans;
}

function planMount(
  mount: VolumeMount,
  volumes: ReadonlyMap<string, VolumePlan>,
  values: ReadonlyMap<string, string>,
  privileged: boolean,
  field: string,
): MountPlan {
  const volume = volumes.get(mount.name);
  if (volume === undefined) throw invalid(`${field}.name`, `spec.volumes has no ${mount.name}`);
  if (mount.subPath && mount.subPathExpr) throw invalid(field, 'must not have both subPath and subPathExpr');
  const subPath = mount.subPath || expand(mount.subPathExpr ?? '', values);
  if (path.isAbsolute(subPath) || subPath.split('/').includes('..')) {
    throw invalid(`${field}.subPath`, 'must be relative and without ".."');
  }
  const [readonly, recursiveReadOnly] = [mount.readOnly === true, mount.recursiveReadOnly === 'Enabled'];
  if (recursiveReadOnly && !readonly) throw invalid(`${field}.recursiveReadOnly`, 'needs readOnly: true');
  const propagation = PROPAGATION[mount.mountPropagation ?? 'None'];
  if (propagation === 'PROPAGATION_BIDIRECTIONAL' && !privileged) {
    throw invalid(`${field}.mountPropagation`, 'Bidirectional needs a privileged container');
  }
  const containerPath = path.posix.join('/', mount.mountPath);
  return { volume, subPath, containerPath, readonly, recursiveReadOnly, propagation };
}

const PROPAGATION = {
  None: 'PROPAGATION_PRIVATE',
  HostToContainer: 'PROPAGATION_HOST_TO_CONTAINER',
  Bidirectional: 'PROPAGATION_BIDIRECTIONAL',
} as const;
