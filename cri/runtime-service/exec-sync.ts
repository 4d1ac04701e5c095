import type { ExecSyncRequest__Output } from '../../proto/gen/runtime/v1/ExecSyncRequest.ts';
import type { ExecSyncResponse } from '../../proto/gen/runtime/v1/ExecSyncResponse.ts';
import { execSync } from '../../src/container/exec-sync.ts';
import type { Services } from '../../src/services.ts';
import { requireId } from '../ids.ts';

/** ExecSync: a command's own failure is a code, not an error. */
export async function execSyncRpc(
  s: Services,
  request: ExecSyncRequest__Output,
  signal: AbortSignal,
): Promise<ExecSyncResponse> {
  const id = requireId(request.container_id, 'container_id');
  const { stdout, stderr, exitCode } = await execSync(s, id, request.cmd, Number(request.timeout), signal);
  return { stdout, stderr, exit_code: exitCode };
}
