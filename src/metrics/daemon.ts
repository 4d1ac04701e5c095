import { monitorEventLoopDelay } from 'node:perf_hooks';
import { containerState } from '../container/record.ts';
import { repairsDue } from '../repair.ts';
import { isReady } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import type { SamplerCost } from '../stats/sampler.ts';
import { BERTH_VERSION } from '../version.ts';
import type { Line, MetricLines } from './exposition.ts';
import { Counter, Histogram } from './instruments.ts';
import { countDescriptors } from './open-files.ts';

/** From what the kernel's page cache answers to what a registry on the other side of the world does; seconds. */
const RPC_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
/** Between two looks at how late the event loop is, milliseconds. Each wakes the process up: at 50 it was 0.3% of a core. */
const LOOP_RESOLUTION_MS = 200;

/** What berthd counts about itself. */
export class DaemonMetrics {
  readonly #durations = new Histogram(
    'berth_rpc_duration_seconds',
    'How long calls took, by method. Pulls of images are PullImage.',
    'rpc',
    RPC_BOUNDS,
  );
  readonly #errors = new Counter('berth_rpc_errors_total', 'Calls that failed, by gRPC code.', [
    'rpc',
    'code',
  ]);
  readonly #inFlight = new Map<string, number>();
  readonly #swept = new Counter(
    'berth_leaks_swept_total',
    'Directories of pods and containers that no record knew of, removed at the start.',
  );
  readonly #delay: ReturnType<typeof monitorEventLoopDelay> | undefined;

  /** @param watchLoop whether to measure how late the event loop is, which wakes the process up */
  constructor(watchLoop: boolean) {
    if (!watchLoop) return;
    this.#delay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
    this.#delay.enable();
  }

  /** A call begins. @returns what to call at its end, with the gRPC code's name */
  rpc(name: string): (code: string) => void {
    const began = performance.now();
    this.#inFlight.set(name, (this.#inFlight.get(name) ?? 0) + 1);
    return (code) => {
      this.#inFlight.set(name, (this.#inFlight.get(name) ?? 1) - 1);
      this.#durations.observe(name, (performance.now() - began) / 1000);
      if (code !== 'OK') this.#errors.increase(name, code);
    };
  }

  leakSwept(): void {
    this.#swept.increase();
  }

  /** Ends what wakes the process up. Repeatable. */
  close(): void {
    this.#delay?.disable();
  }

  /** Everything but pods and containers. */
  async read(s: Services, sampler: SamplerCost): Promise<MetricLines[]> {
    const inFlight = [...this.#inFlight].map(([rpc, value]) => ({ labels: { rpc }, value }));
    const { ready } = await s.cni.status();
    return [
      gauge('berth_build_info', 'Always 1; what runs is in the labels.', {
        labels: { version: BERTH_VERSION, node: process.version },
        value: 1,
      }),
      this.#durations.read(),
      this.#errors.read(),
      gauge('berth_rpcs_in_flight', 'Calls that are being answered.', ...inFlight),
      ...objects(s),
      ...ofImages(s),
      gauge('berth_network_ready', '1 when pods can get a network.', { value: ready ? 1 : 0 }),
      this.#swept.read(),
      gauge('berth_event_subscribers', 'Callers of GetContainerEvents.', { value: s.events.subscribers }),
      counter('berth_event_subscribers_cut_off_total', 'Those that did not keep up.', s.events.cutOff),
      counter('berth_sampler_seconds_total', 'Time spent sampling CPU use.', sampler.seconds),
      counter('berth_sampler_rounds_total', 'Samples of all pods.', sampler.rounds),
      gauge('berth_sampled_cgroups', 'Cgroups in the last sample.', { value: sampler.cgroups }),
      ...this.#loop(),
      ...ofProcess(),
    ];
  }

  /** Since the scrape before. */
  #loop(): MetricLines[] {
    if (this.#delay === undefined) return [];
    const seconds = (ns: number) => Math.max(0, ns / 1e9 - LOOP_RESOLUTION_MS / 1000);
    const lines = [50, 99, 100].map((p) => ({
      labels: { quantile: String(p / 100) },
      value: this.#delay === undefined || this.#delay.count === 0 ? 0 : seconds(this.#delay.percentile(p)),
    }));
    this.#delay.reset();
    return [gauge('berth_event_loop_delay_seconds', 'How late work began since the last scrape.', ...lines)];
  }
}

function objects(s: Services): MetricLines[] {
  const sandboxes = { ready: 0, notready: 0 };
  for (const r of s.sandboxes.values())
    if (r.phase === 'live') sandboxes[isReady(r) ? 'ready' : 'notready']++;
  const containers = { created: 0, running: 0, exited: 0 };
  for (const c of s.containers.values()) if (c.phase === 'live') containers[containerState(c)]++;
  const byState = (counts: Record<string, number>) =>
    Object.entries(counts).map(([state, value]) => ({ labels: { state }, value }));
  // What has not failed yet is work in progress.
  const failed = repairsDue(s).filter(({ cleanup }) => cleanup !== undefined);
  return [
    gauge('berth_sandboxes', 'Pods, by state.', ...byState(sandboxes)),
    gauge('berth_containers', 'Containers, by state.', ...byState(containers)),
    gauge('berth_images', 'Images.', { value: s.images.list().length }),
    gauge('berth_cleanup_tasks', 'What could not be taken down yet and is tried again.', {
      value: failed.length,
    }),
  ];
}

function ofImages({ images }: Services): MetricLines[] {
  const { downloads, unpackings, downloadedBytes, unpackedBytes } = images.activity();
  return [
    gauge('berth_image_bytes', 'What images take of the disk.', { value: Number(images.fsInfo().usedBytes) }),
    gauge('berth_image_downloads', 'Blobs being downloaded, or waiting for their turn.', {
      value: downloads,
    }),
    gauge('berth_image_unpackings', 'Layers being unpacked.', { value: unpackings }),
    counter('berth_image_downloaded_bytes_total', 'Bytes of blobs that arrived.', Number(downloadedBytes)),
    counter('berth_image_unpacked_bytes_total', 'Bytes of unpacked layers.', Number(unpackedBytes)),
  ];
}

/** The names that Prometheus' client libraries have agreed on. */
function ofProcess(): MetricLines[] {
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed } = process.memoryUsage();
  return [
    counter('process_cpu_seconds_total', 'CPU time that berthd used.', (user + system) / 1e6),
    gauge('process_resident_memory_bytes', "berthd's memory.", { value: rss }),
    gauge('process_open_fds', "berthd's open files.", { value: Number(countDescriptors(process.pid)) }),
    gauge('process_start_time_seconds', 'Start of berthd, in seconds since 1970.', {
      value: performance.timeOrigin / 1000,
    }),
    gauge('nodejs_heap_size_used_bytes', "Objects in berthd's heap.", { value: heapUsed }),
  ];
}

function gauge(name: string, help: string, ...lines: Line[]): MetricLines {
  return { name, help, type: 'gauge', lines };
}

function counter(name: string, help: string, value: number): MetricLines {
  return { name, help, type: 'counter', lines: [{ value }] };
}
