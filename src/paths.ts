import { join } from 'node:path';

/**
 * Where everything lies. Below `root` is what outlives a reboot, below `state` what dies with one.
 *
 * ```
 * root/berth.db                      records
 * root/containers/<id>/{upper,work,volumes,disk.img}  a container's writable layer
 * state/sandboxes/<id>/              bundle of the pause container, ns/, shm, resolv.conf, hosts, hostname
 * state/containers/<id>/             bundle: config.json, rootfs, image-volumes, pidfile, conmon's ctl and attach
 * state/features.json                what handlers cannot do on this node
 * state/exits/<id>                   written by conmon last: the exit code
 * state/exec/<id>/                   a command that is being started in a container
 * state/runtimes/<handler>/          the OCI runtime's own state
 * state/shim-events.sock             events of shims
 * state/vm/                          virtual machines, each in a directory of its shim's
 * ```
 */
export class Paths {
  readonly root: string;
  readonly state: string;

  constructor(root: string, state: string) {
    this.root = root;
    this.state = state;
  }

  get database(): string {
    return join(this.root, 'berth.db');
  }
  /** Held with flock(2) while a berthd serves this root. */
  get lock(): string {
    return join(this.root, 'berthd.lock');
  }
  get images(): string {
    return join(this.root, 'images');
  }
  /** What handlers cannot do, as far as that is known; dies with a reboot, as it must. */
  get features(): string {
    return join(this.state, 'features.json');
  }
  get exits(): string {
    return join(this.state, 'exits');
  }
  get execs(): string {
    return join(this.state, 'exec');
  }
  /** Not below the bundle: a socket's path has but 107 bytes. */
  exec(id: string): ExecPaths {
    const dir = join(this.execs, id);
    return {
      dir,
      process: join(dir, 'process.json'),
      pid: join(dir, 'pid'),
      log: join(dir, 'log'),
      console: join(dir, 'tty'),
    };
  }
  runtime(handler: string): string {
    return join(this.state, 'runtimes', handler);
  }
  /** Where shims of containerd's kind send their events; to them also this daemon's name. */
  get shimEvents(): string {
    return join(this.state, 'shim-events.sock');
  }
  /** What berth's own shims make. */
  get machines(): string {
    return join(this.state, 'vm');
  }
  get sandboxes(): string {
    return join(this.state, 'sandboxes');
  }
  sandbox(id: string): SandboxPaths {
    const dir = join(this.sandboxes, id);
    return {
      dir,
      rootfs: join(dir, 'rootfs'),
      pidFile: join(dir, 'pid'),
      namespaces: join(dir, 'ns'),
      shm: join(dir, 'shm'),
      resolvConf: join(dir, 'resolv.conf'),
      hosts: join(dir, 'hosts'),
      hostname: join(dir, 'hostname'),
    };
  }
  get bundles(): string {
    return join(this.state, 'containers');
  }
  get writableLayers(): string {
    return join(this.root, 'containers');
  }
  container(id: string): ContainerPaths {
    const bundle = join(this.bundles, id);
    const writable = join(this.writableLayers, id);
    return {
      bundle,
      spec: join(bundle, 'config.json'),
      rootfs: join(bundle, 'rootfs'),
      imageVolume: (mount) => join(bundle, 'image-volumes', String(mount)),
      mappedImages: join(bundle, 'mapped-images'),
      pidFile: join(bundle, 'pidfile'),
      conmonPidFile: join(bundle, 'conmon.pid'),
      control: join(bundle, 'ctl'),
      attach: join(bundle, 'attach'),
      runtimeLog: join(bundle, 'runtime.log'),
      exit: join(this.exits, id),
      writable,
      upper: join(writable, 'upper'),
      work: join(writable, 'work'),
      declaredVolumes: join(writable, 'volumes'),
      disk: join(writable, 'disk.img'),
    };
  }
}

/** Files of one sandbox; `dir` is also the pause container's bundle. */
export interface SandboxPaths {
  dir: string;
  rootfs: string;
  pidFile: string;
  namespaces: string;
  shm: string;
  resolvConf: string;
  hosts: string;
  hostname: string;
}

/** Files of one container. */
export interface ContainerPaths {
  bundle: string;
  spec: string;
  rootfs: string;
  /** Where the image of `config.mounts[mount]` is mounted. */
  imageVolume(mount: number): string;
  /** For the moment of mounting layers: all of them, with owners as in the pod's user namespace. */
  mappedImages: string;
  pidFile: string;
  conmonPidFile: string;
  /** conmon's control FIFO: terminal size, reopening of the log. */
  control: string;
  /** conmon's SOCK_SEQPACKET socket: output to those attached, their input to stdin. */
  attach: string;
  runtimeLog: string;
  exit: string;
  writable: string;
  upper: string;
  work: string;
  /** Folders for the volumes that the image declares. */
  declaredVolumes: string;
  /** In place of `upper` where a virtual machine has the root file system on a disk. */
  disk: string;
}

/** Files of one command while it is being started. */
export interface ExecPaths {
  dir: string;
  process: string;
  pid: string;
  log: string;
  console: string;
}
