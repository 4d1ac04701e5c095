import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** The variable by which berthd tells where directories of virtual machines are made. */
export const STATE_VARIABLE = 'BERTH_VM_STATE';
/**
 * Names the machine's directory in the environment of the shim and of all that it starts: so the `delete` verb knows
 * what a dead shim has left.
 */
export const MACHINE_MARK = 'BERTH_VM';
const STATE = '/run/berth-vm';
/** Hexadecimal digits of a name; sockets' paths have but 107 bytes. */
const NAME_LENGTH = 16;

/**
 * The directory of one virtual machine. All that the shim makes is in it or named in it, so that the `delete` verb can
 * take it down when the shim is dead.
 *
 * ```
 * shim.sock      the task service
 * dial.sock      connections to the guest's loopback
 * settings.json  how machines are made
 * errors         last words of the shim
 * cgroup         path of the cgroup that was made for it
 * vm/            the hypervisor's sockets and logs
 * points/        directories and files that are mounted on
 * shared/        the same, and what the guest sees of the host: bind mounts
 * ```
 */
export class VmDirectory {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** The one of a sandbox, or of a container that has a machine of its own. */
  static of(namespace: string, sandboxId: string, env: NodeJS.ProcessEnv = process.env): VmDirectory {
    const name = createHash('sha256').update(`${namespace}/${sandboxId}`).digest('hex');
    return new VmDirectory(join(env[STATE_VARIABLE] || STATE, name.slice(0, NAME_LENGTH)));
  }

  get socket(): string {
    return join(this.path, 'shim.sock');
  }
  get cgroup(): string {
    return join(this.path, 'cgroup');
  }
  /** Connections to the guest's loopback. */
  get dial(): string {
    return join(this.path, 'dial.sock');
  }
  /** What the start verb found in the configuration. */
  get settings(): string {
    return join(this.path, 'settings.json');
  }
  /** What the shim says when it ends by a fault. */
  get errors(): string {
    return join(this.path, 'errors');
  }
  /** What this host can do, beside the directories of all machines. */
  get probes(): string {
    return join(dirname(this.path), 'probes.json');
  }
  get vm(): string {
    return join(this.path, 'vm');
  }
  /** Where mount points are made: the guest cannot write to {@link shared}. */
  get points(): string {
    return join(this.path, 'points');
  }
  get shared(): string {
    return join(this.path, 'shared');
  }

  /** Mode 0700: who connects to a socket in it commands the guest. */
  async make(): Promise<void> {
    await mkdir(this.vm, { recursive: true, mode: 0o700 });
  }
}
