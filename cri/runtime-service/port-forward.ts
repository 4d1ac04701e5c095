import type { PortForwardRequest__Output } from '../../proto/gen/runtime/v1/PortForwardRequest.ts';
import type { PortForwardResponse } from '../../proto/gen/runtime/v1/PortForwardResponse.ts';
import { dialPort, readySandbox } from '../../src/sandbox/dial.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';

/** PortForward: a URL on the streaming server, under which connections to the pod's ports can be made. */
export async function portForwardRpc(
  s: Services,
  request: PortForwardRequest__Output,
): Promise<PortForwardResponse> {
  const id = requireId(request.pod_sandbox_id, 'pod_sandbox_id');
  readySandbox(s, id);
  const streaming = await s.streaming;
  return { url: streaming.portForward(request.port, (port) => dialPort(s, id, port)) };
}
