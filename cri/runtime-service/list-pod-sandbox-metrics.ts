import { mapMetrics } from '../../src/metrics/collect.ts';
import type { Services } from '../../src/services.ts';
import { encodeMetricsResponse, encodePodMetrics } from '../mapping/metrics.ts';

/** ListPodSandboxMetrics: the answer's bytes. */
export async function listPodSandboxMetrics(s: Services): Promise<Buffer> {
  return encodeMetricsResponse(await encodedPodMetrics(s));
}

/** The metrics of each pod as bytes, of which the streamed form makes messages. */
export function encodedPodMetrics(s: Services): Promise<Buffer[]> {
  return mapMetrics(s, encodePodMetrics);
}
