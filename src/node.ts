import { access, type FileHandle, mkdir, open, readFile, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { defaultDriver, detectCgroups } from '../cgroups/index.ts';
import type { CgroupMode } from '../cgroups/types.ts';
import { CadvisorServer } from './cadvisor/server.ts';
import type { Config } from './config/schema.ts';
import { Attachments } from './container/attachments.ts';
import type { ContainerRecord } from './container/record.ts';
import { StopLoops } from './container/stop-loop.ts';
import { usedImages } from './container/used-images.ts';
import { BerthError } from './errors.ts';
import { Events } from './events/events.ts';
import { faultsOf, noFaults } from './faults.ts';
import { Images } from './image/images.ts';
import { AppArmor } from './isolation/apparmor.ts';
import { HandlerFeatures } from './isolation/handler-features.ts';
import { Selinux } from './isolation/selinux.ts';
import type { Logger } from './log.ts';
import { DaemonMetrics } from './metrics/daemon.ts';
import { OpenFileCounts } from './metrics/open-files.ts';
import { serveMetrics } from './metrics/serve.ts';
import { Cni } from './network/cni.ts';
import { ConfWatcher } from './network/conf-watch.ts';
import { Paths } from './paths.ts';
import { Database } from './persist/database.ts';
import { RecordStore } from './persist/record-store.ts';
import { collectAttachments, type RecoveryProgress, recover, sweep } from './recover.ts';
import { Repairs } from './repair.ts';
import { ViewKeeper } from './resource-view/keeper.ts';
import { Lxcfs } from './resource-view/lxcfs.ts';
import { ExitWatch } from './runtime/exit-watch.ts';
import { type Handlers, makeHandlers } from './runtime/handlers.ts';
import type { SandboxRecord } from './sandbox/record.ts';
import type { Services } from './services.ts';
import { readHostFacts } from './spec/host.ts';
import { GuestFigures } from './stats/guest-figures.ts';
import { Readings } from './stats/readings.ts';
import { Sampler } from './stats/sampler.ts';
import { WritableLayerUsage } from './stats/writable-layer-usage.ts';
import { StreamingServer } from './streaming/server.ts';
import { inheritedEnvironment } from './sys/exec.ts';
import { tryLock } from './sys/flock.ts';
import { prepareNamespaceDir, releaseNamespaceDir } from './sys/namespaces.ts';
import { Poller } from './sys/poller.ts';
import { becomeSubreaper, OrphanSweeper } from './sys/reap.ts';
import { KeyedMutex } from './util/keyed-mutex.ts';
import { SingleFlight } from './util/single-flight.ts';

/**
 * Between two looks for ended processes that nobody waits for, milliseconds. The end of a container waits for them when
 * they were commands in it whose start was cut off: its PID namespace ends with its last process.
 */
const SWEEP_MS = 1_000;

/** From the start to the moment at which the streaming server listens, milliseconds. */
const STREAMING_MS = 100;

/** A running berth without its RPC server. */
export interface Node {
  readonly services: Services;
  readonly recovery: RecoveryProgress;
  /** Ends what runs in this process; pods go on. Repeatable. */
  close(): Promise<void>;
}

/**
 * Puts berth together: takes the lock on `root`, opens the database, looks at the host, and begins to
 * recover what an earlier berthd left.
 *
 * @throws BerthError `precondition` when another berthd serves this root or a program is missing
 */
export async function startNode(config: Config, log: Logger): Promise<Node> {
  // Pods' users must be able to search what is made for them, whatever the shell that started berthd had.
  process.umask(0o022);
  const paths = new Paths(config.root, config.state);
  for (const dir of [
    paths.root,
    paths.state,
    paths.exits,
    paths.sandboxes,
    paths.bundles,
    paths.writableLayers,
  ]) {
    await mkdir(dir, { recursive: true, mode: 0o711 });
  }
  const lock = await open(paths.lock, 'w', 0o600);
  if (!tryLock(lock.fd)) {
    await lock.close();
    throw new BerthError(
      'precondition',
      `another berthd serves root = "${paths.root}"; stop it or choose another root`,
    );
  }
  await requirePrograms(config);
  // Before any process is started: what a command leaves behind must come to this process.
  becomeSubreaper();
  // Commands end with the daemon that started them; a killed one may have left files of a start.
  await rm(paths.execs, { recursive: true, force: true });
  // Namespaces are pinned below it: see there why it is a mount of its own.
  prepareNamespaceDir(paths.sandboxes);
  try {
    return await startParts(config, log, paths, lock);
  } catch (e: unknown) {
    releaseNamespaceDir(paths.sandboxes);
    throw e;
  }
}

async function startParts(config: Config, log: Logger, paths: Paths, lock: FileHandle): Promise<Node> {
  const db = new Database(paths.database);
  const poller = new Poller();
  const sweeper = new OrphanSweeper(SWEEP_MS);
  const watcher = new ConfWatcher(config.network.conf_dir, log);
  await watcher.refresh();
  const { services, handlers } = await build(config, log, { paths, db, poller, watcher });
  // What it removes is settled at once; the removing takes as long as it likes.
  void services.images.sweep();
  const sampler = new Sampler(services, config.stats.interval * 1000);
  const metrics = await serveMetrics(services, sampler.cost);
  const cadvisor = await CadvisorServer.listen(services);
  const recovery = recover(services);
  const recovered = recovery.done;
  const views = new ViewKeeper(services);
  const repairs = recovered.then(() => new Repairs(services));
  void recovered.then(() => sweep(services)).then(() => collectAttachments(services));
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    sweeper.close();
    await metrics?.close();
    await cadvisor?.close();
    services.metrics.close();
    await sampler.close();
    services.cgroups.retain([]);
    await services.layerUsage.close();
    await services.streaming.then(
      (streaming) => streaming.close(),
      () => {},
    );
    services.attachments.close();
    await services.images.close();
    await services.creating.settled();
    await (await repairs).close();
    await views.close();
    await handlers.close();
    services.cni.close();
    watcher.close();
    await poller.close();
    releaseNamespaceDir(paths.sandboxes);
    db.close();
    await lock.close();
  };
  return { services, recovery, close: () => (closing ??= close()) };
}

