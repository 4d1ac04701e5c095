import type { Duplex } from 'node:stream';
import type { AgentEvent, Method, Params, Result } from '../protocol/messages.ts';
import type { HostCpus } from './cpuset.ts';
import type { JsonObject, OciSpec } from './oci.ts';
import type { RootDisk } from './rootfs.ts';
import type { SandboxLimits } from './size.ts';

/** A stream to the guest; its id names it in calls. */
export type GuestStream = Duplex & { readonly id: number };

/** What the shim asks of the agent. Calls throw BerthError of the agent's kind, `unavailable` without a guest. */
export interface GuestAgent {
  call<M extends Method>(method: M, params: Params<M>, signal?: AbortSignal): Promise<Result<M>>;
  /** @param options.halfOpen the guest's end of the stream is not the host's as well */
  openStream(options?: { halfOpen?: boolean }): GuestStream;
}

/** A virtual machine that has booted: all that the task service sees of one, so that its tests need none. */
export interface Machine {
  /** The hypervisor's. */
  readonly pid: number;
  readonly agent: GuestAgent;
  /** Resolves with one line for people; never rejects. */
  readonly ended: Promise<string>;
  /** It takes root file systems that are disks; otherwise they are to be mounted on this host. */
  readonly takesDisks: boolean;
  /**
   * Makes a container's root file system and volumes visible to the guest.
   *
   * @param rootfs the directory, absolute, or the disks
   * @returns the spec for the guest
   * @throws BerthError `unimplemented` for what cannot work there
   */
  share(id: string, spec: OciSpec, rootfs: string | readonly RootDisk[]): Promise<JsonObject>;
  /** What the guest has of a container that has ended, and the daemon looks for on this host. Never rejects. */
  bringBack(id: string): Promise<void>;
  /** Repeatable. */
  unshare(id: string): Promise<void>;
  /**
   * Gives it what these limits ask for, as far as the hypervisor can.
   *
   * @throws BerthError `unimplemented`; `invalid` beyond what it was made for
   */
  resize(limits: SandboxLimits): Promise<void>;
  /**
   * Keeps its threads on these processors of the host; an empty list changes nothing.
   *
   * @throws CgroupError
   */
  runOn(cpus: HostCpus): Promise<void>;
  /** Ends it, in order if it lets, and takes away what it had on the host. Repeatable. */
  stop(): Promise<void>;
}

/** Boots the machine of a sandbox's spec, or of a container's that is alone. */
export type Boot = (spec: OciSpec, onEvent: (event: AgentEvent) => void) => Promise<Machine>;

/** A message for the daemon's log. */
export type Log = (level: 'debug' | 'warn', message: string) => void;
