import * as z from 'zod/mini';

const id = z.string().check(z.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/));
const streamId = z.int().check(z.minimum(1), z.maximum(0xffff_ffff));
/** A counter or a time in nanoseconds: decimal digits, as JSON has no such integers; less than 2^64. */
const counter = z.string().check(z.regex(/^[0-9]{1,19}$/));
/** A file of the kernel's. Its numbers, of which some are multiplied by a thousand, stay below 2^64. */
const kernelText = z.string().check(z.maxLength(65_536), z.regex(/^(?!.*\d{17})/s));
/** In the guest; the kernel has none above 2^22. */
const pid = z.int().check(z.minimum(1), z.maximum(2 ** 22));
/** As shells have it: 128 + signal for a process that a signal ended. */
const exitCode = z.int().check(z.minimum(0), z.maximum(255));
const path = z.string().check(z.regex(/^\/[^\0]*$/), z.maxLength(4096));
const size = z.object({ width: z.int().check(z.nonnegative()), height: z.int().check(z.nonnegative()) });
/** JSON text for the OCI runtime in the guest, as src/spec/json.ts writes it: its integers have 64 bits. */
const oci = z.string();
const nothing = z.object({});
/** Of a container's init, or of a process that `exec` made. */
const processRef = { id, execId: z.optional(id) };

const streams = z.object({
  stdin: z.optional(streamId),
  stdout: z.optional(streamId),
  stderr: z.optional(streamId),
});

const route = z.object({
  /** CIDR, or `default`. */
  dst: z.string(),
  gateway: z.optional(z.string()),
  /** Interface; without one the interface that lists the route. */
  dev: z.optional(z.string()),
  /** As ip-route(8) has it: `link`. */
  scope: z.optional(z.string()),
  metric: z.optional(z.int()),
});

const interfaceName = z.string().check(z.regex(/^[^/\s]{1,15}$/));

const networkInterface = z.object({
  mac: z.string().check(z.regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/)),
  /** The name it gets. */
  name: interfaceName,
  mtu: z.optional(z.int()),
  /** With prefix lengths: `10.0.0.2/24`, `fd00::2/64`. */
  addresses: z.array(z.string()),
  routes: z.array(route),
  /** Fixed entries of the ARP or neighbour table. */
  neighbours: z.optional(z.array(z.object({ address: z.string(), mac: z.string() }))),
});

const mountRequest = z.object({
  /** A block device (`/dev/vdb`, or `serial:<id>` of a virtio disk), a virtiofs tag, or a path for a bind mount. */
  source: z.string(),
  /** Such as `virtiofs`, `ext4`, `erofs`, `tmpfs`, `overlay`, `bind`. */
  type: z.string(),
  target: path,
  /** As mount(8) takes them. */
  options: z.array(z.string()),
});

const cpuStats = z.object({
  usageNs: counter,
  userNs: counter,
  systemNs: counter,
  periods: z.optional(counter),
  throttledPeriods: z.optional(counter),
  throttledNs: z.optional(counter),
});

/** Of a container: its cgroup (v2) in the guest, and what its processes have open. */
const containerStats = z.object({
  /** Texts of the cgroup's files by their names (cgroups/v2/detail-files.ts), but those that the kernel has not. */
  files: z.record(z.string().check(z.maxLength(64)), kernelText),
  processes: counter,
  /** Open file descriptors of all of them. */
  descriptors: counter,
  /** Those of them that are sockets. */
  sockets: z.optional(counter),
  /** Soft limit of the first process for open files; none when unlimited. */
  maxOpenFiles: z.optional(counter),
  /** Names of the block devices in io.stat by their numbers: `254:0` is `/dev/vda`. */
  devices: z.record(z.string().check(z.maxLength(64)), z.string().check(z.maxLength(64))),
});