interface Parts {
  paths: Paths;
  db: Database;
  poller: Poller;
  watcher: ConfWatcher;
}

async function build(
  config: Config,
  log: Logger,
  { paths, db, poller, watcher }: Parts,
): Promise<{ services: Services; handlers: Handlers }> {
  const { mode, manager, attachLock } = detectCgroups();
  const cgroupDriver = config.cgroup_driver === 'auto' ? defaultDriver() : config.cgroup_driver;
  const cgroups = manager(cgroupDriver);
  const faults = faultsOf(process.env);
  const sandboxes = new RecordStore<SandboxRecord>(db, 'sandboxes', 'sandbox');
  const containers = new RecordStore<ContainerRecord>(db, 'containers', 'container', {
    sandbox_id: (c) => c.sandboxId,
  });
  const attachments = new Attachments(poller);
  const handlers = await makeHandlers({
    ...{ config, cgroupDriver, paths, poller, log, attachments, attachLock },
    sandboxOf: (id) => containers.get(id)?.sandboxId ?? sandboxes.get(id)?.id,
  });
  const guests = new GuestFigures(cgroups, log);
  if (faults !== noFaults) log.warn('faults are planned for a test: this berthd will fail on purpose');
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const streaming = listenForStreams(config.streaming, log);
  // Whoever needs it is told.
  streaming.catch(() => {});
  const services: Services = {
    config,
    paths,
    log,
    faults,
    poller,
    cgroupDriver,
    cgroups,
    host: await readHostFacts(await cgroupFacts(mode)),
    apparmor: await AppArmor.detect(log),
    selinux: await Selinux.detect(config.selinux),
    bootId,
    cni: new Cni({ watcher, host: { binDirs: config.network.bin_dirs, env: inheritedEnvironment() }, log }),
    images: new Images({
      db,
      faults,
      root: paths.images,
      hostsDir: config.images.registry_config_dir,
      pinnedGlobs: config.pinned_images,
      signatures: config.images.signatures,
      used: () => usedImages(containers.values()),
      logger: log,
    }),
    runtimes: handlers.byName,
    features: new HandlerFeatures({
      ...{ runtimes: config.runtimes, defaultRuntime: config.default_runtime, bootId },
      ...{ root: paths.root, file: paths.features },
    }),
    lxcfs: lxcfsOf(config),
    sandboxes,
    containers,
    events: new Events(sandboxes, containers),
    exits: new ExitWatch(poller, log),
    streaming,
    attachments,
    stopLoops: new StopLoops(),
    openFiles: new OpenFileCounts(),
    metrics: new DaemonMetrics(config.metrics.enabled),
    layerUsage: new WritableLayerUsage(log),
    readings: new Readings(guests, config.stats.interval * 1000),
    guests,
    creating: new SingleFlight(),
    locks: new KeyedMutex(),
  };
  return { services, handlers };
}

/** Those who have waited for the socket are answered first: nobody streams before he has listed. */
async function listenForStreams(config: Config['streaming'], log: Logger): Promise<StreamingServer> {
  await delay(STREAMING_MS);
  const { address, port, idle_timeout, tls_cert: cert, tls_key: key, tls_client_ca: clientCa } = config;
  return StreamingServer.listen(
    { address, port, idleMs: idle_timeout * 1000, tls: { cert, key, clientCa } },
    log,
  );
}

function lxcfsOf({ resource_view: { lxcfs_dir: dir, lxcfs: program } }: Config): Lxcfs {
  return new Lxcfs({ dir, program });
}

async function cgroupFacts(mode: CgroupMode) {
  if (mode === 'v2') return { unifiedCgroups: true, swapAccounting: true, hugetlb: true };
  const [swap, huge] = await Promise.all([
    exists('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes'),
    exists('/sys/fs/cgroup/hugetlb'),
  ]);
  return { unifiedCgroups: false, swapAccounting: swap, hugetlb: huge };
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function vmPrograms({ vm }: Config): [string, string, string][] {
  const { hypervisor } = vm;
  return [
    [`vm.${hypervisor}`, vm[hypervisor], hypervisor === 'qemu' ? 'qemu-system-x86' : hypervisor],
    ['vm.virtiofsd', vm.virtiofsd, 'qemu-system-common'],
  ];
}

/** Says at start what would otherwise fail with the first pod. */
async function requirePrograms(config: Config): Promise<void> {
  const programs: [string, string, string][] = [
    ['conmon', config.conmon, 'conmon'],
    ['pause', config.pause, 'catatonit'],
    ...Object.entries(config.runtimes).flatMap(([name, { path, type }]): [string, string, string][] =>
      type === 'vm'
        ? vmPrograms(config)
        : [[`runtimes.${name}.path`, path, type === 'shim' ? 'containerd' : name]],
    ),
  ];
  for (const [key, path, debianPackage] of programs) {
    if (await exists(path)) continue;
    throw new BerthError(
      'precondition',
      `${key}: ${path} does not exist; install it (Debian: apt-get install ${debianPackage}) or configure where it is`,
    );
  }
}
