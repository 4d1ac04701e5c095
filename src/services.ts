import type { CgroupDriver, CgroupManager } from '../cgroups/types.ts';
import type { Config } from './config/schema.ts';
import type { Attachments } from './container/attachments.ts';
import type { ContainerRecord } from './container/record.ts';
import type { StopLoops } from './container/stop-loop.ts';
import type { Events } from './events/events.ts';
import type { Faults } from './faults.ts';
import type { Images } from './image/images.ts';
import type { AppArmor } from './isolation/apparmor.ts';
import type { HandlerFeatures } from './isolation/handler-features.ts';
import type { Selinux } from './isolation/selinux.ts';
import type { Logger } from './log.ts';
import type { DaemonMetrics } from './metrics/daemon.ts';
import type { OpenFileCounts } from './metrics/open-files.ts';
import type { Cni } from './network/cni.ts';
import type { Paths } from './paths.ts';
import type { RecordStore } from './persist/record-store.ts';
import type { Lxcfs } from './resource-view/lxcfs.ts';
import type { ExitWatch } from './runtime/exit-watch.ts';
import type { RuntimeHandler } from './runtime/handler.ts';
import type { SandboxRecord } from './sandbox/record.ts';
import type { HostFacts } from './spec/host.ts';
import type { GuestFigures } from './stats/guest-figures.ts';
import type { Readings } from './stats/readings.ts';
import type { WritableLayerUsage } from './stats/writable-layer-usage.ts';
import type { StreamingServer } from './streaming/server.ts';
import type { Poller } from './sys/poller.ts';
import type { KeyedMutex } from './util/keyed-mutex.ts';
import type { SingleFlight } from './util/single-flight.ts';

/**
 * What the verbs work with, put together once in `src/node.ts`. Each verb is a function of this and its
 * arguments, in a file of its own; state lives only in the members.
 */
export interface Services {
  readonly config: Config;
  readonly paths: Paths;
  readonly log: Logger;
  readonly faults: Faults;
  readonly host: HostFacts;
  readonly apparmor: AppArmor;
  readonly selinux: Selinux;
  /** Of the running kernel; changes with every boot. */
  readonly bootId: string;
  readonly cgroups: CgroupManager;
  readonly cgroupDriver: CgroupDriver;
  readonly cni: Cni;
  readonly images: Images;
  readonly poller: Poller;
  /** By handler name; the default also under the empty name. */
  readonly runtimes: ReadonlyMap<string, RuntimeHandler>;
  /** What each of these handlers cannot do on this node. */
  readonly features: HandlerFeatures;
  readonly sandboxes: RecordStore<SandboxRecord>;
  readonly containers: RecordStore<ContainerRecord>;
  /** What happens to sandboxes and containers, for those who listen. */
  readonly events: Events;
  readonly exits: ExitWatch;
  readonly lxcfs: Lxcfs;
  /** Listens a moment after the start. */
  readonly streaming: Promise<StreamingServer>;
  readonly attachments: Attachments;
  readonly stopLoops: StopLoops;
  readonly layerUsage: WritableLayerUsage;
  readonly readings: Readings;
  readonly guests: GuestFigures;
  readonly openFiles: OpenFileCounts;
  /** What berthd counts about itself. */
  readonly metrics: DaemonMetrics;
  /** RunPodSandbox and CreateContainer in flight, by the caller's key. */
  readonly creating: SingleFlight<string>;
  /** One change at a time of each sandbox or container, by id. */
  readonly locks: KeyedMutex;
}
