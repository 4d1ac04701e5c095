import type { Container } from '../../proto/gen/runtime/v1/Container.ts';
import type { ContainerConfig__Output } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { ContainerStatus } from '../../proto/gen/runtime/v1/ContainerStatus.ts';
import type { ImageSpec__Output } from '../../proto/gen/runtime/v1/ImageSpec.ts';
import type { Mount, Mount__Output } from '../../proto/gen/runtime/v1/Mount.ts';
import type { Signal__Output as ProtoSignal } from '../../proto/gen/runtime/v1/Signal.ts';
import type {
  ContainerConfig,
  ContainerSecurity,
  Mount as DomainMount,
  ImageSpec,
} from '../../src/container/config.ts';
import { type ContainerRecord, containerState } from '../../src/container/record.ts';
import { invalid } from '../../src/errors.ts';
import { fromResources, toResources } from './resources.ts';
import {
  fromApparmor,
  fromGroupsPolicy,
  fromIdMapping,
  fromNamespaces,
  fromProfile,
  fromRunAs,
  fromSelinux,
  pick,
  toIdMapping,
} from './security.ts';

// A byte order mark belongs to the value: the decoder's default would drop it.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** @throws BerthError `invalid` naming the field that is missing or wrong. */
export function fromContainerConfig(config: ContainerConfig__Output | null): ContainerConfig {
  if (config === null) throw invalid('config', 'is required');
  if (config.metadata === null) throw invalid('config.metadata', 'is required');
  if (config.image === null || config.image.image === '') throw invalid('config.image.image', 'is required');
  return {
    metadata: { name: config.metadata.name, attempt: config.metadata.attempt },
    image: fromImageSpec(config.image),
    command: config.command,
    args: config.args,
    workingDir: config.working_dir,
    envs: config.envs.map(({ key, value }, i) => ({ key, value: text(value, `config.envs[${i}].value`) })),
    mounts: config.mounts.map(fromMount),
    devices: config.devices.map((d) => ({
      containerPath: d.container_path,
      hostPath: d.host_path,
      permissions: d.permissions,
    })),
    cdiDevices: config.CDI_devices.map((d) => d.name),
    labels: config.labels,
    annotations: config.annotations,
    logPath: config.log_path,
    stdin: config.stdin,
    stdinOnce: config.stdin_once,
    tty: config.tty,
    ...fromStopSignal(config.stop_signal),
    resources: fromResources(config.linux?.resources ?? null),
    oomScoreAdj: BigInt(config.linux?.resources?.oom_score_adj ?? 0),
    security: fromContainerSecurity(config),
  };
}

/** The protocol writes real-time signals as SIGRTMINPLUS1; everybody else as SIGRTMIN+1. */
function fromStopSignal(signal: ProtoSignal | number): { stopSignal?: string } {
  if (signal === 'RUNTIME_DEFAULT') return {};
  // An enum number that the protocol does not have comes as it is.
  if (typeof signal === 'number') throw invalid('config.stop_signal', `there is no signal ${signal}`);
  return { stopSignal: signal.replace('PLUS', '+').replace('MINUS', '-') };
}

/** As the protocol spells it. */
export function toStopSignal(signal: string): ProtoSignal {
  return signal.replace('+', 'PLUS').replace('-', 'MINUS') as ProtoSignal;
}

function fromImageSpec(spec: ImageSpec__Output): ImageSpec {
  return {
    image: spec.image,
    userSpecifiedImage: spec.user_specified_image,
    annotations: spec.annotations,
    runtimeHandler: spec.runtime_handler,
  };
}

function text(value: Buffer, field: string): string {
  try {
    return utf8.decode(value);
  } catch (e: unknown) {
    throw invalid(
      field,
      `must be UTF-8: the OCI runtime's configuration cannot hold other bytes (${(e as Error).name})`,
    );
  }
}

function fromMount(m: Mount__Output, index: number): DomainMount {
  return {
    containerPath: m.container_path,
    hostPath: m.host_path,
    readonly: m.readonly,
    recursiveReadOnly: m.recursive_read_only,
    selinuxRelabel: m.selinux_relabel,
    propagation: pick(
      m.propagation,
      {
        PROPAGATION_PRIVATE: 'private',
        PROPAGATION_HOST_TO_CONTAINER: 'hostToContainer',
        PROPAGATION_BIDIRECTIONAL: 'bidirectional',
      } as const,
      `config.mounts[${index}].propagation`,
    ),
    uidMappings: m.uidMappings.map(fromIdMapping),
    gidMappings: m.gidMappings.map(fromIdMapping),
    ...(m.image === null ? {} : { image: fromImageSpec(m.image) }),
    imageSubPath: m.image_sub_path,
  };
}

