import type { ListPodSandboxRequest__Output } from '../../proto/gen/runtime/v1/ListPodSandboxRequest.ts';
import type { SandboxRecord } from '../../src/sandbox/record.ts';
import type { Services } from '../../src/services.ts';
import type { EncodedList } from '../encoded-list.ts';
import { filterSandboxes } from '../mapping/filters.ts';

/** ListPodSandbox: from memory, READY or not, as an encoded response. */
export function listPodSandbox(
  s: Services,
  encoded: EncodedList<SandboxRecord>,
  request: ListPodSandboxRequest__Output,
): Buffer {
  return encoded.of(filterSandboxes(s.sandboxes.values(), request.filter));
}
