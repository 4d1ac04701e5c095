import type { ExecRequest__Output } from '../../proto/gen/runtime/v1/ExecRequest.ts';
import type { ExecResponse } from '../../proto/gen/runtime/v1/ExecResponse.ts';
import { exec } from '../../src/container/exec.ts';
import { checkExec } from '../../src/container/exec-process.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';
import { wantedStreams } from '../mapping/streams.ts';

/** Exec: a URL on the streaming server, under which the command runs when somebody comes. */
export async function execRpc(s: Services, request: ExecRequest__Output): Promise<ExecResponse> {
  const id = requireId(request.container_id, 'container_id');
  const wanted = wantedStreams(request);
  const { cmd: command } = request;
  checkExec(s, id, command);
  const streaming = await s.streaming;
  return {
    url: streaming.command('exec', wanted, (session) => exec(s, id, { command, ...wanted }, session)),
  };
}
