import type { Metric } from '../../proto/gen/runtime/v1/Metric.ts';
import type { MetricDescriptor } from '../../proto/gen/runtime/v1/MetricDescriptor.ts';
import type { PodSandboxMetrics } from '../../proto/gen/runtime/v1/PodSandboxMetrics.ts';
import type { PodMetrics, Series } from '../../src/metrics/collect.ts';
import { BASE_LABELS, families } from '../../src/metrics/families.ts';
import type { Family } from '../../src/metrics/family.ts';

const NS_PER_SECOND = 1_000_000_000n;

/** What ListPodSandboxMetrics tells; the kubelet drops samples of other names or numbers of labels. */
export function toDescriptors(): MetricDescriptor[] {
  return families.map(({ name, help, labels }) => ({ name, help, label_keys: [...BASE_LABELS, ...labels] }));
}

export function toPodSandboxMetrics({ sandboxId, pod, containers }: PodMetrics): PodSandboxMetrics {
  return {
    pod_sandbox_id: sandboxId,
    metrics: pod.flatMap(toMetrics),
    container_metrics: containers.map((series) => ({
      container_id: series.containerId,
      metrics: toMetrics(series),
    })),
  };
}

function toMetrics({ base, timestampNs, measured }: Series): Metric[] {
  const timestamp = String(timestampNs);
  return families.flatMap((family) =>
    family.read(measured).map(({ labels, value }) => ({
      name: family.name,
      timestamp,
      metric_type: family.type === 'counter' ? ('COUNTER' as const) : ('GAUGE' as const),
      label_values: labels.length === 0 ? [...base] : [...base, ...labels],
      value: { value: toUint64(family, value) },
    })),
  );
}

/** CRI has whole numbers only, so that seconds lose their fractions; berthd's own metrics keep them. */
function toUint64({ unit }: Family, value: bigint): number | string {
  const whole = unit === 'nanoseconds' ? value / NS_PER_SECOND : value;
  // Numbers are much cheaper to encode than their digits.
  return whole <= Number.MAX_SAFE_INTEGER ? Number(whole) : String(whole);
}
