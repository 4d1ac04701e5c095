import type { ListPodSandboxMetricsResponse } from '../../proto/gen/runtime/v1/ListPodSandboxMetricsResponse.ts';
import type { PodSandboxMetrics } from '../../proto/gen/runtime/v1/PodSandboxMetrics.ts';
import { collectMetrics } from '../../src/metrics/collect.ts';
import type { Services } from '../../src/services.ts';
import { toPodSandboxMetrics } from '../mapping/metrics.ts';

/** ListPodSandboxMetrics. */
export async function listPodSandboxMetrics(s: Services): Promise<ListPodSandboxMetricsResponse> {
  return { pod_metrics: await collectPodMetrics(s) };
}

/** What the streamed form sends in pieces. */
export async function collectPodMetrics(s: Services): Promise<PodSandboxMetrics[]> {
  return (await collectMetrics(s)).map(toPodSandboxMetrics);
}