const interfaceStats = z.object({
  name: interfaceName,
  rxBytes: counter,
  rxPackets: counter,
  rxErrors: counter,
  rxDropped: counter,
  txBytes: counter,
  txPackets: counter,
  txErrors: counter,
  txDropped: counter,
});

/** A file of the guest's to be made. */
const guestFile = z.object({
  /** Below the target; empty: the target itself. */
  path: z.string().check(z.regex(/^(?!\/)(?!(.*\/)?\.\.(\/|$))[^\0]*$/), z.maxLength(4096)),
  kind: z.enum(['file', 'directory', 'link']),
  /** Of a file: base64. Of a link: where it points. */
  data: z.optional(z.string()),
  /** The data goes on where the last ended. */
  append: z.optional(z.boolean()),
  mode: z.int().check(z.minimum(0), z.maximum(0o7777)),
  uid: z.int().check(z.nonnegative()),
  gid: z.int().check(z.nonnegative()),
});

/** The methods that the host calls, each with the shape of what it takes and answers. */
const METHODS = {
  /** The first call. */
  hello: {
    params: z.object({ version: z.int() }),
    result: z.object({
      version: z.int(),
      /** As `uname -r`. */
      kernel: z.string().check(z.maxLength(256)),
      /** From the kernel's start to now, milliseconds. */
      bootMs: z.number(),
      memoryBytes: counter,
      cpus: z.int(),
    }),
  },
  /** Once, before any container; may be repeated when the network has changed. */
  configure: {
    params: z.object({
      hostname: z.string(),
      dns: z.object({
        servers: z.array(z.string()),
        searches: z.array(z.string()),
        options: z.array(z.string()),
      }),
      interfaces: z.array(networkInterface),
      sysctls: z.record(z.string(), z.string()),
      /** Milliseconds since the epoch. */
      time: z.number(),
      shares: z.array(z.object({ tag: z.string(), path })),
    }),
    result: nothing,
  },
  /** Makes a container up to where its init waits for `start`. */
  createContainer: {
    params: z.object({
      id,
      /** OCI runtime spec; its paths are the guest's. See src/vm/agent/spec.ts for what the agent fills in. */
      spec: oci,
      /** Mounted at the spec's `root.path` first. */
      rootfs: z.optional(z.object({ device: z.string(), type: z.string() })),
      streams,
      terminal: z.boolean(),
      size: z.optional(size),
    }),
    result: z.object({ pid }),
  },
  start: { params: z.object({ id }), result: nothing },
  /** `all`: every process of the container. A process that is gone is no error: result `sent: false`. */
  signal: {
    params: z.object({ ...processRef, signal: z.int(), all: z.optional(z.boolean()) }),
    result: z.object({ sent: z.boolean() }),
  },
  /** Ends and forgets a container (with all its processes), or forgets an exec that has ended. Absent is done. */
  remove: { params: z.object(processRef), result: nothing },
  exec: {
    params: z.object({
      id,
      execId: id,
      /** OCI runtime spec's `process`. */
      process: oci,
      streams,
      terminal: z.boolean(),
      size: z.optional(size),
    }),
    result: z.object({ pid }),
  },
  resize: { params: z.object({ ...processRef, ...size.shape }), result: nothing },
  closeStdin: { params: z.object(processRef), result: nothing },
  /** `resources`: OCI runtime spec's `linux.resources`. */
  update: { params: z.object({ id, resources: oci }), result: nothing },
  /** Guest pids of the container's processes. */
  pids: { params: z.object({ id }), result: z.object({ pids: z.array(pid) }) },
  pause: { params: z.object({ id }), result: nothing },
  resume: { params: z.object({ id }), result: nothing },
  stats: { params: z.object({ id }), result: containerStats },
  podStats: {
    params: nothing,
    result: z.object({
      /** Bytes, from /proc/meminfo. */
      memory: z.object({ total: counter, free: counter, available: counter, cached: counter }),
      interfaces: z.array(interfaceStats).check(z.maxLength(1024)),
      /** All tasks of the guest's containers. */
      cpu: cpuStats,
    }),
  },
  /** Connects to a port of the guest's loopback (IPv4, then IPv6) and joins it to the stream. */
  dial: {
    params: z.object({ port: z.int().check(z.minimum(1), z.maximum(65_535)), streamId }),
    result: nothing,
  },
  mounts: { params: z.object({ add: z.array(mountRequest) }), result: nothing },
  unmount: { params: z.object({ target: path }), result: nothing },
  /** Makes files, in order. `keep`: what is not named there is removed from the target, a directory. */
  putFiles: {
    params: z.object({ target: path, entries: z.array(guestFile), keep: z.optional(z.array(z.string())) }),
    result: nothing,
  },
  /** The beginning of a file, in base64; empty when there is none. */
  getFile: {
    params: z.object({ path, maxBytes: z.int().check(z.minimum(1), z.maximum(1 << 19)) }),
    result: z.object({ data: z.string() }),
  },
  /** Brings CPUs and memory online that the hypervisor has added. */
  online: { params: nothing, result: z.object({ cpus: z.int(), memoryBytes: counter }) },
  /** Ends all containers, syncs and powers off; the answer comes before. */
  shutdown: { params: nothing, result: nothing },
} as const;

