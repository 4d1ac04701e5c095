import type { MetricDescriptor } from '../../proto/gen/runtime/v1/MetricDescriptor.ts';
import type { PodMetrics, Series } from '../../src/metrics/collect.ts';
import { BASE_LABELS, families } from '../../src/metrics/families.ts';
import type { Family } from '../../src/metrics/family.ts';
import { ByteWriter } from '../../src/util/byte-writer.ts';
import { bytesFields, textFields, varintField, writeMessage } from '../protobuf-writer.ts';

const NS_PER_SECOND = 1_000_000_000n;

/** What ListPodSandboxMetrics tells; the kubelet drops samples of other names or numbers of labels. */
export function toDescriptors(): MetricDescriptor[] {
  return families.map(({ name, help, labels }) => ({ name, help, label_keys: [...BASE_LABELS, ...labels] }));
}

/**
 * CRI's PodSandboxMetrics, encoded. A scrape of a hundred pods is ten thousand metrics whose labels are
 * nearly all the same: with those encoded once for each container it takes a fraction of the time.
 */
export function encodePodMetrics({ sandboxId, pod, containers }: PodMetrics): Buffer {
  const metrics = new ByteWriter();
  metrics.bytes(textFields(1, [sandboxId]));
  for (const series of pod) writeMetrics(metrics, series);
  const inContainers = containers.map((series) => {
    const own = new ByteWriter();
    own.bytes(textFields(1, [series.containerId]));
    writeMetrics(own, series);
    return own.take();
  });
  return Buffer.concat([metrics.take(), bytesFields(3, inContainers)]);
}

/** `pod_metrics` of ListPodSandboxMetricsResponse, `pod_sandbox_metrics` of the streamed form: the same field. */
export function encodeMetricsResponse(pods: readonly Buffer[]): Buffer {
  return bytesFields(1, pods);
}

/** What is the same in all metrics of a family; COUNTER is 0, the default. */
const heads = new Map(
  families.map((family) => [
    family,
    Buffer.concat([textFields(1, [family.name]), varintField(3, family.type === 'gauge' ? 1n : 0n)]),
  ]),
);

const NOTHING = Buffer.alloc(0);

/** CRI's Metric for each sample: `metrics` of PodSandboxMetrics and of ContainerMetrics, the same field. */
function writeMetrics(to: ByteWriter, { base, timestampNs, measured }: Series): void {
  // In all metrics of the series.
  const common = Buffer.concat([varintField(2, timestampNs), textFields(4, base)]);
  for (const [family, head] of heads) {
    for (const { labels, value } of family.read(measured)) {
      const own = labels.length === 0 ? NOTHING : textFields(4, labels);
      const uint64 = bytesFields(5, [varintField(1, toUint64(family, value))]);
      writeMessage(to, 2, [head, common, own, uint64]);
    }
  }
}

/** CRI has whole numbers only, so that seconds lose their fractions; berthd's own metrics keep them. */
function toUint64({ unit }: Family, value: bigint): bigint {
  return unit === 'nanoseconds' ? value / NS_PER_SECOND : value;
}
