import type { ListMetricDescriptorsResponse } from '../../proto/gen/runtime/v1/ListMetricDescriptorsResponse.ts';
import { toDescriptors } from '../mapping/metrics.ts';

/** ListMetricDescriptors: the kubelet asks once in its life, so this must never fail or wait. */
export async function listMetricDescriptors(): Promise<ListMetricDescriptorsResponse> {
  return { descriptors: toDescriptors() };
}
