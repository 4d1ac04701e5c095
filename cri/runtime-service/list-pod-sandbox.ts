import type { ListPodSandboxRequest__Output } from '../../proto/gen/runtime/v1/ListPodSandboxRequest.ts';
import type { ListPodSandboxResponse } from '../../proto/gen/runtime/v1/ListPodSandboxResponse.ts';
import type { Services } from '../../src/services.ts';
import { filterSandboxes } from '../mapping/filters.ts';
import { toPodSandbox } from '../mapping/sandbox.ts';

/** ListPodSandbox: from memory, READY or not. */
export async function listPodSandbox(
  s: Services,
  request: ListPodSandboxRequest__Output,
): Promise<ListPodSandboxResponse> {
  return { items: filterSandboxes(s.sandboxes.values(), request.filter).map(toPodSandbox) };
}