export type Method = keyof typeof METHODS;
export type Params<M extends Method> = z.infer<(typeof METHODS)[M]['params']>;
export type Result<M extends Method> = z.infer<(typeof METHODS)[M]['result']>;

/** The longest text for people that is passed on from the other side, characters. */
export const MAX_TEXT = 2_000;
const MAX_ISSUES = 3;

interface Shape<T> {
  safeParse(value: unknown): { success: true; data: T } | { success: false; error: z.core.$ZodError };
}

const SHAPES: { [M in Method]: { params: Shape<Params<M>>; result: Shape<Result<M>> } } = METHODS;

/** @throws TypeError that names the field */
export function checkParams<M extends Method>(method: M, value: unknown): Params<M> {
  return checked(SHAPES[method].params, value);
}

/** @throws TypeError that names the field */
export function checkResult<M extends Method>(method: M, value: unknown): Result<M> {
  return checked(SHAPES[method].result, value);
}

function checked<T>(shape: Shape<T>, value: unknown): T {
  const result = shape.safeParse(value);
  // Whoever sends a megabyte of nonsense gets no more of it back.
  if (!result.success) {
    const issues = result.error.issues.slice(0, MAX_ISSUES);
    throw new TypeError(z.prettifyError({ ...result.error, issues }).slice(0, MAX_TEXT));
  }
  return result.data;
}

/** What the agent tells unasked. */
const eventShape = z.discriminatedUnion('event', [
  /** The agent reads this connection. */
  z.object({ event: z.literal('ready') }),
  z.object({
    event: z.literal('exit'),
    ...processRef,
    code: exitCode,
    signal: z.optional(z.int()),
    /** Nanoseconds since the epoch. */
    time: counter,
  }),
  /** The kernel killed a process of the container for memory; comes before the `exit` that it causes. */
  z.object({ event: z.literal('oom'), id }),
]);
export type AgentEvent = z.infer<typeof eventShape>;

/** @throws TypeError that names the field */
export function checkEvent(value: unknown): AgentEvent {
  return checked<AgentEvent>(eventShape, value);
}

/** An answer as it travels; `kind` is one of src/errors.ts. */
export const responseShape = z.union([
  z.object({ error: z.object({ kind: z.string(), message: z.string() }) }),
  z.object({ result: z.unknown() }),
]);

export type GuestContainerStats = z.infer<typeof containerStats>;
export type GuestInterface = z.infer<typeof networkInterface>;
export type GuestFile = z.infer<typeof guestFile>;
export type GuestMount = z.infer<typeof mountRequest>;
export type StreamIds = z.infer<typeof streams>;
