import { z } from 'zod';

/** YAML writes `cpu: 2` as a number and `cpu: 500m` as text; both are quantities. */
const quantity = z.union([z.string(), z.number()]);
const quantities = z.record(z.string(), quantity);
/** `hostPort: "80"` is a mistake in Kubernetes too, so numbers are never read from text. */
const port = z.int().min(0).max(65535);
const id = z.int().min(0).max(2_147_483_647);
const strings = z.array(z.string());
/** RFC 1123: the names of pods, containers and volumes become file names here. */
const dnsName = (max: number) =>
  z
    .string()
    .max(max)
    .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, 'must be lowercase letters, digits, "-" or ".", such as web-1')
    .refine((name) => !name.includes('..'), 'must not contain ".."');

/** kubectl writes `resources: null`, `env: null` and the like; null means absent everywhere. */
function orNull<T extends z.ZodType>(type: T) {
  return type.nullish();
}

const profile = z.object({
  type: z.enum(['RuntimeDefault', 'Unconfined', 'Localhost']),
  localhostProfile: orNull(z.string()),
});

const selinux = z.object({
  user: orNull(z.string()),
  role: orNull(z.string()),
  type: orNull(z.string()),
  level: orNull(z.string()),
});

const resources = z.object({ limits: orNull(quantities), requests: orNull(quantities) });

const envVar = z.object({
  name: z.string().regex(/^[^=\0]+$/, 'must not be empty or contain "="'),
  value: orNull(z.string()),
  valueFrom: orNull(
    z.object({
      fieldRef: orNull(z.object({ fieldPath: z.string() })),
      configMapKeyRef: orNull(z.object({ optional: orNull(z.boolean()) })),
      secretKeyRef: orNull(z.object({ optional: orNull(z.boolean()) })),
      resourceFieldRef: orNull(z.object({ resource: orNull(z.string()) })),
    }),
  ),
});

const containerPort = z.object({
  name: orNull(z.string()),
  containerPort: port.min(1),
  hostPort: orNull(port),
  hostIP: orNull(z.string()),
  protocol: orNull(z.enum(['TCP', 'UDP', 'SCTP'])),
});

const volumeMount = z.object({
  name: z.string(),
  mountPath: z.string().min(1),
  readOnly: orNull(z.boolean()),
  recursiveReadOnly: orNull(z.enum(['Disabled', 'IfPossible', 'Enabled'])),
  subPath: orNull(z.string()),
  subPathExpr: orNull(z.string()),
  mountPropagation: orNull(z.enum(['None', 'HostToContainer', 'Bidirectional'])),
});

const containerSecurity = z.object({
  privileged: orNull(z.boolean()),
  allowPrivilegeEscalation: orNull(z.boolean()),
  readOnlyRootFilesystem: orNull(z.boolean()),
  runAsUser: orNull(id),
  runAsGroup: orNull(id),
  runAsNonRoot: orNull(z.boolean()),
  capabilities: orNull(z.object({ add: orNull(strings), drop: orNull(strings) })),
  procMount: orNull(z.enum(['Default', 'Unmasked'])),
  seccompProfile: orNull(profile),
  appArmorProfile: orNull(profile),
  seLinuxOptions: orNull(selinux),
});

const container = z.object({
  name: dnsName(63),
  image: z.string().min(1),
  imagePullPolicy: orNull(z.enum(['Always', 'IfNotPresent', 'Never'])),
  command: orNull(strings),
  args: orNull(strings),
  workingDir: orNull(z.string()),
  env: orNull(z.array(envVar)),
  envFrom: orNull(z.array(z.unknown())),
  ports: orNull(z.array(containerPort)),
  resources: orNull(resources),
  volumeMounts: orNull(z.array(volumeMount)),
  securityContext: orNull(containerSecurity),
  restartPolicy: orNull(z.string()),
  stdin: orNull(z.boolean()),
  stdinOnce: orNull(z.boolean()),
  tty: orNull(z.boolean()),
});

const volume = z.looseObject({
  name: dnsName(63),
  emptyDir: orNull(z.object({ medium: orNull(z.enum(['', 'Memory'])), sizeLimit: orNull(quantity) })),
  hostPath: orNull(z.object({ path: z.string().min(1), type: orNull(z.string()) })),
});

const podSecurity = z.object({
  runAsUser: orNull(id),
  runAsGroup: orNull(id),
  runAsNonRoot: orNull(z.boolean()),
  fsGroup: orNull(id),
  supplementalGroups: orNull(z.array(id)),
  supplementalGroupsPolicy: orNull(z.enum(['Merge', 'Strict'])),
  sysctls: orNull(z.array(z.object({ name: z.string().min(1), value: z.string() }))),
  seccompProfile: orNull(profile),
  appArmorProfile: orNull(profile),
  seLinuxOptions: orNull(selinux),
});

/**
 * The part of the Kubernetes Pod API (core/v1) that `berth run` understands. Fields outside it are
 * stripped by the schema; `droppedFields` finds them again, so that each is named to the user.
 */
export const podSchema = z.object({
  apiVersion: z.literal('v1'),
  kind: z.literal('Pod'),
  metadata: z.object({
    name: dnsName(253),
    namespace: orNull(dnsName(63)),
    uid: orNull(z.string().regex(/^[A-Za-z0-9-]{1,64}$/, 'must be a UUID')),
    labels: orNull(z.record(z.string(), z.string())),
    annotations: orNull(z.record(z.string(), z.string())),
  }),
  spec: z.object({
    containers: z.array(container).min(1),
    initContainers: orNull(z.array(container)),
    volumes: orNull(z.array(volume)),
    hostname: orNull(dnsName(63)),
    hostNetwork: orNull(z.boolean()),
    hostPID: orNull(z.boolean()),
    hostIPC: orNull(z.boolean()),
    hostUsers: orNull(z.boolean()),
    shareProcessNamespace: orNull(z.boolean()),
    dnsPolicy: orNull(z.enum(['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'])),
    dnsConfig: orNull(
      z.object({
        nameservers: orNull(strings),
        searches: orNull(strings),
        options: orNull(z.array(z.object({ name: z.string(), value: orNull(z.string()) }))),
      }),
    ),
    hostAliases: orNull(z.array(z.object({ ip: z.string(), hostnames: orNull(strings) }))),
    restartPolicy: orNull(z.enum(['Always', 'OnFailure', 'Never'])),
    runtimeClassName: orNull(z.string()),
    securityContext: orNull(podSecurity),
    resources: orNull(resources),
    terminationGracePeriodSeconds: orNull(z.int().min(0)),
  }),
});

export type Pod = z.infer<typeof podSchema>;
export type PodContainer = z.infer<typeof container>;
export type PodVolume = z.infer<typeof volume>;
export type VolumeMount = z.infer<typeof volumeMount>;
export type SecurityProfileSpec = z.infer<typeof profile>;
export type ResourceRequirements = z.infer<typeof resources>;
