import type { AttachRequest__Output } from '../../proto/gen/runtime/v1/AttachRequest.ts';
import type { AttachResponse } from '../../proto/gen/runtime/v1/AttachResponse.ts';
import { attach, checkAttach } from '../../src/container/attach.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';
import { wantedStreams } from '../mapping/streams.ts';

/** Attach: a URL on the streaming server, under which one client is joined to the container's streams. */
export async function attachRpc(s: Services, request: AttachRequest__Output): Promise<AttachResponse> {
  const id = requireId(request.container_id, 'container_id');
  const wanted = wantedStreams(request);
  checkAttach(s, id);
  const streaming = await s.streaming;
  return { url: streaming.command('attach', wanted, (session) => attach(s, id, session)) };
}