function fromContainerSecurity(config: ContainerConfig__Output): ContainerSecurity {
  const sc = config.linux?.security_context ?? null;
  const field = 'config.linux.security_context';
  const caps = sc?.capabilities ?? null;
  return {
    capabilities: {
      add: caps?.add_capabilities ?? [],
      drop: caps?.drop_capabilities ?? [],
      ambient: caps?.add_ambient_capabilities ?? [],
    },
    privileged: sc?.privileged ?? false,
    namespaces: fromNamespaces(sc?.namespace_options ?? null, `${field}.namespace_options`),
    ...fromSelinux(sc?.selinux_options ?? null),
    ...fromRunAs(sc?.run_as_user ?? null, sc?.run_as_group ?? null),
    runAsUsername: sc?.run_as_username ?? '',
    readonlyRootfs: sc?.readonly_rootfs ?? false,
    supplementalGroups: (sc?.supplemental_groups ?? []).map(BigInt),
    supplementalGroupsPolicy: fromGroupsPolicy(
      sc?.supplemental_groups_policy ?? 'Merge',
      `${field}.supplemental_groups_policy`,
    ),
    noNewPrivs: sc?.no_new_privs ?? false,
    maskedPaths: sc?.masked_paths ?? [],
    readonlyPaths: sc?.readonly_paths ?? [],
    seccomp: fromProfile(sc?.seccomp ?? null, sc?.seccomp_profile_path ?? '', `${field}.seccomp`),
    ...fromApparmor(sc?.apparmor ?? null, sc?.apparmor_profile ?? '', `${field}.apparmor`),
  };
}

const states = {
  created: 'CONTAINER_CREATED',
  running: 'CONTAINER_RUNNING',
  exited: 'CONTAINER_EXITED',
} as const;

/** The state as CRI names it. */
export function toState(container: ContainerRecord): (typeof states)[keyof typeof states] {
  return states[containerState(container)];
}

export function toImageSpec(spec: ImageSpec) {
  return {
    image: spec.image,
    user_specified_image: spec.userSpecifiedImage,
    annotations: spec.annotations,
    runtime_handler: spec.runtimeHandler,
  };
}

/** The item of a list. */
export function toContainer(c: ContainerRecord): Container {
  return {
    id: c.id,
    pod_sandbox_id: c.sandboxId,
    metadata: c.config.metadata,
    image: toImageSpec(c.config.image),
    image_ref: c.imageId,
    image_id: c.imageId,
    state: toState(c),
    created_at: String(c.createdAt),
    labels: c.config.labels,
    annotations: c.config.annotations,
  };
}

export function toContainerStatus(c: ContainerRecord): ContainerStatus {
  const user = c.user;
  return {
    id: c.id,
    metadata: c.config.metadata,
    state: toState(c),
    created_at: String(c.createdAt),
    // An end that nobody saw may be that of a container whose start was not recorded; 0 would be 1970.
    started_at: String(c.startedAt ?? (c.exit === undefined ? 0n : c.createdAt)),
    finished_at: String(c.exit?.finishedAt ?? 0n),
    exit_code: c.exit?.code ?? 0,
    image: toImageSpec(c.config.image),
    image_ref: c.imageId,
    image_id: c.imageId,
    reason: c.exit?.reason ?? '',
    message: c.exit?.message ?? '',
    labels: c.config.labels,
    annotations: c.config.annotations,
    mounts: c.config.mounts.map((m, i) => toMount(m, c.imageVolumes.find((v) => v.mount === i)?.imageId)),
    stop_signal: toStopSignal(c.stopSignal),
    log_path: c.logPath,
    resources: { linux: toResources(c.resources, c.oomScoreAdj ?? c.config.oomScoreAdj) },
    ...(user === undefined
      ? {}
      : {
          user: {
            linux: {
              uid: String(user.uid),
              gid: String(user.gid),
              supplemental_groups: user.supplementalGroups.map(String),
            },
          },
        }),
  };
}

/** `imageId` is the id of the image that the mount shows, if it shows one. */
export function toMount(m: DomainMount, imageId: string | undefined): Mount {
  const propagation = {
    private: 'PROPAGATION_PRIVATE',
    hostToContainer: 'PROPAGATION_HOST_TO_CONTAINER',
    bidirectional: 'PROPAGATION_BIDIRECTIONAL',
  } as const;
  return {
    container_path: m.containerPath,
    host_path: m.hostPath,
    readonly: m.readonly,
    recursive_read_only: m.recursiveReadOnly,
    selinux_relabel: m.selinuxRelabel,
    propagation: propagation[m.propagation],
    uidMappings: m.uidMappings.map(toIdMapping),
    gidMappings: m.gidMappings.map(toIdMapping),
    ...(m.image === undefined ? {} : { image: { ...toImageSpec(m.image), image_ref: imageId ?? '' } }),
    image_sub_path: m.imageSubPath,
  };
}
